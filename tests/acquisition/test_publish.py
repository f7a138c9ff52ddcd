"""Documents on their way to tiled, and back from disk when it did not take them; with a real tiled server."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from pydantic import SecretStr

from beamline_ml.acquisition import MovieDetector, Publication, recover_documents, recover_in_background, xpcs_burst
from beamline_ml.acquisition.journal import Document, read_documents, waiting_journals
from beamline_ml.acquisition.pump import Pump
from beamline_ml.acquisition.raw_container import Connection, run_writer
from beamline_ml.errors import ServiceError
from beamline_ml.settings import Settings, TiledSettings
from tests.acquisition.conftest import EXPOSURE_S, GEOMETRY, PERIOD_S, SAMPLE

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def settings(tiled_server: Any, tmp_path: Path) -> Settings:
    uri = tiled_server.uri.split("/api/")[0]
    tiled = TiledSettings(uri=uri, api_key=SecretStr(tiled_server.api_key), raw="acquisition/raw")
    return Settings(state_dir=tmp_path, tiled=tiled)


@pytest.fixture
def frames_folder(tiled_server: Any) -> Path:
    return Path(tiled_server.frames_dir)


def without_tiled(settings: Settings) -> Settings:
    return settings.model_copy(update={"tiled": settings.tiled.model_copy(update={"uri": NOBODY})})


def burst(engine: RunEngine, detector: MovieDetector, settings: Settings, n_frames: int = 100) -> str:
    publication = Publication(settings)
    token = engine.subscribe(publication)
    plan = xpcs_burst(n_frames, EXPOSURE_S, PERIOD_S, sample=SAMPLE, detector=detector, geometry=GEOMETRY)
    try:
        (uid,) = engine(plan)
    finally:
        engine.unsubscribe(token)
    assert publication.close(patience_s=30.0)
    return uid


def documents_in(path: Path) -> list[tuple[str, Document]]:
    with path.open(encoding="utf-8") as file:
        return read_documents(file)


def left_behind(settings: Settings, documents: list[tuple[str, Document]], tail: str = "") -> Path:
    """The journal of a process that died."""
    settings.backup_dir.mkdir(parents=True, exist_ok=True)
    path = settings.backup_dir / f"{documents[0][1]['uid']}.jsonl"
    lines = [json.dumps({"name": name, "doc": doc}) + "\n" for name, doc in documents]
    path.write_text("".join(lines) + tail, encoding="utf-8")
    return path


@pytest.fixture
def untaken(run_engine: RunEngine, detector: MovieDetector, settings: Settings) -> list[tuple[str, Document]]:
    """Documents of a run that was taken while tiled was down, with its journal in place."""
    burst(run_engine, detector, without_tiled(settings))
    (path,) = waiting_journals(settings.backup_dir)
    return documents_in(path)


@pytest.fixture
def container(settings: Settings) -> Iterator[Any]:
    with closing(Connection(settings)) as connection:
        yield connection.container()


def frames_of(container: Any, uid: str) -> np.ndarray:
    return container[uid]["primary"]["det"].read()


def test_a_run_arrives_with_all_frames_and_leaves_no_journal(
    run_engine: RunEngine, detector: MovieDetector, settings: Settings, container: Any, counts: np.ndarray
) -> None:
    uid = burst(run_engine, detector, settings)
    run = container[uid]
    np.testing.assert_array_equal(run["primary"]["det"].read(), counts[:100])
    assert run["primary"]["det-timestamp"].shape[0] == 100
    assert run.metadata["stop"]["exit_status"] == "success"
    assert not waiting_journals(settings.backup_dir)
    assert container[uid[:8]].metadata["start"]["uid"] == uid


def test_with_tiled_down_the_documents_wait_complete_and_are_recovered(
    untaken: list[tuple[str, Document]], settings: Settings, container: Any, counts: np.ndarray
) -> None:
    assert [untaken[0][0], untaken[-1][0]] == ["start", "stop"]
    uid = untaken[0][1]["uid"]
    assert recover_documents(settings) == (uid,)
    np.testing.assert_array_equal(frames_of(container, uid), counts[:100])
    assert not waiting_journals(settings.backup_dir)
    assert (settings.backup_dir / "replayed" / f"{uid}.jsonl").exists()
    assert recover_documents(settings) == ()


def test_a_partial_run_is_replaced_and_its_detector_file_survives(
    untaken: list[tuple[str, Document]], settings: Settings, container: Any, counts: np.ndarray
) -> None:
    uid = untaken[0][1]["uid"]
    writer = run_writer(container, batch_size=1)
    first_frames = [name for name, _ in untaken].index("stream_datum")
    for name, doc in untaken[: first_frames + 1]:
        writer(name, doc)
    assert container[uid]["primary"]["det"].shape[0] < 100
    (uri,) = {doc["uri"] for name, doc in untaken if name == "stream_resource"}
    assert recover_documents(settings) == (uid,)
    assert Path(uri.removeprefix("file://localhost")).is_file()
    np.testing.assert_array_equal(frames_of(container, uid), counts[:100])


def test_a_run_whose_process_died_is_closed_and_says_so(
    untaken: list[tuple[str, Document]], settings: Settings, container: Any, counts: np.ndarray
) -> None:
    cut = [doc for doc in untaken if doc[0] != "stop"][:-2]
    left_behind(settings, cut, tail='{"name": "stream_datum", "doc": {"uid": "cut o')
    (uid,) = recover_documents(settings)
    stop = container[uid].metadata["stop"]
    assert stop["exit_status"] == "abort"
    assert "ended before the run did" in stop["reason"]
    frames = frames_of(container, uid)
    assert len(frames) == stop["num_events"]["primary"] < 100
    np.testing.assert_array_equal(frames, counts[: len(frames)])


def test_a_run_that_tiled_has_is_not_written_again(
    untaken: list[tuple[str, Document]], settings: Settings, container: Any
) -> None:
    (uid,) = recover_documents(settings)
    container[uid].update_metadata({"mark": "first"})
    left_behind(settings, untaken)
    assert recover_documents(settings) == (uid,)
    assert container[uid].metadata["mark"] == "first"


def test_a_run_that_is_being_taken_is_left_alone(untaken: list[tuple[str, Document]], settings: Settings) -> None:
    path = left_behind(settings, untaken)
    with path.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert recover_documents(settings) == ()
        assert path.exists()


def test_recovery_with_tiled_down_says_so_and_keeps_the_documents(
    untaken: list[tuple[str, Document]], settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ServiceError, match="does not answer"):
        recover_documents(without_tiled(settings))
    recover_in_background(without_tiled(settings)).join(20.0)
    assert "does not answer" in caplog.text
    assert len(waiting_journals(settings.backup_dir)) == 1


def test_a_file_without_a_start_document_is_put_aside(settings: Settings) -> None:
    settings.backup_dir.mkdir(parents=True)
    (settings.backup_dir / "junk.jsonl").write_text('{"name": "stop", "doc": {}}\n')
    assert recover_documents(settings) == ()
    assert (settings.backup_dir / "unreadable" / "junk.jsonl").exists()


def test_putting_never_waits_for_a_slow_or_failing_consumer() -> None:
    seen: list[int] = []
    gate = threading.Event()

    def slow(number: int) -> None:
        gate.wait(10.0)
        if number == 1:
            raise ValueError("a document that nobody can digest")
        seen.append(number)

    pump = Pump(slow, name="test")
    began = time.monotonic()
    for number in range(1000):
        pump.put(number)
    assert time.monotonic() - began < 5.0
    assert not pump.close(patience_s=0.01)
    gate.set()
    assert pump.close(patience_s=10.0)
    assert seen == [0, *range(2, 1000)]


def test_one_run_that_tiled_refuses_does_not_hold_up_the_next(
    settings: Settings, container: Any, run_engine: RunEngine, detector: MovieDetector
) -> None:
    taken = Publication(settings)
    uid = str(uuid.uuid4())
    container.create_container(key=uid)  # in the way: tiled answers 409
    taken("start", {"uid": uid, "time": 0.0})
    taken("stop", {"uid": str(uuid.uuid4()), "time": 1.0, "run_start": uid, "exit_status": "success"})
    assert taken.close(patience_s=30.0)
    assert [path.stem for path in waiting_journals(settings.backup_dir)] == [uid]
    later = burst(run_engine, detector, settings, n_frames=20)
    assert container[later].metadata["stop"]["exit_status"] == "success"


def test_a_journal_that_goes_away_while_they_are_listed_is_left_out(tmp_path: Path) -> None:
    """A link to nowhere is what a file looks like that was removed after the folder had been read."""
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "removed")
    (tmp_path / "new.jsonl").touch()
    (tmp_path / "old.jsonl").touch()
    os.utime(tmp_path / "old.jsonl", (1.0, 1.0))
    assert [path.stem for path in waiting_journals(tmp_path)] == ["old", "new"]

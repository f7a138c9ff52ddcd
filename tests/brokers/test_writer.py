"""The writer against real brokers and a real tiled: each document once, whatever dies, repeats or makes no sense."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from beamline_ml.brokers.connect import open_source
from beamline_ml.brokers.inbox import Inbox
from beamline_ml.brokers.writer import inbox_folder, write_documents
from beamline_ml.errors import ServiceError, SettingsError
from tests.brokers.conftest import (
    WriterProcess,
    assert_written_once,
    dead_letters,
    is_written,
    send,
    send_bytes,
    without_tiled,
)
from tests.service.processes import eventually

DURABLE = ["nats", "redis", "kafka"]
ALL = [*DURABLE, "zmq"]


@pytest.mark.parametrize(
    ("broker", "serializer"),
    [("nats", "json"), ("kafka", "msgpack"), ("redis", "json")],
    indirect=["broker"],
)
def test_two_interleaved_runs_arrive_whole(settings, container, make_run, serializer) -> None:
    one, counts, documents = make_run(60, seed=1)
    two, other_counts, others = make_run(60, seed=2)
    mixed = [pair for both in zip(documents, others, strict=True) for pair in both]
    send(settings, mixed, serializer)
    write_documents(settings, until_quiet=True)
    assert_written_once(container, one, counts)
    assert_written_once(container, two, other_counts)
    assert not dead_letters(settings)
    assert not list(inbox_folder(settings).glob("*.jsonl"))


@pytest.mark.parametrize("broker", DURABLE, indirect=True)
def test_killed_in_the_middle_it_goes_on_and_writes_all_once(
    settings: Any, container: Any, make_run: Any, writer_process: WriterProcess
) -> None:
    uid, counts, documents = make_run(100)
    middle = len(documents) // 2
    writer_process.start()
    send(settings, documents[:middle])
    assert eventually(lambda: uid in container and "primary" in container[uid], 60)
    send(settings, documents[middle:-1])  # and at once:
    writer_process.kill()
    send(settings, documents[-1:])
    writer_process.start()
    assert eventually(lambda: is_written(container, uid), 60)
    assert_written_once(container, uid, counts)
    assert eventually(lambda: not list(inbox_folder(settings).glob("*.jsonl")), 20)
    assert writer_process.stop() == 0
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["nats"], indirect=True)
def test_killed_over_and_over_at_any_moment(settings, container, make_run, writer_process) -> None:
    runs = [make_run(30, seed) for seed in range(3)]
    for delay_s, (_, _, documents) in zip((1.5, 2.5, 3.2), runs, strict=True):
        send(settings, documents)
        writer_process.start()
        time.sleep(delay_s)
        writer_process.kill()
    writer_process.start()
    assert eventually(lambda: all(is_written(container, uid) for uid, _, _ in runs), 60)
    for uid, counts, _ in runs:
        assert_written_once(container, uid, counts)
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["redis", "zmq"], indirect=True)
def test_with_tiled_down_documents_are_acknowledged_and_wait_on_disk(settings, container, make_run, running) -> None:
    uid, counts, documents = make_run(50)
    stop = running(without_tiled(settings))
    send(settings, documents)
    assert eventually(lambda: len(list(inbox_folder(settings).glob("*.jsonl"))) == 1, 20)
    stop()
    assert uid not in container
    stop = running(settings)
    assert eventually(lambda: is_written(container, uid), 60)
    stop()
    assert_written_once(container, uid, counts)
    assert not list(inbox_folder(settings).glob("*.jsonl"))


@pytest.mark.parametrize("broker", ALL, indirect=True)
def test_garbage_becomes_dead_letters_and_the_rest_goes_on(settings, container, make_run, running) -> None:
    uid, counts, documents = make_run(50)
    garbage = [
        b"",
        b"\x80\x04\x95pickled",
        b'{"name": "start"',
        b'{"name": "start", "doc": {"time": "yesterday"}}',
        b'{"name": "start", "doc": {"uid": "../../up", "time": 1.0}}',
        json.dumps({"name": "event", "doc": {**documents[5][1], "uid": "lost", "descriptor": "unheard-of"}}).encode(),
        b"[" * 100_000,
        b"x" * (2**20 + 1),
    ]
    if settings.documents.kind != "redis":
        garbage.pop()  # larger than NATS and Kafka take; 0MQ drops the connection
    stop = running(settings)
    send(settings, documents[:8])
    send_bytes(settings, garbage)
    send(settings, documents[8:])
    assert eventually(lambda: is_written(container, uid), 60)
    stop()
    assert_written_once(container, uid, counts)
    assert len(dead_letters(settings)) == len(garbage)
    kept = {path.with_suffix(".bin").read_bytes() for path in dead_letters(settings)}
    assert kept == set(garbage)
    for path in dead_letters(settings):
        label = json.loads(path.read_text())
        assert label["culprit"]
        assert label["remedy"]
        assert label["position"] or settings.documents.kind == "zmq"


@pytest.mark.parametrize("broker", ["kafka"], indirect=True)
def test_what_comes_twice_is_written_once(settings, container, make_run) -> None:
    uid, counts, documents = make_run(50)
    send(settings, [pair for pair in documents for _ in (1, 2)])
    write_documents(settings, until_quiet=True)
    container[uid].update_metadata({"mark": "first"})
    send(settings, documents)
    send(settings, documents[-10:])
    write_documents(settings, until_quiet=True)
    assert_written_once(container, uid, counts)
    assert container[uid].metadata["mark"] == "first"
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", DURABLE, indirect=True)
def test_replay_from_a_position_fills_a_catalogue_that_lost_runs(settings, container, make_run) -> None:
    earlier, earlier_counts, before = make_run(30, seed=1)
    uid, counts, documents = make_run(30, seed=2)
    send(settings, before)
    send(settings, documents)
    with_positions = open_source(settings.documents)
    messages: list[Any] = []
    while len(messages) < len(before) + 1:
        messages += with_positions.receive(1.0)
    with_positions.close()
    write_documents(settings, until_quiet=True)
    for lost in (earlier, uid):
        container[lost].delete(recursive=True, external_only=False)
    write_documents(settings, first=messages[len(before)].position, until_quiet=True)
    assert_written_once(container, uid, counts)
    assert earlier not in container
    write_documents(settings, first="first", until_quiet=True)
    assert_written_once(container, earlier, earlier_counts)
    assert_written_once(container, uid, counts)
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_document_that_tiled_refuses_does_not_hold_up_the_rest(settings, container, make_run) -> None:
    uid, _, documents = make_run(50)
    bad = json.loads(json.dumps(documents))
    bad[3][1]["mimetype"] = "application/x-nobody-reads-this"
    later, later_counts, others = make_run(30, seed=2)
    send(settings, [(name, doc) for name, doc in bad])
    send(settings, others)
    write_documents(settings, until_quiet=True)
    assert_written_once(container, later, later_counts)
    assert (inbox_folder(settings) / "refused" / f"{uid}.jsonl").exists()
    assert any("did not take" in path.read_text() for path in dead_letters(settings))
    assert container[uid].metadata["stop"]["exit_status"] == "success"


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_overlapping_frames_are_refused_and_not_counted(settings, container, make_run) -> None:
    uid, counts, documents = make_run(50)
    datum = documents[4][1]
    overlap = ("stream_datum", {**datum, "uid": f"{datum['uid']}-again"})
    send(settings, [*documents[:8], overlap, *documents[8:]])
    write_documents(settings, until_quiet=True)
    assert_written_once(container, uid, counts)
    (letter,) = dead_letters(settings)
    assert "of the same file" in letter.read_text()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_one_writer_at_a_time(settings, running) -> None:
    stop = running(settings)
    assert eventually(lambda: (inbox_folder(settings) / "writer.lock").exists(), 10)
    time.sleep(0.2)
    with pytest.raises(ServiceError, match="Another process"):
        write_documents(settings, until_quiet=True)
    stop()


@pytest.mark.parametrize("broker", ALL, indirect=True)
def test_a_position_that_is_none_is_named(settings) -> None:
    with pytest.raises(SettingsError, match="no position"):
        open_source(settings.documents, "yesterday")


@pytest.mark.parametrize("broker", ["nats", "redis"], indirect=True)
def test_a_broker_that_goes_away_and_comes_back(settings, container, make_run, broker, running) -> None:
    uid, counts, documents = make_run(50)
    stop = running(settings)
    send(settings, documents[:9])
    assert eventually(lambda: uid in container, 30)
    broker.stop()
    time.sleep(1.0)
    broker.start()
    send(settings, documents[9:])
    assert eventually(lambda: is_written(container, uid), 60)
    stop()
    assert_written_once(container, uid, counts)
    assert not dead_letters(settings)


@pytest.mark.parametrize("broker", ["zmq"], indirect=True)
def test_a_last_line_cut_off_by_death_is_written_anew(settings, make_run) -> None:
    uid, _, documents = make_run(50)
    inbox = Inbox(inbox_folder(settings))
    for name, doc in documents[:5]:
        assert inbox.take(name, doc) == uid
    inbox.close()
    path = inbox_folder(settings) / f"{uid}.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    inbox = Inbox(inbox_folder(settings))
    taken = [inbox.take(name, doc) for name, doc in documents]
    inbox.close()
    assert taken == [None] * 4 + [uid] * (len(documents) - 4)
    assert len(path.read_text().splitlines()) == len(documents)

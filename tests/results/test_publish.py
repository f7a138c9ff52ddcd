"""A result is seen whole or not at all, once, whoever else tries the same."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import httpx
import numpy as np
import pytest
from tiled.queries import Key

from beamline_ml.errors import MetadataMissing, ResultError
from beamline_ml.results import publish, publish_failure
from beamline_ml.results.assembly import assemble
from beamline_ml.results.publish import drafted, find_complete, publish_result
from beamline_ml.results.search import Results
from beamline_ml.results.writers import abandoned, this_writer
from tests.conftest import left_behind


@pytest.fixture(scope="module")
def results(tiled_root):
    return tiled_root.create_container("results")


@pytest.fixture
def whole(make_analysis):
    return assemble(make_analysis(str(uuid4())))


@pytest.fixture
def content(whole):
    """A small part of a result, because publishing costs two requests an array."""
    return replace(whole, arrays=whole.arrays[:3], tables=whole.tables[:1])


def entries(results, content):
    return {node.metadata["status"] for node in results.search(Key("result_id") == content.result_id).values()}


def test_all_of_it_arrives(results, whole):
    content = whole
    result = publish_result(results, content)
    assert result.status == "complete"
    assert result.key == content.key
    for array in content.arrays:
        np.testing.assert_array_equal(result[array.name].read(), array.data)
        assert result[array.name].metadata["units"] == array.units
        assert result[array.name].dims == array.dims
    for table in content.tables:
        read = result[table.name].read()
        assert list(read.columns) == list(table.columns)


def test_publishing_twice_changes_nothing(results, content):
    first = publish_result(results, content)
    again = publish_result(results, replace(content, metadata={**content.metadata, "warnings": ["other"]}))
    assert again.key == first.key
    assert again.metadata["published_at"] == first.metadata["published_at"]
    assert len(results.search(Key("result_id") == content.result_id)) == 1


def test_other_settings_stand_beside(results, make_analysis):
    uid = str(uuid4())
    few = {"arrays": (), "tables": ()}
    one = publish_result(results, replace(assemble(make_analysis(uid)), **few))
    other = publish_result(results, replace(assemble(make_analysis(uid, settings={"n_q": 5})), **few))
    assert other.key == f"{one.key}_{other.metadata['result_id'][:6]}"
    assert {one.status, other.status} == {"complete"}


def test_an_error_while_writing_leaves_nothing(results, content, monkeypatch):
    def fail(node, table):
        raise OSError("disk full")

    monkeypatch.setattr(publish, "_write_table", fail)
    with pytest.raises(OSError, match="disk full"):
        publish_result(results, content)
    assert entries(results, content) == set()
    monkeypatch.undo()
    assert publish_result(results, content).status == "complete"


def test_what_a_dead_process_left_is_removed(results, content):
    left = results.create_container(
        key=content.key,
        metadata={**content.metadata, "status": "writing", "writer": {**this_writer("t"), "pid": 2**22 + 1}},
    )
    left.write_array(np.zeros(3), key="c2")
    result = publish_result(results, content)
    assert result.key == content.key
    np.testing.assert_array_equal(result.c2.shape, (3, 24, 24))
    assert entries(results, content) == {"complete"}


def test_what_a_killed_tiled_left_on_disk_sends_the_result_elsewhere(results, content, tiled_server, few_retries):
    left_behind(tiled_server, "results", content.key, content.arrays[1].name)
    result = publish_result(results, content)
    assert result.status == "complete"
    assert result.key.startswith(f"{content.key}_{content.result_id[:6]}_")
    assert set(result) == {part.name for part in (*content.arrays, *content.tables)}
    assert content.key not in results
    assert entries(results, content) == {"complete"}
    assert publish_result(results, content).key == result.key


def test_a_tiled_that_can_write_nowhere_is_an_error_and_leaves_nothing(results, content, monkeypatch):
    def fail(node, array):
        response = httpx.Response(500, request=httpx.Request("POST", "http://tiled"))
        raise httpx.HTTPStatusError("disk full", request=response.request, response=response)

    monkeypatch.setattr(publish, "_write_array", fail)
    with pytest.raises(httpx.HTTPStatusError, match="disk full"):
        publish_result(results, content)
    assert entries(results, content) == set()


def test_what_another_machine_left_is_removed_once_it_stands_still(results, content):
    writer = {**this_writer("t"), "host": "elsewhere"}
    results.create_container(key=content.key, metadata={**content.metadata, "status": "writing", "writer": writer})
    assert publish_result(results, content, stale_s=0.5).status == "complete"
    assert entries(results, content) == {"complete"}


def test_racing_writers_end_in_one_result(results, content):
    with ThreadPoolExecutor(3) as pool:
        published = list(pool.map(lambda _: publish_result(results, content), range(3)))
    assert len({result.key for result in published}) == 1
    (only,) = results.search(Key("result_id") == content.result_id).values()
    assert only.status == "complete"
    assert {array.name for array in content.arrays} <= set(only)


def test_racing_writers_that_do_not_see_each_other_end_in_one_result(results, content, monkeypatch):
    monkeypatch.setattr(publish, "_settle", lambda *args: None)
    with ThreadPoolExecutor(2) as pool:
        published = list(pool.map(lambda _: publish_result(results, content), range(2)))
    (only,) = results.search(Key("result_id") == content.result_id).values()
    assert only.status == "complete"
    assert any(result.key == only.key for result in published)


def test_a_failure_says_why_and_a_success_removes_it(results, content):
    start = {"uid": content.metadata["scan_uid"], "scan_id": 12, "sample": {"name": "latex 5%"}, "technique": "xpcs"}
    error = MetadataMissing("Scan 12 does not say its beam_center_row_px.", "Record it.")
    publish_failure(results, start, error, {})
    failed = publish_failure(results, start, error, {})
    assert failed.status == "failed"
    assert failed.metadata["attempts"] == 2
    assert failed.error == {"type": "MetadataMissing", "culprit": error.culprit, "remedy": "Record it."}
    assert "does not say its beam_center_row_px" in failed.summary()
    with pytest.raises(ResultError, match="the analysis failed"):
        _ = failed.c2
    publish_result(results, content)
    assert [result.status for result in Results(results).of_run(start["uid"])] == ["complete"]


def test_a_failure_under_other_settings_stays(results, make_analysis):
    uid = str(uuid4())
    start = {"uid": uid, "scan_id": 12, "sample": {"name": "latex 5%"}, "technique": "xpcs"}
    publish_failure(results, start, ResultError("The q-map is missing.", "Give one."), {"qmap": "absent.h5"})
    publish_result(results, replace(assemble(make_analysis(uid)), arrays=(), tables=()))
    assert [result.status for result in Results(results).of_run(uid)] == ["complete", "failed"]


def test_who_is_known_to_be_gone():
    assert abandoned(this_writer("no such publication"))
    assert not abandoned({**this_writer("x"), "host": "elsewhere"})
    assert abandoned({**this_writer("x"), "pid": 2**22 + 1})
    assert abandoned({**this_writer("x"), "pid": 1, "born": "a reused process id"})


def test_nothing_is_found_for_an_unknown_identity(results):
    assert find_complete(results, "0" * 16) is None


def test_what_is_known_early_is_written_early_and_seen_late(results, whole):
    early = replace(whole, arrays=whole.arrays[:2], tables=())
    with drafted(results, early) as draft:
        assert draft.existing is None
        assert entries(results, whole) == {"writing"}
        result = draft.complete(whole)
    assert result.status == "complete"
    assert set(result) == {part.name for part in (*whole.arrays, *whole.tables)}
    with drafted(results, early) as draft:
        assert draft.existing.key == result.key


def test_a_draft_that_is_not_completed_leaves_nothing(results, content):
    with pytest.raises(RuntimeError, match="the fit broke"), drafted(results, content):
        raise RuntimeError("the fit broke")
    assert entries(results, content) == set()
    with drafted(results, content):
        pass
    assert entries(results, content) == set()

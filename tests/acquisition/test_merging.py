"""Merged documents announce the same frames, in the same order."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from beamline_ml.acquisition.merging import merge_stream_datums


def datum(resource: str, start: int, stop: int) -> tuple[str, dict[str, Any]]:
    return "stream_datum", {
        "uid": f"{resource}/{start}",
        "stream_resource": resource,
        "descriptor": "d",
        "indices": {"start": start, "stop": stop},
        "seq_nums": {"start": start + 1, "stop": stop + 1},
    }


def frames(documents: list[tuple[str, dict[str, Any]]], resource: str) -> list[int]:
    own = [doc for name, doc in documents if name == "stream_datum" and doc["stream_resource"] == resource]
    return [frame for doc in own for frame in range(doc["indices"]["start"], doc["indices"]["stop"])]


def test_what_waits_becomes_one_document_a_resource() -> None:
    waiting = [datum(key, start, start + 20) for start in range(0, 100, 20) for key in ("a", "b")]
    assert [doc["indices"] for _, doc in merge_stream_datums(waiting)] == [{"start": 0, "stop": 100}] * 2


def test_nothing_is_moved_past_another_kind_of_document() -> None:
    start, stop = ("start", {"uid": "r"}), ("stop", {"uid": "s"})
    resource = ("stream_resource", {"uid": "b"})
    waiting = [start, datum("a", 0, 5), resource, datum("a", 5, 9), datum("b", 0, 9), stop]
    assert merge_stream_datums(waiting) == waiting
    assert merge_stream_datums([]) == []


def test_a_gap_stays_a_gap() -> None:
    waiting = [datum("a", 0, 5), datum("a", 7, 9), datum("a", 9, 12)]
    assert [doc["indices"]["start"] for _, doc in merge_stream_datums(waiting)] == [0, 7]


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 4), st.integers(0, 1)), max_size=12))
def test_no_frame_is_lost_doubled_or_moved(steps: list[tuple[str, int, int]]) -> None:
    at = {"a": 0, "b": 0}
    waiting = []
    for resource, n_frames, gap in steps:
        first = at[resource] + gap
        waiting.append(datum(resource, first, first + n_frames))
        at[resource] = first + n_frames
    merged = merge_stream_datums(waiting)
    for resource in "ab":
        assert frames(merged, resource) == frames(waiting, resource)
    assert len(merged) <= len(waiting)

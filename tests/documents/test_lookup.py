"""Runs are found by what people type, and never by accident."""

import pytest

from beamline_ml.documents import find_run
from beamline_ml.errors import RunNotFound

SHAPE = (4, 6, 5)


@pytest.fixture(scope="module")
def uids() -> tuple[str, str, str]:
    return (
        "aaaa1111-0000-4000-8000-000000000001",
        "aaaa1111-0000-4000-8000-000000000002",
        "12345678-0000-4000-8000-000000000003",
    )


@pytest.fixture(scope="module")
def catalogue(raw, uids):
    from bluesky_tiled_plugins import TiledWriter
    from event_model import compose_run

    for time, (uid, scan_id) in enumerate(zip(uids, (901, 902, 902), strict=True)):
        writer = TiledWriter(raw, batch_size=1)
        run = compose_run(uid=uid, time=4e9 + time, metadata={"scan_id": scan_id})
        writer("start", run.start_doc)
        writer("stop", run.compose_stop())
    return raw


def uid_of(run):
    return run.metadata["start"]["uid"]


def test_full_uid_short_uid_and_scan_id(catalogue, uids):
    assert uid_of(find_run(catalogue, uids[0])) == uids[0]
    assert uid_of(find_run(catalogue, uids[2][:8])) == uids[2]
    assert uid_of(find_run(catalogue, 901)) == uids[0]
    assert uid_of(find_run(catalogue, "901")) == uids[0]


def test_a_scan_id_used_twice_means_its_latest_run(catalogue, uids):
    assert uid_of(find_run(catalogue, 902)) == uids[2]


def test_negative_numbers_count_from_the_latest(catalogue, uids):
    assert uid_of(find_run(catalogue, -1)) == uids[2]
    assert uid_of(find_run(catalogue, "-3")) == uids[0]


def test_an_ambiguous_short_uid_is_refused(catalogue):
    with pytest.raises(RunNotFound, match=r"more than one run.*more characters"):
        find_run(catalogue, "aaaa1111")


def test_a_number_that_is_both_scan_id_and_short_uid_is_refused(catalogue, raw):
    from bluesky_tiled_plugins import TiledWriter
    from event_model import compose_run

    run = compose_run(metadata={"scan_id": 12345678})
    TiledWriter(raw, batch_size=1)("start", run.start_doc)
    with pytest.raises(RunNotFound, match="more than one run"):
        find_run(catalogue, "12345678")
    raw[run.start_doc["uid"]].delete(recursive=True, external_only=False)


@pytest.mark.parametrize("key", ["ffffffff", "777777", "abc", "-99999", "%", "aaaa%", "../results", "", "a/b"])
def test_what_answers_to_nothing_is_refused(catalogue, key):
    with pytest.raises(RunNotFound):
        find_run(catalogue, key)

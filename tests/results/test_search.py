"""Results are found by what people know: sample, scan, time."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from beamline_ml.errors import ResultError
from beamline_ml.results import Results, open_results
from beamline_ml.results.assembly import assemble
from beamline_ml.results.client import XPCSFit
from beamline_ml.results.publish import publish_result

UIDS = ("11111111-aaaa-4000-8000-000000000000", "22222222-bbbb-4000-8000-000000000000")


@pytest.fixture(scope="module")
def container(tiled_root):
    return tiled_root.create_container("found")


@pytest.fixture
def results(container, make_analysis):
    for number, uid in enumerate(UIDS):
        content = assemble(make_analysis(uid))
        told = {"run_time": 1.8e9 + 1000 * number, "scan_id": 12 + number, "sample": {"name": f"silica {number}"}}
        publish_result(container, replace(content, metadata={**content.metadata, **told}))
    return Results(container)


def test_by_sample_scan_uid_and_time(results):
    assert [result.scan_uid for result in results] == list(reversed(UIDS))
    assert len(results) == 2
    assert results.latest().scan_uid == UIDS[1]
    assert results.latest(sample="silica 0").scan_uid == UIDS[0]
    assert len(results.search(sample="silica%")) == 2
    assert results.search(scan=12)[0].scan_uid == UIDS[0]
    assert results.search(scan=UIDS[1])[0].scan_uid == UIDS[1]
    assert results.of_run("22222222")[0].scan_uid == UIDS[1]
    assert [r.scan_uid for r in results.search(since=1.8e9 + 500)] == [UIDS[1]]
    assert [r.scan_uid for r in results.search(until=datetime.fromtimestamp(1.8e9 + 500, UTC))] == [UIDS[0]]
    assert results.search(status="failed") == []


def test_nothing_found_is_a_plain_error(results):
    with pytest.raises(ResultError, match="no complete result for sample='gold'"):
        results.latest(sample="gold")
    with pytest.raises(ResultError, match="no result 'absent'"):
        results["absent"]


def test_the_server_address_is_enough(results, tiled_server):
    with open_results(tiled_server.uri, path="found") as found:
        assert isinstance(found.latest(), XPCSFit)
        assert found[found.latest().key].sample_name == "silica 1"


def test_a_container_that_is_not_there_is_a_plain_error(tiled_server):
    with pytest.raises(ResultError, match="has no elsewhere"):
        open_results(tiled_server.uri, path="elsewhere")


def test_a_server_that_is_down_is_a_plain_error():
    with pytest.raises(ResultError, match="does not answer"):
        open_results("http://127.0.0.1:9")


def test_a_result_gives_arrays_tables_forecast_and_kernel(results):
    result = results.latest()
    assert result.c2.shape == (3, 24, 24)
    assert result.g2.shape == result.g2_err.shape == (3, 7)
    assert result.relaxation["refused"][0].startswith("g2 decays")
    assert result.forecast.method == "neural_ode"
    assert result.forecast.contest["persistence"] == 0.2
    assert result.forecast.c2.shape == (3, 17, 17)
    assert result.kernel.mean_um_per_s.shape == (30,)
    assert (result.kernel.resolved == (result.kernel.r_um >= 1.0)).all()
    assert result.diffusion_coefficient_um2_per_s == (0.02, 0.001)
    assert result.summary().splitlines()[0].startswith("silica 1, scan 13 (22222222), taken ")
    assert result.summary().splitlines()[-1] == "Note: One frame is missing."
    assert "silica 1, scan 13, complete" in repr(result)

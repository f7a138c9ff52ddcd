"""A result in the layout of APS 8-ID holds its numbers, and pyXpcsViewer opens it."""

import io
import json
from uuid import uuid4

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from beamline_ml.cli import app
from beamline_ml.errors import ResultError
from beamline_ml.results.aps import REQUIRED, aps_bytes
from beamline_ml.results.assembly import assemble
from beamline_ml.results.publish import publish_result
from tests.results.conftest import N_Q, PERIOD_S, TAU, N, Q, make_g2

FIELDS = (
    *("entry/definition", "entry/schema_version", "entry/start_time", "entry/end_time", "entry/entry_identifier"),
    *("entry/entry_identifier_uuid", "entry/scan_number", "entry/instrument/bluesky/metadata", "entry/sample"),
    *("entry/instrument/incident_beam/incident_energy", "entry/user", "xpcs/rawdata_path"),
    *(f"entry/instrument/detector_1/{name}" for name in ("frame_time", "count_time", "distance", "beam_center_x")),
    *(f"entry/instrument/detector_1/{name}" for name in ("beam_center_y", "x_pixel_size", "y_pixel_size")),
    *(f"xpcs/multitau/{name}" for name in ("delay_list", "normalized_g2", "normalized_g2_err", "config/avg_frame")),
    *(f"xpcs/twotime/{name}" for name in ("correlation_map/c2_00001", "normalized_g2", "normalized_g2_segments")),
    *(f"xpcs/twotime/{name}" for name in ("processed_bins", "delay_list", "config/stride_frame")),
    *(f"xpcs/temporal_mean/scattering_{name}" for name in ("1d", "1d_segments", "2d")),
    "xpcs/spatial_mean/intensity_vs_time",
    *(f"xpcs/qmap/{kind}_{name}" for kind in ("dynamic", "static") for name in ("roi_map", "num_pts", "v_list_dim1")),
    *(f"xpcs/qmap/{name}" for name in ("mask", "map_names", "map_units", "energy", "pixel_size", "beam_center_x")),
)


def three_rings():
    rows, cols = np.mgrid[:64, :64]
    return np.minimum(np.hypot(rows - 31.5, cols - 31.5) // 8, 3).astype(np.int64)


@pytest.fixture(scope="module")
def container(tiled_root):
    return tiled_root.create_container("exported-aps")


@pytest.fixture(scope="module")
def result(container, make_analysis):
    return publish_result(container, assemble(make_analysis(str(uuid4()), roi_map=three_rings())))


@pytest.fixture(scope="module")
def path(result, tmp_path_factory):
    return result.export("aps", tmp_path_factory.mktemp("exported") / "A001_results.hdf")


@pytest.fixture(scope="module")
def file(path):
    with h5py.File(path) as opened:
        yield opened


def test_every_field_of_the_layout_is_there(file):
    assert [name for name in FIELDS if name not in file] == []
    assert set(file["xpcs/qmap"].attrs) >= {"hash", "version"}
    assert file["xpcs/qmap/dynamic_v_list_dim0"].attrs["unit"] == "1/A"


def test_numbers_are_those_of_the_result(file, result):
    expected = make_g2()
    g2 = file["xpcs/multitau/normalized_g2"]
    assert (g2.shape, g2.dtype) == ((7, N_Q), np.float32)
    np.testing.assert_array_equal(g2[()], expected.g2.T.astype(np.float32))
    np.testing.assert_array_equal(file["xpcs/multitau/delay_list"][()], expected.delay_frames)
    for number, c2 in enumerate(result.c2, 1):
        np.testing.assert_array_equal(file[f"xpcs/twotime/correlation_map/c2_{number:05d}"][()], np.triu(c2))
    assert file["xpcs/twotime/normalized_g2"].shape == (N, N_Q)
    assert file["xpcs/twotime/normalized_g2_segments"].shape == (N // 5, 5, N_Q)
    along = np.diagonal(result.c2, 3, 1, 2)
    np.testing.assert_allclose(file["xpcs/twotime/normalized_g2"][3], np.nanmean(along, axis=1), rtol=1e-6)
    np.testing.assert_allclose(file["xpcs/temporal_mean/scattering_1d"][0], 4.0)
    np.testing.assert_allclose(file["xpcs/spatial_mean/intensity_vs_time"][1], 4.0)


def test_rows_that_were_binned_say_so(result):
    arrays = {name: np.asarray(result[name].read()) for name in (*REQUIRED, "c2")}
    metadata = {**result.metadata, "quality": {"time_binning": 4}}
    with h5py.File(io.BytesIO(aps_bytes(metadata, arrays))) as file:
        assert file["xpcs/twotime/config/avg_frame"][()] == 4
        assert file["xpcs/multitau/config/avg_frame"][()] == 1


def test_static_bins_of_their_own(result):
    arrays = {name: np.asarray(result[name].read()) for name in REQUIRED}
    halves = 2 * arrays["roi_map"].astype(int) - (np.arange(64) < 32)
    arrays["static_roi_map"] = np.where(arrays["roi_map"] > 0, halves, 0)
    arrays["static_intensity"] = np.arange(6.0)[:, None] * np.ones(N)
    with h5py.File(io.BytesIO(aps_bytes(dict(result.metadata), arrays))) as file:
        np.testing.assert_allclose(file["xpcs/qmap/static_v_list_dim0"][()], np.repeat(Q, 2))
        np.testing.assert_allclose(file["xpcs/temporal_mean/scattering_1d"][0], np.arange(6.0))
        assert "twotime" not in file["xpcs"]


def test_what_cannot_be_exported_says_why(result, container, make_analysis, tmp_path):
    arrays = {name: np.asarray(result[name].read()) for name in REQUIRED}
    with pytest.raises(ResultError, match="not complete"):
        aps_bytes({**result.metadata, "status": "writing"}, arrays)
    without = publish_result(container, assemble(make_analysis(str(uuid4()), roi_map=None)))
    with pytest.raises(ResultError, match=r"lacks roi_map.*NXxpcs"):
        without.export("aps", tmp_path / "a.hdf")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ResultError, match="no file to write"):
        result.export("aps")


def test_tileds_own_export_still_works(result, tmp_path):
    result.export(str(tmp_path / "plain.json"))
    assert (tmp_path / "plain.json").stat().st_size > 0


def test_the_command_line_writes_both(result, tiled_server, tmp_path, monkeypatch):
    monkeypatch.setattr("beamline_ml.results.console.chosen_results", lambda name: [result])
    for layout, member in (("aps", "xpcs/multitau"), ("nxxpcs", "entry/data")):
        target = tmp_path / f"{layout}.h5"
        done = CliRunner().invoke(app, ["export", "12", str(target), "--format", layout, "--json"])
        assert json.loads(done.stdout) == {"file": str(target), "format": layout}
        with h5py.File(target) as file:
            assert member in file
    refused = CliRunner().invoke(app, ["export", "12", str(target), "--format", "tiff"])
    assert "'tiff'" in str(refused.exception)


def test_pyxpcsviewer_opens_it(path, result, seen_by_viewer):
    seen = seen_by_viewer(path)
    expected = make_g2()
    assert (seen["type"], set(seen["analysis"])) == ("nexus", {"Multitau", "Twotime"})
    np.testing.assert_allclose(seen["q"], Q)
    np.testing.assert_allclose(seen["delay_s"], expected.delay_s)
    np.testing.assert_allclose(seen["g2"], expected.g2.T, rtol=1e-6)
    np.testing.assert_allclose(seen["g2_err"], expected.g2_err.T, rtol=1e-6)
    assert seen["labels"][0].startswith("qbin=1, q=0.00040")
    assert len(seen["two_time_labels"]) == N_Q
    np.testing.assert_allclose(seen["c2"], np.nan_to_num(result.c2[1], nan=-1), rtol=1e-6)
    assert seen["row_s"] == PERIOD_S
    np.testing.assert_allclose(seen["saxs"], 4.0)
    assert seen["image"] == [64, 64]
    np.testing.assert_allclose(seen["intensity"], 4.0)
    np.testing.assert_allclose(seen["relaxation_s"], TAU, rtol=0.02)

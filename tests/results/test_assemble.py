"""What is published is complete, searchable, and JSON all the way down."""

import json

import numpy as np
import pytest

from beamline_ml.results.assembly import assemble
from beamline_ml.results.headline import forecast_sentence
from beamline_ml.results.identity import file_digest, json_safe, result_id, result_key


def test_metadata_is_strict_json(make_analysis):
    content = assemble(make_analysis())
    json.dumps(content.metadata, allow_nan=False)
    assert content.metadata["headline"]["relaxation_time_max_s"] == pytest.approx(1 / (0.02 * 64))
    assert content.metadata["sample"]["name"] == "latex 5%"
    assert content.metadata["quality"] == {
        "missing_rows": 1,
        "zero_rows": 0,
        "saturated_rows": 0,
        "outlier_rows": 0,
        "masked_pixels": 2,
        "time_binning": 1,
        "q_bins_fitted": 2,
        "q_bins": 3,
    }


def test_every_array_names_its_axes_and_unit(make_analysis):
    content = assemble(make_analysis())
    names = {array.name for array in content.arrays}
    assert {"c2", "g2", "g2_err", "forecast_c2", "forecast_c2_band", "forecast_s_q", "roi_map"} <= names
    for array in content.arrays:
        assert len(array.dims) == array.data.ndim
        assert array.units
        assert array.description
    sizes = {}
    for array in content.arrays:
        for dim, size in zip(array.dims, array.data.shape, strict=True):
            assert sizes.setdefault(dim.replace("t2", "t1").replace("time_2", "time_1"), size) == size


def test_the_refused_ring_keeps_its_reason(make_analysis):
    tables = {table.name: table for table in assemble(make_analysis()).tables}
    assert tables["relaxation"].columns["refused"][0].startswith("g2 decays by 9 %")
    assert tables["contest"].columns["method"] == ["neural_ode", "ageing_kww", "persistence"]
    assert tables["contest"].columns["published"] == [True, False, False]


def test_without_dynamics_the_refusal_is_said(make_analysis):
    analysis = make_analysis(dynamics=None, forecast=None, kernel_r_um=None, refusal="The run is too short.")
    content = assemble(analysis)
    assert not any(array.name.startswith("forecast") for array in content.arrays)
    assert [table.name for table in content.tables] == ["relaxation"]
    assert content.metadata["summary"][-1] == "No forecast to rely on: the run is too short."


def test_the_headline_in_words(make_analysis):
    said = assemble(make_analysis()).metadata["summary"]
    assert said[1] == "Relaxation times fall as 1/qⁿ with n = 2.020 ± 0.050: diffusive, D = 0.0200 ± 0.0010 µm²/s."
    assert "by the neural ODE: RMSE 0.1 of the contrast in rolling-origin tests (persistence 0.2)" in said[-1]
    assert forecast_sentence({"forecast_method": None}) == ""


def test_the_identity_follows_the_numbers_and_nothing_else():
    one = result_id("uid", {"n_q": 8, "mask": None})
    assert one == result_id("uid", {"mask": None, "n_q": 8})
    assert one != result_id("uid", {"n_q": 9, "mask": None})
    assert one != result_id("other", {"n_q": 8, "mask": None})


def test_a_file_is_its_bytes(tmp_path):
    path = tmp_path / "map.h5"
    path.write_bytes(b"one")
    first = file_digest(path)
    path.write_bytes(b"two")
    assert first != file_digest(path)
    assert file_digest(None) is None


@pytest.mark.parametrize(
    ("sample", "key"),
    [
        ("latex 5%", "12_latex-5_0a1b2c3d"),
        ("../../x", "12_x_0a1b2c3d"),
        ("", "12_unnamed_0a1b2c3d"),
        ("µ/β", "12_unnamed_0a1b2c3d"),
    ],
)
def test_keys_are_readable_and_safe(sample, key):
    assert result_key(12, sample, "0a1b2c3d-1234") == key
    assert result_key(None, "a", "0a1b2c3d-1234") == "run_a_0a1b2c3d"


def test_json_safe():
    value = {"a": np.float32(1.5), 2: [np.nan, np.inf, np.int64(3)], "c": np.array([[1.0, np.nan]]), "d": (True, None)}
    assert json_safe(value) == {"a": 1.5, "2": [None, None, 3], "c": [[1.0, None]], "d": [True, None]}

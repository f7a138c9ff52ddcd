"""The exported file is what the application definition NXxpcs asks for, and holds the numbers of the result."""

from uuid import uuid4

import h5py
import numpy as np
import pytest

from beamline_ml.errors import ResultError
from beamline_ml.results.assembly import assemble
from beamline_ml.results.content import SPEC
from beamline_ml.results.nxxpcs import MIMETYPE, REQUIRED, nxxpcs_bytes, serve_nxxpcs
from beamline_ml.results.publish import publish_result
from tests.results.conftest import N_Q, N, make_g2

REQUIRED_FIELDS = (
    "entry/definition",
    "entry/entry_identifier",
    "entry/scan_number",
    "entry/start_time",
    "entry/instrument/incident_beam/incident_energy",
    "entry/instrument/detector/count_time",
    "entry/instrument/detector/frame_time",
    "entry/instrument/detector/beam_center_x",
    "entry/instrument/detector/beam_center_y",
    "entry/instrument/masks/dynamic_roi_map",
    "entry/data/g2",
    "entry/data/g2_derr",
    "entry/data/delay_difference",
    "entry/instrument/masks/static_roi_map",
    "entry/twotime/two_time_corr_func",
    "process/program",
    "process/version",
    "process/date",
)
CLASSES = {
    "entry": "NXentry",
    "entry/data": "NXdata",
    "entry/twotime": "NXdata",
    "entry/instrument": "NXinstrument",
    "entry/instrument/incident_beam": "NXbeam",
    "entry/instrument/detector": "NXdetector",
    "entry/instrument/masks": "NXnote",
    "entry/sample": "NXsample",
    "process": "NXprocess",
}
ALLOWED = {
    "storage_mode": {"one_array", "data_exchange_keys", "other", "one_array_q_first", "one_array_q_last"},
    "baseline_reference": {0, 1},
    "time_origin_location": {"upper_left", "lower_left"},
    "populated_elements": {"all", "upper_half", "lower_half"},
}


@pytest.fixture(scope="module")
def container(tiled_root):
    return tiled_root.create_container("exported")


@pytest.fixture(scope="module")
def result(container, make_analysis):
    return publish_result(container, assemble(make_analysis(str(uuid4()))))


@pytest.fixture(scope="module")
def file(result, tmp_path_factory):
    with h5py.File(result.export_nxxpcs(tmp_path_factory.mktemp("exported") / "result.h5")) as opened:
        yield opened


def test_everything_that_the_definition_requires_is_there(file):
    for name in REQUIRED_FIELDS:
        assert name in file, name
    assert file["entry/definition"].asstr()[()] == "NXxpcs"
    for name, nexus_class in CLASSES.items():
        assert file[name].attrs["NX_class"] == nexus_class


def test_attributes_are_those_of_the_definition(file):
    def check(name, node):
        for attribute, allowed in ALLOWED.items():
            if attribute in node.attrs:
                assert node.attrs[attribute] in allowed, name

    file.visititems(check)
    assert set(file["entry/twotime/two_time_corr_func"].attrs) == set(ALLOWED)
    for name in ("data/g2", "data/g2_derr", "data/delay_difference"):
        assert file[f"entry/{name}"].attrs["storage_mode"] == "one_array"
    averaged = file["entry/twotime/g2_from_two_time_corr_func"]
    assert averaged.attrs["storage_mode"] == "one_array_q_last"
    assert (averaged.attrs["baseline_reference"], averaged.attrs["first_point_for_fit"]) == (1, 1)


def test_the_default_plot_is_g2_against_the_delay(file):
    data = file[file.attrs["default"]][file["entry"].attrs["default"]]
    signal = data[data.attrs["signal"]]
    assert signal.shape == (len(data[data.attrs["axes"][0]]), N_Q)


def test_numbers_are_those_of_the_result(file, result):
    expected = make_g2()
    np.testing.assert_array_equal(file["entry/data/g2"][()], expected.g2.T)
    np.testing.assert_array_equal(file["entry/data/delay_difference"][()], expected.delay_frames)
    np.testing.assert_array_equal(file["entry/twotime/two_time_corr_func"][()], result.c2)
    assert file["entry/twotime/two_time_corr_func"].shape == (N_Q, N, N)
    energy = file["entry/instrument/incident_beam/incident_energy"]
    assert (energy[()], energy.attrs["units"]) == (8.0, "keV")
    assert file["entry/entry_identifier_uuid"].asstr()[()] == result.scan_uid
    assert file["entry/entry_identifier"].asstr()[()] == str(result.scan_id)


def test_what_is_not_complete_is_not_exported(result, tmp_path):
    arrays = {name: np.asarray(result[name].read()) for name in REQUIRED}
    with pytest.raises(ResultError, match="not complete"):
        nxxpcs_bytes({**result.metadata, "status": "writing"}, arrays)
    del arrays["g2"]
    with pytest.raises(ResultError, match="missing: g2"):
        nxxpcs_bytes(dict(result.metadata), arrays)


def test_the_tiled_server_exports_the_same_file(result, file, tmp_path):
    """Over HTTP, registered as the ``media_types`` of the server's configuration register it."""
    from tiled.media_type_registration import default_serialization_registry

    default_serialization_registry.register(SPEC, MIMETYPE, serve_nxxpcs)
    result.export(str(tmp_path / "served.h5"), format=MIMETYPE)
    with h5py.File(tmp_path / "served.h5") as served:
        np.testing.assert_array_equal(served["entry/data/g2"][()], file["entry/data/g2"][()])
        assert set(served["entry"]) == set(file["entry"])

"""What a run says is checked before any number of it is used."""

import numpy as np
import pytest

from beamline_ml.documents import beamline_places, describe_run
from beamline_ml.documents.fields import FIELDS
from beamline_ml.documents.gate import lookup_in, read_field
from beamline_ml.errors import MetadataMissing, RunAborted, SettingsError, StreamMissing
from beamline_ml.records import Geometry
from beamline_ml.settings import FieldPlace, MetadataSettings

COUNTS = np.ones((40, 32, 24), np.uint16)
GOOD = {
    "photon_energy_kev": 8.0,
    "detector_distance_m": 5.0,
    "pixel_size_m": 75e-6,
    "beam_center_row_px": 15.5,
    "beam_center_column_px": 11.5,
    "exposure_s": 0.009,
    "frame_period_s": 0.01,
}


@pytest.fixture
def path(write_frames):
    return write_frames(COUNTS)


def test_a_complete_run(record_run, path):
    run = record_run(path, scan_id=31, sample={"name": "latex", "number_density_per_um2": 0.4})
    description = describe_run(run)
    assert description.geometry == Geometry(8.0, 5.0, 75e-6, 15.5, 11.5)
    assert (description.n_frames, description.frame_shape) == (40, (32, 24))
    assert (description.frame_period_s, description.exposure_s) == (0.01, 0.009)
    assert description.sample_name == "latex"
    assert description.sample["number_density_per_um2"] == 0.4
    assert (description.stream, description.detector) == ("primary", "det")
    assert description.finished
    assert description.exit_status == "success"
    assert description.warnings == ()
    assert type(description.metadata) is dict


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_a_missing_field_is_named_with_the_remedy(field):
    look_up = lookup_in({"xpcs": {k: v for k, v in GOOD.items() if k != field.name}}, {}, "det")
    with pytest.raises(MetadataMissing, match=rf"does not say its {field.name}.*start\['xpcs'\]\['{field.name}'\]"):
        read_field(field, look_up, "Scan 1")


def test_a_run_without_beam_centre_is_refused(record_run, path):
    run = record_run(path, scan_id=8, xpcs={k: v for k, v in GOOD.items() if k != "beam_center_row_px"})
    with pytest.raises(MetadataMissing, match=r"Scan 8 .* does not say its beam_center_row_px"):
        describe_run(run)


def test_everything_that_is_missing_is_said_at_once(record_run, path):
    run = record_run(path, xpcs={"photon_energy_kev": 8.0})
    with pytest.raises(MetadataMissing) as refusal:
        describe_run(run)
    for field in set(GOOD) - {"photon_energy_kev"}:
        assert field in str(refusal.value)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -0.01, 0.0, "10 ms", [[0.01]], np.array([[0.01]]), True, None, {"value": 0.01}, 1e9],
)
def test_a_frame_period_that_is_no_plausible_number_is_refused(value):
    period = next(field for field in FIELDS if field.name == "frame_period_s")
    look_up = lookup_in({"xpcs": {**GOOD, "frame_period_s": value}}, {}, "det")
    with pytest.raises(MetadataMissing, match=r"frame_period_s at start\.xpcs\.frame_period_s"):
        read_field(period, look_up, "Scan 1")


@pytest.mark.parametrize("value", ["8.0", [[8.0]]])
def test_a_run_with_nonsense_in_tiled_is_refused(record_run, path, value):
    with pytest.raises(MetadataMissing, match="photon_energy_kev"):
        describe_run(record_run(path, xpcs={**GOOD, "photon_energy_kev": value}))


def test_an_exposure_longer_than_the_frame_period_is_refused(record_run, path):
    with pytest.raises(MetadataMissing, match="longer than its frame_period_s"):
        describe_run(record_run(path, xpcs={**GOOD, "exposure_s": 0.02}))


def test_the_names_of_aps_8id(record_run, path):
    names = {"X_energy": 10.0, "bcx": 11.0, "bcy": 16.0, "det_dist": 12.5, "pix_dim_x": 75e-6, "t0": 0.001, "t1": 0.002}
    description = describe_run(record_run(path, xpcs={}, **names))
    assert description.geometry == Geometry(10.0, 12.5, 75e-6, 16.0, 11.0)
    assert (description.exposure_s, description.frame_period_s) == (0.001, 0.002)


def test_the_names_of_nsls2_chx(record_run, path):
    readings = {
        "det_wavelength": 1.2846771,
        "det_det_distance": 10.0386,
        "det_x_pixel_size": 7.5e-5,
        "det_beam_center_x": 11.0,
        "det_beam_center_y": 12.0,
        "det_cam_acquire_period": 0.00134,
        "det_cam_acquire_time": 0.0013,
    }
    description = describe_run(record_run(path, xpcs={}, configuration=readings, sample="Litho 4"))
    assert description.geometry.photon_energy_kev == pytest.approx(9.651, rel=1e-4)
    assert description.geometry.beam_center_column_px == 11.0
    assert description.sample_name == "Litho 4"


def test_two_distances_that_disagree_are_said(record_run, path):
    description = describe_run(record_run(path, det_dist=5.2))
    assert description.geometry.detector_distance_m == 5.0
    (warning,) = description.warnings
    assert warning.startswith("detector_distance_m is 5 at start.xpcs.detector_distance_m, but 5.2 at start.det_dist")


def test_two_distances_that_agree_are_not(record_run, path):
    assert describe_run(record_run(path, det_dist=5.0004)).warnings == ()


def test_places_of_a_beamline_come_first(record_run, path):
    run = record_run(path, endstation={"energy_eV": 9000.0})
    place = FieldPlace(path="start.endstation.energy_eV", scale=1e-3)
    settings = MetadataSettings(places={"photon_energy_kev": (place,)})
    description = describe_run(run, beamline_places(settings))
    assert description.geometry.photon_energy_kev == pytest.approx(9.0)
    assert "photon_energy_kev is 9" in description.warnings[0]


@pytest.mark.parametrize(
    ("field", "path", "said"),
    [("energy", "start.energy", "names energy.*photon_energy_kev"), ("exposure_s", "exposure", "leads to exposure")],
)
def test_places_that_cannot_be_meant_are_refused(field, path, said):
    with pytest.raises(SettingsError, match=said):
        beamline_places(MetadataSettings(places={field: (FieldPlace(path=path),)}))


def test_a_run_without_detector_stream(record_run):
    from bluesky_tiled_plugins import TiledWriter
    from event_model import compose_run

    run = record_run(None)
    with pytest.raises(StreamMissing, match=r"no stream with area-detector frames.*xpcs_burst"):
        describe_run(run)
    composed = compose_run(metadata={"plan_name": "count", "scan_id": 5})
    writer = TiledWriter(run.parent, batch_size=1)
    writer("start", composed.start_doc)
    writer("stop", composed.compose_stop())
    with pytest.raises(StreamMissing, match=r"Scan 5 .*streams: none"):
        describe_run(run.parent[composed.start_doc["uid"]])


def test_an_aborted_run_says_so(record_run, write_frames):
    run = record_run(write_frames(COUNTS[:6]), shape=(6, 32, 24), exit_status="abort")
    with pytest.raises(RunAborted, match=r"'abort' after 6 frames: \^C"):
        describe_run(run)
    with pytest.raises(RunAborted, match="delivered no frame"):
        describe_run(record_run(None, exit_status="fail"))


def test_an_aborted_run_with_enough_frames_is_described_with_a_warning(record_run, path):
    description = describe_run(record_run(path, exit_status="abort"))
    assert description.exit_status == "abort"
    assert "40 frames taken until then" in description.warnings[0]


def test_a_run_that_is_still_going(record_run, path):
    description = describe_run(record_run(path, stop=False))
    assert not description.finished
    assert description.exit_status is None


def test_fewer_frames_than_the_plan_announced_is_said(record_run, path):
    description = describe_run(record_run(path, xpcs={**GOOD, "n_frames": 50}))
    assert description.warnings == ("The plan announced 50 frames; 40 are in the catalogue.",)

"""What the pictures themselves say against the metadata is told where the result is read."""

from __future__ import annotations

import re

import numpy as np
import pytest

from beamline_ml.correlation import QMap, UnusablePixels
from beamline_ml.records import Geometry
from beamline_ml.service.analysis import correlate, look_up, read_frames
from beamline_ml.settings import AnalysisSettings, load_settings

SHAPE = (128, 128)


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """(40, 128, 128) photons of a ring about row 60, column 66, behind a beam stop with its arm."""
    rows, columns = np.indices(SHAPE, dtype=float)
    radius = np.hypot(rows - 60, columns - 66)
    intensity = 4 * np.exp(-(((radius - 30) / 10) ** 2)) + 6 / (1 + (radius / 12) ** 2) + 0.3
    intensity[:60, 60:72] = 0
    return np.random.default_rng(2).poisson(intensity, (40, *SHAPE)).astype(np.uint16)


def test_a_beam_stop_is_left_out_and_a_wrong_beam_centre_is_told(counts, record_run, write_frames, raw, beamline):
    xpcs = {
        "photon_energy_kev": 8.0,
        "detector_distance_m": 5.0,
        "pixel_size_m": 75e-6,
        "beam_center_row_px": 63.5,
        "beam_center_column_px": 63.5,
        "exposure_s": 0.009,
        "frame_period_s": 0.01,
        "detector": "det",
    }
    run = record_run(write_frames(counts), shape=counts.shape, xpcs=xpcs, scan_id=701)
    settings = load_settings()
    subject = look_up(raw, run.metadata["start"]["uid"], settings.analysis)
    qmap = QMap.from_geometry(subject.description.geometry, SHAPE, n_q=4)
    with read_frames(subject, settings) as reader:
        found = correlate(subject, reader, qmap, AnalysisSettings().normalization)
    said = " ".join(found.warnings)
    assert "in a dark region of otherwise lit rings" in said
    told = re.search(r"centred at row ([\d.]+), column ([\d.]+) .*beam centre \(row 63.5, column 63.5\)", said)
    assert told is not None, said
    assert [float(place) for place in told.groups()] == pytest.approx([60.0, 66.0], abs=0.4)
    lit = counts.sum(axis=0) > 0
    assert (found.qmap.labels > 0)[~lit].sum() < 0.15 * (qmap.labels > 0)[~lit].sum()
    assert not ((qmap.labels > 0) & (found.qmap.labels == 0))[lit].any()
    assert found.two_time.quality.n_masked_pixels == int(((qmap.labels > 0) & (found.qmap.labels == 0)).sum())


def test_a_right_beam_centre_and_no_shadow_say_nothing(counts):
    from beamline_ml.service.analysis import _beam_center_warnings

    usable = counts.sum(axis=0) > 0
    there = Geometry(8.0, 5.0, 75e-6, 60.0, 66.0)
    assert _beam_center_warnings(counts.mean(axis=0), usable, there) == ()
    qmap = QMap.from_geometry(there, SHAPE, n_q=4, mask=usable)
    assert UnusablePixels.found_in(counts, qmap).warnings() == ()

"""q-maps: geometry, consistency, and every way in which a map can be wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.correlation import QMap
from beamline_ml.errors import GeometryError
from beamline_ml.records import Geometry

GEOMETRY = Geometry(
    photon_energy_kev=8.0,
    detector_distance_m=5.0,
    pixel_size_m=75e-6,
    beam_center_row_px=63.5,
    beam_center_column_px=63.5,
)
LABELS = np.array([[0, 1, 1, 2], [0, 1, 2, 2]])


def test_q_is_exact_at_large_angles() -> None:
    near = replace(GEOMETRY, detector_distance_m=0.005)
    qmap = QMap.from_geometry(near, (128, 128), n_q=1, q_min_inv_angstrom=1.0, q_max_inv_angstrom=3.2)
    rows, cols = np.nonzero(qmap.labels)
    radius_m = np.hypot(rows - 63.5, cols - 63.5) * 75e-6
    # q from the momentum vectors themselves: |k_out - k_in|
    k = 2 * np.pi / near.wavelength_angstrom
    length = np.hypot(radius_m, 0.005)
    q = k * np.hypot(radius_m / length, 0.005 / length - 1)
    np.testing.assert_allclose(qmap.q_inv_angstrom[0], q.mean(), rtol=1e-12)
    assert qmap.q_inv_angstrom[0] < 0.9 * (k * radius_m / 0.005).mean()  # the small-angle shortcut would be 10 % off


def test_rings_have_equal_width_in_q_and_lie_wholly_on_the_detector() -> None:
    qmap = QMap.from_geometry(GEOMETRY, (128, 160), n_q=8)
    assert qmap.n_q == 8
    assert qmap.labels[63, 63] == 0  # beam stop
    np.testing.assert_allclose(np.diff(qmap.q_inv_angstrom), np.diff(qmap.q_inv_angstrom).mean(), rtol=0.03)
    outer = np.hypot(*(np.argwhere(qmap.labels == 8) - 63.5).T)
    assert outer.max() <= 64
    assert qmap.labels[:, 128:].max() == 0  # a ring that the detector cuts is not used


def test_sectors_and_static_rings_refine_the_rings() -> None:
    qmap = QMap.from_geometry(GEOMETRY, (128, 128), n_q=4, n_phi=3, n_static=12)
    assert qmap.n_q == 12
    assert qmap.n_static == 36
    for static in range(1, 37):
        assert np.unique(qmap.labels[qmap.static_labels == static]).size == 1
    np.testing.assert_array_equal(np.bincount(qmap.dynamic_of_static), 3)
    assert qmap.n_static_pixels.sum() == qmap.n_pixels.sum()
    assert qmap.labels[64, 110] % 3 == 1  # just past the +column axis, first sector


def test_beam_beside_the_detector_uses_what_it_sees() -> None:
    aside = replace(GEOMETRY, beam_center_column_px=-200.0)
    qmap = QMap.from_geometry(aside, (128, 128), n_q=5)
    assert (qmap.labels > 0).all()


def test_a_masked_map_leaves_pixels_out_and_counts_bad_ones() -> None:
    mask = np.ones(LABELS.shape, bool)
    mask[0, 1] = False
    qmap = QMap(LABELS, mask=mask)
    assert qmap.n_pixels.tolist() == [2, 3]
    bad = np.zeros(LABELS.shape, bool)
    bad[0, 0] = bad[1, 3] = True
    cleaned = qmap.without(bad)
    assert cleaned.n_pixels.tolist() == [2, 2]
    assert cleaned.n_bad_pixels == 1  # the other bad pixel was not in use
    assert qmap.n_pixels.tolist() == [2, 3]


def test_arrays_of_a_map_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        QMap(LABELS).labels[0, 0] = 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.array([[0, 1, 3]])}, r"bin\(s\) 2 have no pixel"),
        ({"labels": np.zeros((2, 4), int)}, "use no pixel"),
        ({"labels": -LABELS}, "negative"),
        ({"labels": LABELS * 0.5}, "negative or broken"),
        ({"labels": np.where(LABELS == 1, np.nan, LABELS)}, "negative or broken"),
        ({"labels": np.arange(4)}, r"shape \(4,\)"),
        ({"mask": np.ones((4, 2), bool)}, r"mask is \(4, 2\).*\(2, 4\).*transposed"),
        ({"mask": np.zeros((2, 4), bool)}, r"leaves bin\(s\) 1, 2 of 2 without"),
        ({"mask": LABELS != 2}, r"leaves bin\(s\) 2 of 2.*True means 'use this pixel'"),
        ({"static_labels": np.array([[0, 1, 1, 1], [0, 1, 1, 1]])}, "more than one dynamic bin"),
        ({"static_labels": np.array([[0, 1, 0, 2], [0, 1, 2, 2]])}, "1 pixels have a dynamic bin but no static"),
        ({"static_labels": np.ones((3, 4), int)}, r"static label map is \(3, 4\)"),
        ({"flatfield": np.zeros((2, 4))}, "zero, negative or not finite in 6 used"),
        ({"flatfield": np.ones((3, 4))}, r"flat field is \(3, 4\)"),
        ({"q_inv_angstrom": [0.1]}, "2 q bins but 1 q values"),
    ],
)
def test_inconsistent_maps_are_refused_by_name(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        QMap(**({"labels": LABELS} | changes))


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        ({"photon_energy_kev": 0.0}, {}, "photon_energy_kev is 0.0"),
        ({"detector_distance_m": np.nan}, {}, "detector_distance_m is nan"),
        ({"pixel_size_m": -1.0}, {}, "pixel_size_m is -1.0"),
        ({"beam_center_row_px": np.inf}, {}, "beam centre"),
        ({}, {"n_q": 0}, "n_q = 0"),
        ({}, {"n_q": 4, "n_static": 6}, "no multiple"),
        ({}, {"n_q": 500}, "hold no pixel"),
        ({}, {"q_min_inv_angstrom": 2.0}, "q range .* is empty"),
        ({}, {"mask": np.ones((4, 4), bool)}, r"mask is \(4, 4\)"),
    ],
)
def test_unphysical_geometry_is_refused(changes: dict[str, float], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        QMap.from_geometry(replace(GEOMETRY, **changes), (128, 128), **arguments)

"""Energy windows and the published 51 points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import savgol_filter

from beamline_ml.phonons.windows import (
    EDGES_INV_CM,
    POINTS_INV_CM,
    WIDTHS_INV_CM,
    published_points_matrix,
    window_shares,
)


def test_windows_are_fine_below_100_and_reach_4500() -> None:
    assert EDGES_INV_CM[0] == 0.0
    assert EDGES_INV_CM[-1] == 4500.0
    assert (WIDTHS_INV_CM[EDGES_INV_CM[:-1] < 100.0] == 5.0).all()
    middle = (EDGES_INV_CM[:-1] >= 110.0) & (EDGES_INV_CM[1:] <= 1010.0)
    assert (WIDTHS_INV_CM[middle] == 20.0).all()


def test_shares_of_a_box_are_its_overlaps() -> None:
    frequency = np.arange(-20.0, 401.0)
    dos = ((frequency > 100.0) & (frequency < 151.0)).astype(float)
    shares = window_shares(-20.0, 1.0, dos)
    assert shares.sum() == pytest.approx(1.0, abs=1e-12)
    low, high = np.maximum(EDGES_INV_CM[:-1], 100.5), np.minimum(EDGES_INV_CM[1:], 150.5)
    np.testing.assert_allclose(shares, np.clip(high - low, 0.0, None) / 50.0, atol=1e-12)


def test_imaginary_modes_are_left_out_and_smearing_folded_back() -> None:
    frequency = np.arange(-60.0, 301.0)
    stable = np.exp(-((frequency - 200.0) ** 2) / 200.0)
    unstable = stable + 0.5 * np.exp(-((frequency + 40.0) ** 2) / 20.0)
    np.testing.assert_allclose(window_shares(-60.0, 1.0, unstable), window_shares(-60.0, 1.0, stable), atol=1e-6)
    smeared = np.where(frequency == -3.0, 1.0, 0.0)
    assert window_shares(-60.0, 1.0, smeared)[0] == pytest.approx(1.0)


def test_matrix_is_the_published_smoothing() -> None:
    """Against scipy's filter on the raw grid, for a density smooth on the scale of a window."""
    grid = np.arange(-100.0, 1400.0)
    density = sum(
        height * np.exp(-((grid - centre) ** 2) / (2.0 * width**2))
        for centre, width, height in [(60.0, 12.0, 0.4), (180.0, 25.0, 1.0), (420.0, 40.0, 0.7), (800.0, 25.0, 0.5)]
    )
    smooth = np.interp(POINTS_INV_CM, grid, savgol_filter(density, 101, 3))
    predicted = published_points_matrix() @ window_shares(-100.0, 1.0, density)
    np.testing.assert_allclose(predicted / predicted.max(), smooth / smooth.max(), atol=0.05)


def test_matrix_against_the_published_targets(test_data: Path) -> None:
    from beamline_ml.service.phonon_data import load_materials

    materials = load_materials(test_data / "phonon")[::25]
    matrix = published_points_matrix()
    errors = []
    for material in materials:
        points = np.clip(matrix @ material.shares, 0.0, None)
        errors.append(np.mean((points / points.max() - material.points) ** 2))
    assert np.mean(errors) < 1e-3

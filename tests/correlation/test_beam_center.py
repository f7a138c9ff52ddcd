"""The centre of the scattering is found where it is, and nothing is said where it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.correlation import register_beam_center
from beamline_ml.simulation import MovieRecipe, simulate_movie

SHAPE = (200, 240)


def scattering(row: float, column: float, counts: float, seed: int = 0, anisotropy: float = 0.0) -> np.ndarray:
    """Average of a hundred frames of a structure-factor ring on a falling background."""
    rows, columns = np.indices(SHAPE, dtype=float)
    x, y = columns - column, rows - row
    radius = np.hypot(x, y * (1 + anisotropy))
    intensity = np.exp(-(((radius - 40) / 12) ** 2)) + 3 / (1 + (radius / 15) ** 2) + 0.05
    return np.random.default_rng(seed).poisson(100 * counts * intensity) / 100


@pytest.mark.parametrize("anisotropy", [0.0, 0.4])
@pytest.mark.parametrize("counts", [0.05, 5.0])
@pytest.mark.parametrize("centre", [(101.3, 118.2), (92.7, 125.9), (75.0, 90.0)])
def test_the_centre_is_found_from_a_wrong_guess(centre: tuple[float, float], counts: float, anisotropy: float) -> None:
    frame = scattering(*centre, counts, anisotropy=anisotropy)
    usable = np.ones(SHAPE, bool)
    guess = (centre[0] + 3.4, centre[1] - 4.1)
    found = register_beam_center(frame, usable, *guess)
    assert found is not None
    assert found.distance_px(*centre) < max(0.3, 3 * found.err_px)
    assert found.err_px < 0.6


def test_a_beam_stop_with_its_arm_does_not_pull() -> None:
    centre = (98.4, 121.7)
    frame, usable = scattering(*centre, 2.0), np.ones(SHAPE, bool)
    rows, columns = np.indices(SHAPE)
    usable[np.hypot(rows - 100, columns - 120) < 9] = False
    usable[:100, 117:124] = False
    frame[~usable] = 0
    found = register_beam_center(frame, usable, 100, 120)
    assert found is not None
    assert found.distance_px(*centre) < max(0.4, 3 * found.err_px)


def test_a_right_guess_is_confirmed() -> None:
    for seed in range(10):
        found = register_beam_center(scattering(99.5, 119.5, 0.5, seed), np.ones(SHAPE, bool), 99.5, 119.5)
        assert found is not None
        assert found.distance_px(99.5, 119.5) < max(0.3, 3 * found.err_px)


def test_the_centre_of_simulated_speckle_is_found() -> None:
    movie = simulate_movie(MovieRecipe(n_observed=60, n_future=1), seed=1)
    mean = movie.counts[:60].mean(axis=0)
    row, column = movie.geometry.beam_center_row_px, movie.geometry.beam_center_column_px
    found = register_beam_center(mean, np.ones(mean.shape, bool), row + 2, column - 2)
    assert found is not None
    assert found.distance_px(row, column) < 0.1


def test_nothing_is_said_where_the_centre_cannot_be_told() -> None:
    usable = np.ones(SHAPE, bool)
    flat = np.random.default_rng(0).poisson(3.0, SHAPE).astype(float)
    assert register_beam_center(flat, usable, 100, 120) is None, "no structure"
    assert register_beam_center(scattering(100, 120, 1.0), usable, -40, 120) is None, "beam beside the detector"
    assert register_beam_center(scattering(100, 120, 1.0), usable, 10, 120) is None, "too near the edge"
    assert register_beam_center(scattering(100, 120, 1.0), np.zeros(SHAPE, bool), 100, 120) is None, "all masked"
    assert register_beam_center(np.zeros(SHAPE), usable, 100, 120) is None, "dark"


def test_nan_pixels_are_left_out() -> None:
    frame = scattering(99.0, 120.4, 2.0)
    frame[20:60, 30:60] = np.nan
    found = register_beam_center(frame, np.ones(SHAPE, bool), 100, 120)
    assert found is not None
    assert found.distance_px(99.0, 120.4) < max(0.4, 3 * found.err_px)

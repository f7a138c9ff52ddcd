"""The simulated movie is what it says: physics, photon statistics and reproducibility."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics.gridding import GriddedScattering
from beamline_ml.dynamics.systems.self_organising import SelfOrganising
from beamline_ml.simulation import Movie, MovieRecipe, simulate_movie
from beamline_ml.simulation.speckle import pixel_dq_inv_um

SMALL = MovieRecipe(n_observed=60, n_future=60, detector_size=64, pixel_size_m=150e-6)


@pytest.fixture(scope="module")
def movie() -> Movie:
    return simulate_movie(SMALL, seed=3)


def ring(movie: Movie, low: float, high: float) -> np.ndarray:
    size = movie.counts.shape[1]
    offset = np.arange(size) - size // 2
    q = np.hypot(offset[:, None], offset[None, :]) * pixel_dq_inv_um(movie.geometry)
    return (q >= low) & (q < high)


def test_amplitudes_equal_the_direct_sum() -> None:
    rng = np.random.default_rng(0)
    grid = GriddedScattering(48, 0.3)
    x = rng.uniform(-40, 40, (500, 2))
    weight = rng.uniform(0, 1, 500)
    amplitude = grid.amplitude(x, weight)
    q = (np.arange(48) - 24) * 0.3
    exact = np.exp(-1j * np.outer(q, x[:, 0])) @ (weight[:, None] * np.exp(-1j * np.outer(x[:, 1], q)))
    assert np.abs(amplitude - exact).max() < 3e-5 * np.abs(exact).max()


def test_counts_are_poisson_around_the_intensity(movie: Movie) -> None:
    assert movie.intensity is not None
    lit = movie.intensity[0] > 0
    expected = movie.intensity[:, lit].astype(float)
    observed = movie.counts[:, lit].astype(float)
    assert movie.counts.dtype == np.uint16
    assert observed[: SMALL.n_observed].mean() == pytest.approx(SMALL.photons_per_pixel, rel=0.01)
    chi2 = ((observed - expected) ** 2).mean() / expected.mean()
    assert chi2 == pytest.approx(1.0, abs=0.02)


def test_no_photon_under_the_beam_stop(movie: Movie) -> None:
    center = movie.counts.shape[1] // 2
    assert movie.counts[:, center - 2 : center + 3, center - 2 : center + 3].sum() == 0


def test_speckle_contrast_is_that_of_full_coherence(movie: Movie) -> None:
    assert movie.intensity is not None
    contrast = [
        frame[ring(movie, q, q + 1.0)].var() / frame[ring(movie, q, q + 1.0)].mean() ** 2
        for q in range(8, 17)
        for frame in movie.intensity[::20]
    ]
    assert np.mean(contrast) == pytest.approx(1.0, abs=0.15)


def test_free_particles_decay_with_the_diffusion_coefficient() -> None:
    system = SelfOrganising(0.56, 1e9, diffusion_um2_per_s=0.05, relative_density=0.1)
    movie = simulate_movie(replace(SMALL, system=system, beam_speckle_px=2.0), seed=1)
    assert movie.intensity is not None
    size = movie.counts.shape[1]
    offset = np.arange(size) - size // 2
    q = np.hypot(offset[:, None], offset[None, :]) * pixel_dq_inv_um(movie.geometry)
    for low, high, lag in ((8.0, 11.0, 8), (12.0, 16.0, 4)):
        pixels = movie.intensity[:, (q >= low) & (q < high)].astype(float)
        g2 = (pixels[lag:] * pixels[:-lag]).mean() / pixels.mean() ** 2 - 1.0
        zero = (pixels**2).mean() / pixels.mean() ** 2 - 1.0
        rate = -np.log(g2 / zero) / (2.0 * lag * movie.frame_period_s)
        assert rate == pytest.approx(0.05 * np.mean(q[(q >= low) & (q < high)] ** 2), rel=0.2)


def test_clusters_form() -> None:
    movie = simulate_movie(replace(SMALL, n_observed=240, n_future=1), seed=0)
    assert movie.intensity is not None
    peak = movie.intensity[:, ring(movie, 8.0, 13.0)].mean(axis=1)
    assert peak[-20:].mean() > 1.5 * peak[:20].mean()


def test_same_seed_same_movie() -> None:
    short = replace(SMALL, n_observed=4, n_future=2)
    first = simulate_movie(short, seed=3)
    assert np.array_equal(simulate_movie(short, seed=3).counts, first.counts)
    assert not np.array_equal(simulate_movie(short, seed=4).counts, first.counts)


def test_truth_names_the_force(movie: Movie) -> None:
    system = SMALL.system
    assert movie.truth["diffusion_um2_per_s"] == system.diffusion_um2_per_s
    np.testing.assert_allclose(movie.truth["kernel_um_per_s"], system.radial_force(movie.truth["kernel_r_um"]))
    assert movie.truth["kernel_um_per_s"].min() < 0 < movie.truth["kernel_um_per_s"].max()

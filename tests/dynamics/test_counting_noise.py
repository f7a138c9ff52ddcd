"""Counting noise that entries of C2 share, against counted photons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics.counting_noise import counting_covariance, relative_counting_variance
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.speckle_noise import positive_part

N_TIMES, N_PIXELS, N_DRAWS = 5, 2000, 4000
F = np.exp(-0.15 * np.abs(np.subtract.outer(np.arange(N_TIMES), np.arange(N_TIMES))))
UPPER = np.triu_indices(N_TIMES, 1)


def counted_c2(contrast: float, per_pixel: float, rng: np.random.Generator) -> np.ndarray:
    """(N_DRAWS, n_entries) C2 of one ring's speckles, counted again and again."""
    n_modes = round(1.0 / contrast)
    fields = positive_part(F) @ rng.standard_normal((2 * n_modes, N_TIMES, N_PIXELS))
    light = (fields**2).mean(axis=0)
    draws = []
    for _ in range(N_DRAWS):
        k = rng.poisson(per_pixel * light)
        mean = k.mean(axis=1)
        draws.append((k @ k.T / N_PIXELS / np.outer(mean, mean))[UPPER])
    return np.array(draws)


def ring(c2_err: np.ndarray, photons: float) -> CorrelationObservations:
    """One ring with this error of C2 and so many photons in each frame."""
    s = np.ones((1, N_TIMES))
    c2 = np.where(np.isfinite(c2_err), 1.5, np.nan)[None]
    return CorrelationObservations(
        c2=c2,
        c2_err=c2_err[None],
        structure_factor=s,
        structure_factor_err=s / np.sqrt(photons),
        q_inv_um=np.array([2.0]),
        times_s=np.arange(1.0, N_TIMES + 1),
        number_density_per_um2=25.0,
    )


@pytest.mark.parametrize(("contrast", "per_pixel"), [(1.0, 0.2), (1.0, 3.0), (0.25, 0.5)])
def test_the_covariance_is_that_of_counted_photons(contrast: float, per_pixel: float) -> None:
    drawn = counted_c2(contrast, per_pixel, np.random.default_rng(1))
    seen = np.cov(drawn, rowvar=False)
    err = np.full((N_TIMES, N_TIMES), np.nan)
    err[UPPER] = np.sqrt(np.diagonal(seen))
    found = counting_covariance(ring(err, per_pixel * N_PIXELS), 0, F, contrast)
    np.testing.assert_allclose(np.diagonal(found), np.diagonal(seen))
    beside = ~np.eye(len(seen), dtype=bool)
    # The sum over all entries is what smooth functions of lag and age are most sensitive to.
    assert found.sum() == pytest.approx(seen.sum(), rel=0.15)
    np.testing.assert_allclose(found[beside], seen[beside], atol=0.12 * np.diagonal(seen).mean())
    assert seen.sum() > 1.2 * np.trace(seen), "entries taken for independent would be too sure"


def test_it_is_a_covariance_whatever_is_said() -> None:
    """Errors that hold less than what frames share, and entries that nobody measured."""
    err = np.full((N_TIMES, N_TIMES), np.nan)
    err[UPPER] = 1e-3
    err[0, 3] = np.nan
    few = ring(err, 2.0)
    found = counting_covariance(few, 0, F, 1.0)
    assert found.shape == (9, 9)
    assert np.linalg.eigvalsh(found).min() > 0.1 * 1e-6
    np.testing.assert_allclose(np.diagonal(found), 1e-6)
    assert found.sum() > 2.0 * np.trace(found)
    for alone in (replace(few, structure_factor_err=None), replace(few, stationary=True)):
        np.testing.assert_allclose(counting_covariance(alone, 0, F, 1.0), 1e-6 * np.eye(9), atol=1e-20)


@pytest.fixture
def dim() -> CorrelationObservations:
    """Twenty blocks of two rings whose S grows from 1 to 4, some 20 photons in the first block."""
    rng = np.random.default_rng(3)
    times = 0.5 * np.arange(1, 21)
    expected = 20.0 * np.exp(np.log(4.0) * times / times[-1]) * np.ones((2, 1))
    counts = rng.poisson(expected)
    c2 = np.full((2, 20, 20), 1.5)
    return CorrelationObservations(
        c2=c2,
        c2_err=np.full_like(c2, 0.1),
        structure_factor=counts / 20.0,
        structure_factor_err=np.sqrt(counts) / 20.0,
        q_inv_um=np.array([2.0, 4.0]),
        times_s=times,
        number_density_per_um2=25.0,
        n_speckles=np.full(2, 200.0),
        absolute=True,
    )


def test_blocks_that_happen_to_be_dark_are_known_as_well_as_others(dim: CorrelationObservations) -> None:
    found = relative_counting_variance(dim)
    expected = 1.0 / (20.0 * np.exp(np.log(4.0) * dim.times_s / dim.times_s[-1]))
    as_counted = (dim.structure_factor_err / dim.structure_factor) ** 2
    off, off_as_counted = (np.sqrt(((each / expected - 1.0) ** 2).mean()) for each in (found, as_counted))
    assert off < 0.6 * off_as_counted
    assert not relative_counting_variance(replace(dim, structure_factor_err=None)).any()

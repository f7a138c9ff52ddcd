"""Observations with what must be given and nothing else: their scatter says how many speckles and photons they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations, DynamicsModel, fit
from beamline_ml.dynamics.shown_noise import speckle_counts, with_shown_noise
from beamline_ml.dynamics.speckle_noise import positive_part
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

TIMES = 0.25 * np.arange(1, 21)
Q = np.linspace(1.5, 8.0, 8)
DIFFUSION = 0.004
BRIGHT = 1e6


def fields(q: float, n: int, rng: np.random.Generator) -> Float64Array:
    """|a|^2 of n modes of free Brownian motion: (n_times, n)."""
    factor = positive_part(np.exp(-DIFFUSION * q**2 * np.abs(TIMES[:, None] - TIMES)))
    parts = [factor @ rng.standard_normal((len(TIMES), n)) for _ in range(2)]
    return np.asarray(0.5 * (parts[0] ** 2 + parts[1] ** 2), np.float64)


def counted(n_speckles: int, photons: float, rng: np.random.Generator) -> CorrelationObservations:
    """C2 and S of rings of so many speckles, each with so many photons a frame, and nothing more."""
    counts = rng.poisson(photons * np.stack([fields(q, n_speckles, rng) for q in Q])).astype(float)
    mean = counts.mean(axis=2)
    norm = mean[:, :, None] * mean[:, None, :]
    c2 = counts @ counts.transpose(0, 2, 1) / n_speckles / norm
    err = np.sqrt((4.0 / photons + 2.0 / photons**2) / n_speckles)
    return CorrelationObservations(c2, np.full_like(c2, err), mean / photons, Q, TIMES, 12.0)


@pytest.mark.parametrize("n_speckles", [100, 400, 3000])
def test_bright_rings_show_their_speckles(n_speckles: int) -> None:
    rng = np.random.default_rng(n_speckles)
    found = [np.log(speckle_counts(counted(n_speckles, BRIGHT, rng)) / n_speckles) for _ in range(4)]
    assert abs(np.mean(found)) < np.log(1.6)
    assert np.std(found) < np.log(2.5)


def test_dim_rings_are_taken_for_ordinary_ones() -> None:
    found = speckle_counts(counted(400, 0.1, np.random.default_rng(0)))
    assert ((found > 100) & (found < 1600)).all()


def test_an_error_that_holds_the_speckles_too() -> None:
    """Some give the whole error of C2: less scatter than that is no sign of many speckles, its size is one of few."""
    seen = counted(400, BRIGHT, np.random.default_rng(1))
    whole = replace(seen, c2_err=np.full_like(seen.c2_err, 2.0 / np.sqrt(400)))
    found = speckle_counts(whole)
    assert ((found > 100) & (found < 1000)).all()


@pytest.mark.parametrize("photons", [0.1, 1.0])
def test_s_shows_how_well_it_was_counted(photons: float) -> None:
    found = with_shown_noise(counted(400, photons, np.random.default_rng(2))).structure_factor_err
    assert found is not None
    true = np.sqrt(1.0 / (photons * 400))
    assert np.sqrt(np.mean(found**2)) == pytest.approx(true, rel=0.35)


def test_bright_s_was_counted_well() -> None:
    found = with_shown_noise(counted(400, BRIGHT, np.random.default_rng(3))).structure_factor_err
    assert found is not None
    assert np.median(found) < 0.01


def test_what_is_said_is_believed() -> None:
    seen = counted(400, BRIGHT, np.random.default_rng(4))
    said = replace(seen, n_speckles=np.full(8, 77.0), structure_factor_err=np.full((8, 20), 0.5))
    assert with_shown_noise(said) is said
    assert (speckle_counts(said) == 77.0).all()


@pytest.mark.parametrize("n_times", [6, 7, 9])
def test_short_runs_show_little(n_times: int) -> None:
    seen = counted(400, BRIGHT, np.random.default_rng(5))
    short = replace(
        seen,
        c2=seen.c2[:, :n_times, :n_times],
        c2_err=seen.c2_err[:, :n_times, :n_times],
        structure_factor=seen.structure_factor[:, :n_times],
        times_s=TIMES[:n_times],
    )
    found = with_shown_noise(short)
    assert found.n_speckles is not None
    assert found.structure_factor_err is not None
    assert ((found.n_speckles > 50) & (found.n_speckles < 3000)).all()
    assert np.isfinite(found.structure_factor_err).all()


def test_no_noise_at_all() -> None:
    lag = np.abs(TIMES[:, None] - TIMES)
    c2 = 1.0 + 0.3 * np.exp(-2.0 * DIFFUSION * Q[:, None, None] ** 2 * lag)
    ideal = CorrelationObservations(c2, np.zeros_like(c2), np.ones((8, 20)), Q, TIMES, 12.0)
    found = with_shown_noise(ideal)
    assert found.n_speckles is not None
    assert np.isfinite(found.n_speckles).all()
    assert (found.n_speckles > 1000).all()


def test_a_ring_without_any_pair_is_named() -> None:
    seen = counted(100, BRIGHT, np.random.default_rng(6))
    c2 = seen.c2.copy()
    c2[2] = np.nan
    with pytest.raises(FitRefused, match="ring 3"):
        replace(seen, c2=c2)


def test_an_entry_of_infinite_error_is_left_out() -> None:
    seen = counted(100, BRIGHT, np.random.default_rng(7))
    err = seen.c2_err.copy()
    err[0, 2, 5] = np.inf
    unknown = replace(seen, c2_err=err)
    assert not unknown.measured[0, 2, 5]
    assert unknown.measured.sum() == seen.measured.sum() - 1
    assert np.isfinite(speckle_counts(unknown)).all()


def test_dim_light_and_nothing_said() -> None:
    """A tenth of a photon: C2 scatters by as much as it is worth, and S(q, t), of whose noise nothing is said, too."""
    model = DynamicsModel(n_coefficients=8, cutoff_um=0.8, n_boxes=6, n_per_box=200, n_members=32, steps_per_time=3)
    found = fit(counted(600, 0.1, np.random.default_rng(0)), model, time_budget_s=600.0)
    assert found.diffusion_um2_per_s == pytest.approx(DIFFUSION, rel=0.3)
    assert found.chi2 < 2.0
    assert np.abs(found.contrast - 1.0).max() < 0.15


def test_a_ring_without_its_shortest_lags() -> None:
    """Neighbouring blocks may be missing, as where an after-glow was masked; the other lags stay."""
    seen = counted(400, BRIGHT, np.random.default_rng(8))
    c2 = seen.c2.copy()
    c2[0][np.abs(TIMES[:, None] - TIMES) < 0.6] = np.nan
    holed = replace(seen, c2=c2)
    assert ((speckle_counts(holed) > 100) & (speckle_counts(holed) < 1600)).all()
    model = DynamicsModel(n_coefficients=6, cutoff_um=0.8, n_boxes=2, n_per_box=200, n_members=24, steps_per_time=3)
    assert np.isfinite(fit(holed, model, time_budget_s=600.0).coefficients).all()

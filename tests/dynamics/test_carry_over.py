"""What speckles add to C2 is carried on as far as it can be told from counting noise."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics import CorrelationObservations
from beamline_ml.dynamics.carry_over import carried_on
from beamline_ml.dynamics.speckle_noise import unit_deviations

Q = np.linspace(2.0, 5.0, 30)
N, N_SEEN, N_SPECKLES, CONTRAST = 16, 10, 300.0, 0.3
TIMES = np.arange(1.0, N + 1)
LAG = np.abs(TIMES[:, None] - TIMES)


def f2_of(rate: float) -> np.ndarray:
    return np.exp(-rate * LAG) * np.ones((len(Q), 1, 1))


def seen_by(f2: np.ndarray, counting: float, seed: int) -> tuple[CorrelationObservations, np.ndarray]:
    """Rings of few speckles with counting noise, and what their speckles really add."""
    rng = np.random.default_rng(seed)
    added = np.stack([unit_deviations(np.sqrt(ring), CONTRAST, rng)[0][0] for ring in f2]) / np.sqrt(N_SPECKLES)
    noise = counting * rng.normal(size=added.shape)
    one = np.ones(len(Q))
    observed = CorrelationObservations(
        c2=(1.0 + CONTRAST * f2 + added + noise)[:, :N_SEEN, :N_SEEN],
        c2_err=np.full((len(Q), N_SEEN, N_SEEN), counting),
        structure_factor=np.ones((len(Q), N_SEEN)),
        q_inv_um=Q,
        times_s=TIMES[:N_SEEN],
        number_density_per_um2=1.0,
        n_speckles=N_SPECKLES * one,
        contrast=CONTRAST * one,
        contrast_err=1e-4 * one,
    )
    return observed, added


def future_error(counting: float, seed: int, offset: float = 0.0) -> tuple[float, float]:
    """RMS of what speckles add to later entries, and what is left of it."""
    f2 = f2_of(0.05)
    observed, added = seen_by(f2, counting, seed)
    carried = carried_on(observed, N_SEEN, f2 - offset, seed + 1).c2
    first, second = np.triu_indices(N, k=1)
    later = first[second >= N_SEEN], second[second >= N_SEEN]
    missed = (added + CONTRAST * offset)[:, *later]
    return float(np.sqrt((missed**2).mean())), float(np.sqrt(((carried[:, *later] - missed) ** 2).mean()))


def test_speckles_are_carried_on() -> None:
    without, left = np.mean([future_error(0.001, seed) for seed in range(3)], axis=0)
    assert left < 0.7 * without


@pytest.mark.parametrize("counting", [0.1, 1.0])
def test_counting_noise_is_not(counting: float) -> None:
    """However dim the run: what is carried on is never worse than nothing."""
    without, left = np.mean([future_error(counting, seed) for seed in range(3)], axis=0)
    assert left < 1.02 * without


def test_a_forecast_that_is_off_is_carried_on_in_noise() -> None:
    """An error of the law, in all rings alike and many times what speckles explain, is found in spite of counting."""
    without, left = np.mean([future_error(0.05, seed, offset=0.3) for seed in range(3)], axis=0)
    assert left < 0.5 * without

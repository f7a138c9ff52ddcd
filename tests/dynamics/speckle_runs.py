"""Runs of few speckles with a given field correlation, as a fit is handed them."""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics import CorrelationObservations
from beamline_ml.dynamics.speckle_noise import unit_deviations

CONTRAST = 0.3


def speckle_run(
    f2: np.ndarray, times_s: np.ndarray, n_seen: int, n_speckles: float, counting: float, seed: int
) -> tuple[CorrelationObservations, np.ndarray]:
    """The first blocks with counting noise in every entry, and what the speckles add to C2 at all times (n_q, n, n)."""
    rng = np.random.default_rng(seed)
    added = np.stack([unit_deviations(np.sqrt(ring), CONTRAST, rng)[0][0] for ring in f2]) / np.sqrt(n_speckles)
    noise = counting * rng.normal(size=added.shape)
    one = np.ones(len(f2))
    observed = CorrelationObservations(
        c2=(1.0 + CONTRAST * f2 + added + noise)[:, :n_seen, :n_seen],
        c2_err=np.full((len(f2), n_seen, n_seen), counting),
        structure_factor=np.ones((len(f2), n_seen)),
        q_inv_um=np.linspace(2.0, 5.0, len(f2)),
        times_s=times_s[:n_seen],
        number_density_per_um2=1.0,
        n_speckles=n_speckles * one,
        contrast=CONTRAST * one,
        contrast_err=1e-4 * one,
    )
    return observed, added

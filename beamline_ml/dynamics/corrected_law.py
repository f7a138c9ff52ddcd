"""A law that does not describe a run, corrected by what it missed: its decays, faster or slower, ring by ring.

What a wrong law lacks is not known, but it shows in the blocks that were seen, and most of it will be there in later
ones. The discrepancy of a model from data is a quantity of its own, to be found beside the model's parameters (Kennedy
and O'Hagan, J. R. Stat. Soc. B 63, 425 (2001)). Here it has the form in which the decays of ageing samples are
reported, a stretched exponential whose rate is a power of age, applied to the law's own decays instead of to time:

    -log F = exp(rate) (age / duration)^ageing (-log F_law)^(1 + bend).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import least_squares

from beamline_ml.dynamics.compression import RingRows, compress
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.records import Float64Array

SPREAD = np.array([0.7, 0.7, 0.3])
"""Standard deviations of (rate, ageing, bend) before anything is seen; of a law that describes the run all are 0."""
LEAST, MOST = 1e-6, 1.0 - 1e-6
"""Of F, whose logarithm's logarithm is taken."""


def corrected_law(
    observations: CorrelationObservations, n_seen: int, f2: Float64Array, times_s: Float64Array
) -> Float64Array:
    """|f|^2 of a law (n_q, n, n), corrected by the first ``n_seen`` blocks of a run.

    Each ring's three numbers are found by least squares on what is left of its C2 after ``compress``, whose rows have
    independent noise of variance one, and a normal prior about no correction.

    Parameters
    ----------
    f2
        (n_q, n, n) of the law, at ``times_s``.
    times_s
        (n,) ages in s, increasing from 0 or later; the first ``n_seen`` are those of the run's blocks.

    Returns
    -------
    numpy.ndarray
        (n_q, n, n) float64 in 0..1, one on the diagonal.
    """
    target = compress(observations, n_seen, np.random.default_rng(0), use_s=False, expected_f2=f2)
    age = 0.5 * (times_s[:, None] + times_s) / times_s[n_seen - 1]
    np.fill_diagonal(age, 1.0)  # where nothing decays; the first may be 0
    log_age = np.log(age)
    rings = [
        _ring(rows, float(contrast), of_law, log_age)
        for rows, contrast, of_law in zip(target.rings, target.contrast, f2, strict=True)
    ]
    return np.stack(rings)


def _ring(rows: RingRows, contrast: float, f2: Float64Array, log_age: Float64Array) -> Float64Array:
    """(n, n) of one ring."""
    log_decay = np.log(-np.log(np.clip(f2, LEAST, MOST)))
    seen = slice(len(rows.entries)), slice(len(rows.entries))
    of_entries = log_decay[seen][rows.entries], log_age[seen][rows.entries]

    def misses(p: Float64Array) -> Float64Array:
        return np.append(rows.weights @ (1.0 + contrast * _decayed(p, *of_entries)) - rows.measured, p / SPREAD)

    found = _decayed(least_squares(misses, np.zeros(3)).x, log_decay, log_age)
    np.fill_diagonal(found, 1.0)
    return found


def _decayed(p: Float64Array, log_decay: Float64Array, log_age: Float64Array) -> Float64Array:
    """F with (rate, ageing, bend)."""
    rate, ageing, bend = p
    return np.asarray(np.exp(-np.exp(rate + ageing * log_age + (1.0 + bend) * log_decay)), np.float64)

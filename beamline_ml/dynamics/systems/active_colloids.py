"""Active colloids (Janus particles that swim): simulation, exact field correlation, and the fit of the latter.

dx = v (cos phi, sin phi) dt + sqrt(2 D) dW, d phi = sqrt(2 D_r) dW' (active Brownian particles in two dimensions).
Their field correlation <exp(-i q.dx)> is known: the Fourier modes m of the orientation obey
dp_m/dt = -(q^2 D + m^2 D_r) p_m - (i q v / 2) (p_(m-1) + p_(m+1)), a tridiagonal system
(Kurzthaler, Leitmann and Franosch, Sci. Rep. 6, 36702 (2016), there solved by Mathieu functions). Swimming turns the
exponential of q^2 into a faster decay that depends on q through v: D, v and D_r separate by rings and lags.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.optimize

from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.errors import FitRefused
from beamline_ml.records import Float64Array

N_HARMONICS = 16
"""Enough to five digits for q v t up to 20, also without turning."""
CONTRAST_LEVER = 0.02
"""Typical deviation of a ring's C2 from its law by the few speckles that it holds."""


@dataclass(frozen=True, slots=True)
class ActiveColloids:
    """How the particles move."""

    diffusion_um2_per_s: float = 0.2
    speed_um_per_s: float = 3.0
    rotational_diffusion_per_s: float = 1.0

    def motion(self, start_um: Float64Array, step_s: float, n_steps: int, rng: np.random.Generator) -> Iterator:
        """Positions after 0, 1, ..., n_steps - 1 steps, (n, 2) um; headings start at random. Particles do not meet."""
        x = np.array(start_um, dtype=np.float64)
        heading = rng.uniform(0.0, 2.0 * np.pi, len(x))
        jump = np.sqrt(2.0 * self.diffusion_um2_per_s * step_s)
        turn = np.sqrt(2.0 * self.rotational_diffusion_per_s * step_s)
        for _ in range(n_steps):
            yield x
            # The heading at the middle of the step makes the scheme of second order in the step for <dx>.
            half = heading + np.sqrt(0.5) * turn * rng.standard_normal(len(x))
            x = x + step_s * self.speed_um_per_s * np.column_stack([np.cos(half), np.sin(half)])
            x += jump * rng.standard_normal(x.shape)
            heading = half + np.sqrt(0.5) * turn * rng.standard_normal(len(x))

    def field_correlation(self, q_inv_um: float, lags_s: Float64Array) -> Float64Array:
        """<exp(-i q.dx)> at each lag, (n_lags,), real; 1 at lag 0."""
        m = np.arange(-N_HARMONICS, N_HARMONICS + 1)
        decay = q_inv_um**2 * self.diffusion_um2_per_s + m**2 * self.rotational_diffusion_per_s
        hop = np.full(2 * N_HARMONICS, 0.5j * q_inv_um * self.speed_um_per_s)
        rates, vectors = np.linalg.eig(-np.diag(decay) - np.diag(hop, 1) - np.diag(hop, -1))
        start = np.linalg.solve(vectors, (m == 0).astype(np.complex128))
        modes = vectors[N_HARMONICS] * start
        return np.asarray((np.exp(np.multiply.outer(lags_s, rates)) @ modes).real, np.float64)


@dataclass(frozen=True)
class ActiveFit:
    """Diffusion, speed and turning as the decay of C2 tells them."""

    colloids: ActiveColloids
    diffusion_um2_per_s_err: float
    """Standard errors by leaving out one ring after the other: rings are independent speckles."""
    speed_um_per_s_err: float
    rotational_diffusion_per_s_err: float
    contrast: Float64Array
    """(n_q,)."""
    misfit: float
    """RMS of C2 - model over all rings and lags fitted, in units of the contrast."""

    def c2(self, q_inv_um: Float64Array, lags_s: Float64Array) -> Float64Array:
        """1 + contrast |f|^2 at any lags, (n_q, n_lags), for rings in the order of the fit."""
        f = np.stack([self.colloids.field_correlation(q, lags_s) for q in q_inv_um])
        return 1.0 + self.contrast[:, None] * f**2


def fit_active(observations: CorrelationObservations) -> ActiveFit:
    """Fit the exact law to C2 averaged over equal lags.

    Parameters
    ----------
    observations
        Correlations on evenly spaced times of a stationary sample of swimmers that do not meet.

    Raises
    ------
    FitRefused
        When there are fewer than 3 rings or 4 lags, times are not even, or the fit does not settle.
    """
    steps = np.diff(observations.times_s)
    if len(observations.q_inv_um) < 3 or len(steps) < 4 or np.ptp(steps) > 1e-6 * steps[0]:
        raise FitRefused(
            f"{len(observations.q_inv_um)} rings at {len(steps) + 1} times cannot tell swimming from diffusion.",
            "Give at least 3 rings at 5 evenly spaced times.",
        )
    lags = steps[0] * np.arange(1, len(steps) + 1)
    decays = np.stack(
        [[np.nanmean(np.diagonal(c2, k)) - 1.0 for k in range(1, len(steps) + 1)] for c2 in observations.c2]
    )
    q = observations.q_inv_um
    known = np.ones(len(q)) if observations.contrast is None else observations.contrast
    known_err = np.full(len(q), 10.0) if observations.contrast_err is None else observations.contrast_err
    best, contrast, misfit = _least_squares(q, lags, decays, known, known_err)
    others = []
    for k in range(len(q)):
        kept = np.delete(np.arange(len(q)), k)
        others.append(_least_squares(q[kept], lags, decays[kept], known[kept], known_err[kept])[0])
    spread = np.std(np.exp(others), axis=0) * np.sqrt(len(q) - 1)
    d_err, v_err, turn_err = (float(sd) for sd in spread)
    d, v, turn = (float(value) for value in np.exp(best))
    return ActiveFit(ActiveColloids(d, v, turn), d_err, v_err, turn_err, contrast, misfit)


def _least_squares(
    q: Float64Array, lags: Float64Array, decays: Float64Array, known: Float64Array, known_err: Float64Array
) -> tuple[Float64Array, Float64Array, float]:
    """Logarithms of (D, v, D_r), the contrast of each ring, and the RMS misfit."""
    n_pairs = np.arange(len(lags), 0, -1.0)
    # Long lags have few pairs of frames behind them.
    weight = np.sqrt(n_pairs / n_pairs.mean())
    # What is known of the contrast counts as one more lag, at zero, against a misfit of the same size.
    trust = (CONTRAST_LEVER / known_err) ** 2

    def model(p: Float64Array) -> tuple[Float64Array, Float64Array]:
        colloids = ActiveColloids(*np.exp(p))
        f2 = np.stack([colloids.field_correlation(k, lags) ** 2 for k in q])
        pull = (weight**2 * f2 * decays).sum(axis=1) + trust * known
        return f2, pull / ((weight**2 * f2**2).sum(axis=1) + trust)

    def residual(p: Float64Array) -> Float64Array:
        f2, contrast = model(p)
        return np.append(weight * (contrast[:, None] * f2 - decays), np.sqrt(trust) * (contrast - known))

    rate = 1.0 / float(lags[len(lags) // 4] * np.median(q) ** 2)
    # Swimming and turning may take each other's place: several starts, the best is kept.
    starts = [np.log([rate, share * np.sqrt(rate / lags[-1]), 1.0 / lags[-1]]) for share in (0.3, 3.0)]
    bounds = (starts[0] - 8.0, starts[0] + 8.0)
    found = min((scipy.optimize.least_squares(residual, p, bounds=bounds) for p in starts), key=lambda s: s.cost)
    if not found.success or not np.isfinite(found.cost):
        raise FitRefused("The fit of swimming and turning does not settle.", "Record longer, or more rings.")
    contrast = model(found.x)[1]
    return found.x, contrast, float(np.sqrt(2.0 * found.cost / decays.size) / np.mean(contrast))

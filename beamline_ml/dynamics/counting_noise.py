"""Counting noise that entries of C2 share: photons of one frame are in all pairs of that frame.

C2(t, s) is a mean over pixels of k_t k_s over the means of both frames. To first order a photon more in frame t, in a
pixel of intensity I_s (of mean 1) at time s, changes C2(t, s) by (I_s - C2(t, s)) over the frame's photons. With
V_t = 1 / (photons of frame t), the relative variance of its S(q, t),

    cov C2(t, s), C2(t, u) = V_t < I_t (I_s - C2(t, s)) (I_u - C2(t, u)) >,

and for speckles of field correlation f and contrast beta (gamma-distributed where several modes share a pixel) that
moment is beta f_su^2 + beta^2 (2 f_ts f_tu f_su - f_ts^2 f_tu^2). Log S has no part in it: the mean of I_s - C2(t, s)
over the photons of frame t is zero.
"""

from __future__ import annotations

import numpy as np

from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.smooth_evolution import smooth_in_time
from beamline_ml.records import BoolArray, Float64Array

MOST_SHARED = 0.8
"""Of an entry's variance: the moment is that of Gaussian speckle, and a ring's few may have a smaller one."""


def relative_counting_variance(observations: CorrelationObservations) -> Float64Array:
    """(n_q, n_times) of S(q, t) from counting, as its smooth evolution has it; zero where nothing is said of it.

    Blocks that happen to hold few photons would seem to be known worse than others, and count for less.
    """
    seen, err = observations.structure_factor, observations.structure_factor_err
    if err is None:
        return np.zeros_like(seen)
    smooth = smooth_in_time(observations.times_s)
    expected = np.exp(np.linalg.lstsq(smooth, np.log(seen).T)[0].T @ smooth.T)
    return np.asarray(err**2 / (seen * expected), np.float64)


def counting_covariance(
    observations: CorrelationObservations, k: int, f: Float64Array, contrast: float
) -> Float64Array:
    """Covariance (n_entries, n_entries) that counting gives ring ``k``'s C2 at ``measured`` entries, in their order.

    Lags of a stationary run, which are means over many frames, are taken for independent.

    Parameters
    ----------
    f
        (n_times, n_times) field correlation; so many blocks are looked at.
    contrast
        Of the ring.
    """
    n_times = len(f)
    entries = observations.measured[k, :n_times, :n_times]
    whole = observations.c2_err[k, :n_times, :n_times][entries] ** 2
    if observations.stationary:
        return np.diag(whole)
    shared = _shared(entries, relative_counting_variance(observations)[k, :n_times], f, contrast)
    own_part = np.diagonal(shared)
    scale = np.sqrt(np.minimum(1.0, MOST_SHARED * whole / np.maximum(own_part, 1e-300)))
    shared = scale[:, None] * shared * scale
    shared[np.diag_indices_from(shared)] = whole
    return shared


def _shared(entries: BoolArray, of_frames: Float64Array, f: Float64Array, contrast: float) -> Float64Array:
    first, second = np.nonzero(entries)
    out = np.zeros((len(first), len(first)))
    for t, variance in enumerate(of_frames):
        with_t = np.flatnonzero((first == t) | (second == t))
        other = np.where(first[with_t] == t, second[with_t], first[with_t])
        out[np.ix_(with_t, with_t)] += variance * _moment(f[t, other], f[np.ix_(other, other)], contrast)
    return out


def _moment(f_t: Float64Array, f: Float64Array, contrast: float) -> Float64Array:
    """(n, n) of the others, which have field correlations ``f_t`` (n,) with the frame and ``f`` with each other."""
    both = f_t[:, None] * f_t[None, :]
    return contrast * f**2 + contrast**2 * (2.0 * both * f - both**2)

"""Which delays and ages are known too poorly, how frames could be spread over time, and what attenuation costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from beamline_ml.correlation.kww import kww
from beamline_ml.errors import GuidanceError
from beamline_ml.guidance.expected_errors import Bin, relative_time_error
from beamline_ml.records import G2, BoolArray, Float64Array, RelaxationFits

POOR = 0.1
"""An error of g2 beyond this part of the contrast leaves a delay undersampled."""
DECAY = (0.05, 0.95)
"""The part of a decay that carries the relaxation time."""
TIMES_PER_AGE = 10.0
"""Relaxation times that a stretch of ages must hold to know its own relaxation time to about a third."""
_TRANSMISSIONS = np.geomspace(1e-3, 1.0, 61)


def undersampled_delays(g2: G2, fits: RelaxationFits) -> BoolArray:
    """(n_q, n_tau) delays within the decay whose g2 is known worse than a tenth of the contrast.

    Bins without a fit have none: where the decay lies is not known there.
    """
    poor = np.zeros(g2.g2.shape, np.bool_)
    for q, refused in enumerate(fits.refused):
        if refused is not None:
            continue
        parameters = np.array([np.log(fits.relaxation_time_s[q]), 1.0, fits.stretching[q], 0.0])
        decay = kww(g2.delay_s, parameters)
        within = (decay > DECAY[0]) & (decay < DECAY[1])
        poor[q] = within & ~(g2.g2_err[q] <= POOR * fits.contrast[q])
    return poor


def undersampled_ages(
    age_s: Float64Array, width_s: float, relaxation_time_s: Callable[[Float64Array], Float64Array]
) -> BoolArray:
    """(n_ages,) stretches of an ageing run that hold fewer than ten of their own relaxation times.

    Parameters
    ----------
    age_s
        (n_ages,) middle of each stretch in s.
    width_s
        Length of each stretch.
    relaxation_time_s
        The ageing law that was fitted: ages in s to relaxation times in s.
    """
    short: BoolArray = width_s < TIMES_PER_AGE * relaxation_time_s(age_s)
    return short


def weakest_transmission(q_bin: Bin, n_frames: int, worth: float = 1.05) -> float:
    """Share of the present beam with which the same run has an error only so many times larger.

    Where speckle noise dominates, much of the beam (and of the dose) can be spared; where photons are few, none.
    """
    full = relative_time_error(q_bin, n_frames)
    for transmission in _TRANSMISSIONS:
        if relative_time_error(replace(q_bin, counts=q_bin.counts * float(transmission)), n_frames) <= worth * full:
            return float(transmission)
    return 1.0


def log_spaced_bursts_s(
    frame_period_s: float, longest_delay_s: float, n_frames: int, frames_per_burst: int = 16
) -> Float64Array:
    """Times at which to take frames so that every octave of delay is covered with few of them.

    Bursts at the full rate see the short delays; the bursts begin at logarithmically spaced times, so that their
    distances cover the long ones. For dose-limited samples and slow dynamics.

    Parameters
    ----------
    n_frames
        How many frames the dose allows; rounded down to whole bursts.

    Returns
    -------
    (n,) float64, start of each frame in s, ascending.

    Raises
    ------
    GuidanceError
        There are not frames for three bursts, or the longest delay is no longer than a burst.
    """
    n_bursts, burst_s = n_frames // frames_per_burst, frames_per_burst * frame_period_s
    if n_bursts < 3:
        raise GuidanceError(
            f"{n_frames} frames make {n_bursts} bursts of {frames_per_burst}.", "Allow three bursts, or shorter ones."
        )
    if longest_delay_s <= burst_s * n_bursts:
        raise GuidanceError(
            f"{n_bursts} bursts of {burst_s:g} s do not fit apart into {longest_delay_s:g} s.",
            "Take the frames without a gap instead.",
        )
    starts = _spread_starts_s(burst_s, longest_delay_s, n_bursts)
    times: Float64Array = (starts[:, None] + frame_period_s * np.arange(frames_per_burst)).ravel()
    return times


def _spread_starts_s(burst_s: float, longest_s: float, n_bursts: int) -> Float64Array:
    """Start times with growing gaps, none shorter than a burst."""
    low, high = 1.0, longest_s / burst_s
    for _ in range(200):
        ratio = 0.5 * (low + high)
        gaps = burst_s * ratio ** np.arange(n_bursts - 1)
        low, high = (ratio, high) if gaps.sum() < longest_s else (low, ratio)
    starts: Float64Array = np.concatenate([[0.0], np.cumsum(burst_s * low ** np.arange(n_bursts - 1))])
    return starts


def pairs_per_octave(times_s: Float64Array, shortest_s: float, longest_s: float) -> Float64Array:
    """(n_octaves,) pairs of frames whose delay falls into each doubling from the shortest delay to the longest."""
    delay = (times_s[None, :] - times_s[:, None])[np.triu_indices(len(times_s), 1)]
    n_octaves = int(np.ceil(np.log2(longest_s / shortest_s)))
    edges = shortest_s * 2.0 ** np.arange(n_octaves + 1) * (1.0 - 1e-9)
    counts: Float64Array = np.histogram(delay, edges)[0].astype(np.float64)
    return counts

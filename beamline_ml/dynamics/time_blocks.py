"""From frame-by-frame sums to the coarse time grid on which dynamics are fitted.

An evolving sample is cut into equal blocks of age; a stationary one is folded onto lags on a quasi-logarithmic grid.
Sums are added before they are divided, so blocks are exact averages and the same-frame products, which carry the
counting noise, never enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.speckle_noise import speckles_per_pixel
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray, TwoTime

MIN_FRAMES = 8
FAST_IN_BLOCKS = 2.0
"""Dynamics are fast when the fastest usable ring relaxes within this many blocks."""
STATIONARY_TOLERANCE = 0.15
MAX_DECAY_IN_AVERAGE = 0.4


@dataclass(frozen=True, slots=True)
class Blocks:
    """Averages on the coarse grid; fields as in ``CorrelationObservations``, for all rings of the run."""

    c2: Float64Array
    c2_err: Float64Array
    intensity: Float64Array
    """(n_q, n_times) counts per pixel and frame."""
    intensity_err: Float64Array
    """(n_q, n_times) its standard error from counting."""
    times_s: Float64Array
    n_speckles: Float64Array
    contrast: Float64Array
    contrast_err: Float64Array
    usable_rings: BoolArray
    stationary: bool
    begin_s: float
    duration_s: float
    n_averages: Float64Array | None


def _usable_frames(two_time: TwoTime) -> BoolArray:
    good = ~two_time.quality.missing
    if good.sum() < MIN_FRAMES:
        raise FitRefused(
            f"Only {int(good.sum())} frames can be used; dynamics need at least {MIN_FRAMES}.", "Record a longer burst."
        )
    return good


def is_stationary(two_time: TwoTime, ages: Blocks) -> bool:
    """Whether blocks of age would hide the dynamics (too fast) and nothing changes with age."""
    return _is_fast(two_time, ages.c2.shape[1]) and _is_steady(ages)


def _is_fast(two_time: TwoTime, n_blocks: int) -> bool:
    """Whether half of the usable rings lose more than half of their correlation within a block or two."""
    n = two_time.c2.shape[1]
    block = max(1, n // n_blocks)
    near = _mean_excess(two_time, 1)
    far = _mean_excess(two_time, min(int(FAST_IN_BLOCKS * block), n - 1))
    seen = near > 0.02
    return bool(seen.any() and np.median(far[seen] / near[seen]) < 0.5)


def _mean_excess(two_time: TwoTime, lag: int) -> Float64Array:
    """Ratio of sums at one lag minus one, (n_q,)."""
    c2 = np.diagonal(two_time.c2, offset=lag, axis1=1, axis2=2).astype(np.float64)
    return np.nanmean(c2, axis=1) - 1.0


def _is_steady(ages: Blocks) -> bool:
    """Whether ring intensities of the second half agree with those of the first, in the median ring."""
    half = ages.intensity.shape[1] // 2
    first, second = ages.intensity[:, :half].mean(axis=1), ages.intensity[:, half:].mean(axis=1)
    change = np.abs(second - first) / np.maximum(0.5 * (first + second), 1e-30)
    return bool(np.median(change) < STATIONARY_TOLERANCE)


def _membership(good: BoolArray, n_blocks: int, width: int) -> BoolArray:
    """(n_blocks, n_frames): the ``width`` frames in the middle of each block, where they can be used."""
    edges = np.linspace(0, len(good), n_blocks + 1)
    first = np.rint(0.5 * (edges[1:] + edges[:-1]) - 0.5 * width).astype(np.int64)
    frame = np.arange(len(good))
    return (frame >= first[:, None]) & (frame < first[:, None] + width) & good[None, :]


def _frames_averaged(two_time: TwoTime, n_blocks: int) -> int:
    """How many frames in the middle of a block to average.

    Few enough that the fastest ring decays by no more than ``MAX_DECAY_IN_AVERAGE`` within them (an average of a decay
    is more than the decay at the middle), as many as it takes to bring counting noise below that of speckles.
    """
    n = two_time.frame_sum.shape[1]
    near = _mean_excess(two_time, 1)
    lags = np.unique(np.rint(np.geomspace(1, max(2, n // 2), 30)).astype(np.int64))
    excess = np.array([_mean_excess(two_time, int(lag)) for lag in lags])
    halved = excess < 0.5 * near[None, :]
    half_life = np.where(halved.any(axis=0), lags[np.argmax(halved, axis=0)], n)
    seen = near > 0.02
    fastest = float(half_life[seen].min()) if seen.any() else float(n)
    by_decay = MAX_DECAY_IN_AVERAGE * fastest / np.log(2.0)
    per_pixel = float(np.median(two_time.frame_sum.mean(axis=1) / two_time.n_pixels))
    by_counting = 1.2 / max(per_pixel, 1e-6)
    return int(np.clip(np.ceil(max(by_decay, by_counting)), 1, max(1, n // n_blocks)))


def blocks_of_age(two_time: TwoTime, n_blocks: int) -> Blocks:
    """Average the frames in the middle of equal blocks of age.

    Raises
    ------
    FitRefused
        When too few frames can be used.
    """
    good = _usable_frames(two_time)
    n_blocks = min(n_blocks, int(good.sum()) // 2)
    member = _membership(good, n_blocks, _frames_averaged(two_time, n_blocks)).astype(np.float64)
    filled = member.sum(axis=1) > 0
    member = member[filled]
    products = np.where(good[:, None] & good[None, :], two_time.numerator, 0).astype(np.float64)
    sums = np.where(good, two_time.frame_sum, 0).astype(np.float64)
    diagonal = np.einsum("qtt->qt", products)
    above = member @ products @ member.T
    below = np.einsum("at,bs,qt,qs->qab", member, member, sums, sums, optimize=True)
    same = np.arange(len(member))
    above[:, same, same] -= diagonal @ member.T
    below[:, same, same] -= sums**2 @ member.T
    pixels = two_time.n_pixels[:, None, None].astype(np.float64)
    c2 = _ratio(above * pixels, below)
    counted = member.sum(axis=1)
    counts = sums @ member.T
    intensity, intensity_err = (of / counted / pixels[:, :, 0] for of in (counts, np.sqrt(counts)))
    n_pairs = np.outer(counted, counted)
    n_pairs[same, same] -= counted
    err = _counting_error(c2, intensity, pixels, np.maximum(n_pairs, 1.0))
    times = (member @ (two_time.age_s - two_time.age_s[0])) / counted
    return _blocks(two_time, good, c2, err, intensity, intensity_err, times, stationary=False, n_averages=None)


def _ratio(above: Float64Array, below: Float64Array) -> Float64Array:
    out = np.full_like(above, np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def _counting_error(
    c2: Float64Array, intensity: Float64Array, pixels: Float64Array, n_pairs: Float64Array
) -> Float64Array:
    """Standard error of block-averaged C2 from Poisson noise, of both frames and of one alone."""
    mean = np.sqrt(intensity[:, :, None] * intensity[:, None, :])
    variance = np.maximum(c2, 0.1) / (pixels * n_pairs) * (1.0 / mean**2 + 2.0 * np.sqrt(n_pairs) / mean)
    return np.sqrt(np.where(mean > 0, variance, np.inf))


def lag_grid(n_frames: int, n_lags: int) -> IntArray:
    """0, 1, 2, 3, ... and then ever wider: at most ``n_lags`` lags up to a third of the run."""
    top = max(2, n_frames // 3)
    grid = np.unique(np.rint(np.geomspace(1, top, max(2, n_lags - 1))).astype(np.int64))
    return np.append(0, grid)


def blocks_of_lag(two_time: TwoTime, n_lags: int) -> Blocks:
    """Fold onto lags: entry (i, j) is the ratio of sums over all frame pairs lag[j] - lag[i] apart."""
    good = _usable_frames(two_time)
    intensity = two_time.frame_sum / two_time.n_pixels[:, None]
    n = len(good)
    lags = lag_grid(n, n_lags)
    g2 = np.full((len(two_time.n_pixels), n), np.nan)
    pairs = np.zeros(n)
    pixels = two_time.n_pixels.astype(np.float64)
    for lag in np.unique(lags[None, :] - lags[:, None]):
        if lag < 1:
            continue
        both = good[lag:] & good[:-lag]
        above = np.diagonal(two_time.numerator, offset=lag, axis1=1, axis2=2)[:, both].sum(axis=1, dtype=np.float64)
        sums = two_time.frame_sum.astype(np.float64)
        below = (sums[:, lag:] * sums[:, :-lag])[:, both].sum(axis=1)
        g2[:, lag] = _ratio(above * pixels, below)
        pairs[lag] = both.sum()
    step = np.abs(lags[None, :] - lags[:, None])
    c2 = g2[:, step]
    mean = intensity[:, good].mean(axis=1)
    flat = np.repeat(mean[:, None], len(lags), axis=1)
    err = _counting_error(c2, flat, pixels[:, None, None], np.maximum(pairs[step], 1.0)[None])
    times = np.asarray(lags * two_time.frame_period_s, np.float64)
    flat_err = np.sqrt(flat / (good.sum() * pixels[:, None]))
    starts = np.maximum(n - lags, 1.0)
    return _blocks(two_time, good, c2, err, flat, flat_err, times, stationary=True, n_averages=starts)


def _blocks(
    two_time: TwoTime,
    good: BoolArray,
    c2: Float64Array,
    err: Float64Array,
    intensity: Float64Array,
    intensity_err: Float64Array,
    times: Float64Array,
    stationary: bool,
    n_averages: Float64Array | None,
) -> Blocks:
    near = _contrast(two_time)
    share = speckles_per_pixel(two_time, near)
    n_speckles = np.maximum(4.0, share * two_time.n_pixels)
    finite = np.isfinite(c2).any(axis=(1, 2)) & np.isfinite(two_time.q_inv_angstrom) & (intensity > 0).all(axis=1)
    floor = 3.0 * near / np.sqrt(n_speckles) * 0.1 + 3.0 * np.nanmedian(err, axis=(1, 2))
    contrast, contrast_err = shared_contrast(near, 2.0 * near / np.sqrt(n_speckles))
    return Blocks(
        c2=c2,
        c2_err=err,
        intensity=intensity,
        intensity_err=intensity_err,
        times_s=times,
        n_speckles=n_speckles,
        contrast=contrast,
        contrast_err=contrast_err,
        usable_rings=finite & (near > floor),
        stationary=stationary,
        begin_s=float(two_time.age_s[0]),
        duration_s=float(len(good) * two_time.frame_period_s),
        n_averages=n_averages,
    )


def shared_contrast(
    contrast: Float64Array, err: Float64Array, beyond_chance: float = 0.0
) -> tuple[Float64Array, Float64Array]:
    """Contrast of each ring drawn towards the common one, (n_q,) value and spread.

    Coherence sets one contrast for the whole detector; what single rings show beyond it is mostly their few speckles.
    Only a scatter larger than that of speckles is believed (DerSimonian-Laird estimate of the true spread), and only
    where it is so by more than ``beyond_chance`` of the standard deviations that chance gives it.
    """
    err = np.maximum(err, 1e-3)
    weight = 1.0 / err**2
    common = float((weight * contrast).sum() / weight.sum())
    freedom = len(contrast) - 1
    excess = float((weight * (contrast - common) ** 2).sum()) - freedom
    excess = excess if excess > beyond_chance * np.sqrt(2.0 * freedom) else 0.0
    spread2 = max(excess, 0.0) / max(float(weight.sum() - (weight**2).sum() / weight.sum()), 1e-30)
    spread2 = max(spread2, (0.04 * common) ** 2)
    posterior = (contrast / err**2 + common / spread2) / (1.0 / err**2 + 1.0 / spread2)
    return posterior, np.sqrt(1.0 / (1.0 / err**2 + 1.0 / spread2))


def _contrast(two_time: TwoTime) -> Float64Array:
    """C2 - 1 between neighbouring frames, drawn back to lag 0 by the step from lag 1 to lag 2, (n_q,)."""
    first, second = _mean_excess(two_time, 1), _mean_excess(two_time, 2)
    return np.clip(first + np.clip(first - second, 0.0, 0.5 * np.abs(first)), 1e-3, 2.0)

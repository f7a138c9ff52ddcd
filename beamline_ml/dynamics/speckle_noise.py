"""How far C2 and intensity of a few speckles stray from the ensemble mean, and how those errors hang together.

Entries of a measured C2 share the same few speckles, so their errors are strongly correlated; a fit that took them as
independent would be far too sure of itself. For Gaussian speckle with field correlation f(t1, t2), replicate rings are
drawn and correlated exactly as the data are: their covariance is the covariance of the data.
"""

from __future__ import annotations

import numpy as np

from beamline_ml.records import Float64Array, TwoTime

REPLICATE_SPECKLES = 48
N_REPLICATES = 600


def positive_part(f: Float64Array) -> Float64Array:
    """Square root factor L (n, n) with L L^T the nearest positive field correlation with unit diagonal."""
    symmetric = 0.5 * (f + f.T)
    values, vectors = np.linalg.eigh(symmetric)
    factor = vectors * np.sqrt(np.clip(values, 1e-6, None))
    return factor / np.linalg.norm(factor, axis=1, keepdims=True)


def unit_deviations(f: Float64Array, contrast: float, rng: np.random.Generator) -> tuple[Float64Array, Float64Array]:
    """Replicate deviations, scaled to one speckle: divide by sqrt(number of speckles).

    Parameters
    ----------
    f
        (n_times, n_times) field correlation.
    contrast
        Speckle contrast; below one, each replicate speckle is a partly coherent one.

    Returns
    -------
    c2, log_intensity
        (n_replicates, n_times, n_times) and (n_replicates, n_times), zero mean.
    """
    factor = positive_part(f)
    shape = (N_REPLICATES, len(f), REPLICATE_SPECKLES)
    real = factor @ rng.standard_normal(shape)
    imaginary = factor @ rng.standard_normal(shape)
    intensity = 1.0 + np.sqrt(min(contrast, 1.0)) * (0.5 * (real**2 + imaginary**2) - 1.0)
    mean = intensity.mean(axis=2)
    c2 = intensity @ intensity.transpose(0, 2, 1) / REPLICATE_SPECKLES / (mean[:, :, None] * mean[:, None, :])
    scale = np.sqrt(REPLICATE_SPECKLES)
    log_intensity = mean - 1.0
    return scale * (c2 - c2.mean(axis=0)), scale * (log_intensity - log_intensity.mean(axis=0))


def field_correlation(c2: Float64Array) -> Float64Array:
    """Rough f from a measured C2 (n_times, n_times): sqrt of (C2 - 1) over its own value at the shortest lags.

    The first two lags, drawn back linearly to lag 0, are what these very speckles show as contrast.
    """
    near, next_near = (value - 1.0 for value in shortest_lags(c2))
    own_contrast = max(near + np.clip(near - next_near, 0.0, 0.5 * abs(near)), 1e-6)
    f = np.sqrt(np.clip((np.where(np.isfinite(c2), c2, 1.0) - 1.0) / own_contrast, 0.0, 1.0))
    np.fill_diagonal(f, 1.0)
    return f


def shortest_lags(c2: Float64Array) -> tuple[float, float]:
    """Mean of C2 (n_times, n_times) at the two shortest lags, in blocks, at which any pair was measured."""
    lags = [np.diagonal(c2, offset=k) for k in range(1, len(c2))]
    means = [float(values[np.isfinite(values)].mean()) for values in lags if np.isfinite(values).any()]
    return means[0], means[min(1, len(means) - 1)]


def speckles_per_pixel(two_time: TwoTime, contrast: Float64Array) -> float:
    """How many independent speckles a pixel stands for: below 1 for large speckles and for symmetric patterns.

    The intensity of a ring fluctuates around its trend as the mean of N speckles does: the second difference over a
    stride has variance contrast (6 - 8 F1 + 2 F2) / N + counting noise, with F1, F2 the correlation over one and two
    strides. All rings and several strides are pooled.
    """
    n = two_time.frame_sum.shape[1]
    good = ~two_time.quality.missing
    log_i = np.log(np.maximum(two_time.frame_sum, 1.0))
    found = expected = 0.0
    for stride in {max(1, n // 40), max(1, n // 20), max(1, n // 10)}:
        if 2 * stride >= n:
            continue
        smooth = _moving_mean(log_i, max(1, stride // 2))
        second = smooth[:, : -2 * stride] - 2.0 * smooth[:, stride:-stride] + smooth[:, 2 * stride :]
        use = good[: second.shape[1]] & good[stride : stride + second.shape[1]] & good[-second.shape[1] :]
        variance = (second[:, use] ** 2).mean(axis=1)
        excess = [
            np.nanmean(np.diagonal(two_time.c2, offset=k * stride, axis1=1, axis2=2), axis=1) - 1.0 for k in (1, 2)
        ]
        counts = np.maximum(two_time.frame_sum.mean(axis=1) * max(1, stride // 2), 1.0)
        signal = np.clip(6.0 * contrast - 8.0 * excess[0] + 2.0 * excess[1], 0.0, None) / two_time.n_pixels
        usable = signal > 0
        found += float((np.clip(variance - 6.0 / counts, 0.0, None) / np.maximum(signal, 1e-30))[usable].sum())
        expected += float(usable.sum())
    if expected == 0 or found <= 0:
        return 0.5
    return float(np.clip(expected / found, 0.02, 1.0))


def _moving_mean(values: Float64Array, width: int) -> Float64Array:
    total = np.cumsum(np.pad(values, ((0, 0), (1, 0))), axis=1)
    return (total[:, width:] - total[:, :-width]) / width

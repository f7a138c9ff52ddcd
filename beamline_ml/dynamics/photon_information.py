"""What photon counts say about the parameters of a motion: the Poisson likelihood, with a Huber cut.

For n counts where e are expected, the deviance is 2 [(n + d) ln((n + d) / (e + d)) - (n - e)] with a few dark counts d,
so that single photons do not rule. The steps follow its slope, (n - e) / (e + d), so that a step which raises the
likelihood lowers the misfit. Squares weighted by the predicted variance have not that property: they shrink wherever
the prediction becomes brighter.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

from beamline_ml.dynamics.growing_horizon import Evaluation
from beamline_ml.errors import FitRefused
from beamline_ml.records import BoolArray, Float64Array, IntArray

N_PIXELS = 800
"""Enough to find the way, and for frames that come later."""
HUBER = 4.0
"""Square root of the deviance from which on a count pulls no harder: bad pixels, cosmic rays."""
DARK = 0.02
"""Counts d in the deviance."""
MOST_CHI2 = 1.2
"""Above it photon noise does not explain a run, also where pixels were chosen by the photons that they saw."""
TABLE = (-12.0, 7.0, 200)
"""First and last natural logarithm of expected photons in the table of expected misfits, and how many."""


class Scattering(Protocol):
    """Whatever turns a state into patterns with derivatives: positions, positions and phases, a rigid object."""

    def with_tangents(
        self, at: Float64Array, tangent: Float64Array, pixels: IntArray, /
    ) -> tuple[Float64Array, Float64Array]:
        """|A|^2 at flat pixel indices (n_pixels,) and its derivative along tangents (n, d, m): (n_pixels, m)."""
        ...


def photon_misfit(counts: NDArray[Any], expected: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Deviance of every count under the Huber cut, and the weight that its slope has left."""
    n = np.asarray(counts, np.float64)
    deviance = 2.0 * ((n + DARK) * np.log((n + DARK) / (expected + DARK)) - (n - expected))
    root = np.sqrt(np.maximum(deviance, 0.0))
    return np.where(root < HUBER, deviance, HUBER * (2.0 * root - HUBER)), HUBER / np.maximum(root, HUBER)


def misfit_by_chance(expected: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Mean and variance of :func:`photon_misfit` over Poisson counts."""
    logs, means, variances = _table_of_chance()
    at = np.log(np.maximum(expected, 1e-30))
    return np.interp(at, logs, means), np.interp(at, logs, variances)


@cache
def _table_of_chance() -> tuple[Float64Array, Float64Array, Float64Array]:
    """Logarithms of expected photons, and mean and variance of the misfit there."""
    logs = np.linspace(*TABLE)
    means, variances = [], []
    for e in np.exp(logs):
        n = np.arange(poisson.ppf(1e-9, e), poisson.isf(1e-9, e) + 3.0)
        chance, misfit = poisson.pmf(n, e), photon_misfit(n, np.full(len(n), e))[0]
        means.append(chance @ misfit)
        variances.append(chance @ misfit**2 - means[-1] ** 2)
    return logs, np.array(means), np.array(variances)


def photon_information(
    scattering: Scattering,
    counts: NDArray[Any],
    states: Float64Array,
    tangents: Float64Array,
    pixels: IntArray,
    scale: float,
) -> Evaluation:
    """What frames say about m parameters of the motion and, as the last one, the logarithm of ``scale``.

    Parameters
    ----------
    counts
        (n_frames, size, size) photons.
    states, tangents
        (n_frames, n, d) states and their derivatives (n_frames, n, d, m).
    pixels
        (n_pixels,) flat indices that are looked at.
    scale
        Photons per unit of intensity.
    """
    m = tangents.shape[3] + 1
    information, pull = np.zeros((m, m)), np.zeros(m)
    misfit, by_chance, variance = 0.0, 0.0, 0.0
    for frame, at, tangent in zip(counts, states, tangents, strict=True):
        value, slope = scattering.with_tangents(at, tangent, pixels)
        expected = scale * value
        seen = frame.ravel()[pixels]
        deviance, weight = photon_misfit(seen, expected)
        rows = np.column_stack([scale * slope, expected])
        weight = weight / (expected + DARK)
        information += rows.T @ (weight[:, None] * rows)
        pull += rows.T @ (weight * (seen - expected))
        misfit += float(deviance.sum())
        mean, spread = misfit_by_chance(expected)
        by_chance += float(mean.sum())
        variance += float(spread.sum())
    by_chance = max(by_chance, 1e-30)
    return Evaluation(information, pull, misfit, misfit / by_chance, float(np.sqrt(variance)) / by_chance)


def unexplained(chi2: float) -> tuple[str, ...]:
    """What is to be said of a chi-squared above ``MOST_CHI2``; nothing of others."""
    if chi2 <= MOST_CHI2:
        return ()
    return (f"The model does not describe the data: chi-squared {chi2:.3f} (limit {MOST_CHI2:g}).",)


def photons_per_intensity(frame: NDArray[Any], expected: Float64Array, used: BoolArray) -> float:
    """Scale that gives a pattern (size, size) as many photons as the frame holds on the pixels ``used``."""
    return float(frame[used].sum() / max(expected[used].sum(), 1e-30))


def chosen_pixels(counts: NDArray[Any], used: BoolArray, rng: np.random.Generator, most: int = N_PIXELS) -> IntArray:
    """Flat indices of pixels, (at most ``most``,), sorted; all where they are few, else drawn where it is bright.

    A pixel's own photons have no say in it: pixels that happened to see many would make the sample look brighter than
    it is, and those that saw none say something, too. What counts is the mean of pixels as far from the direct beam.

    Raises
    ------
    FitRefused
        When fewer than eight pixels saw a photon.
    """
    light = _light(counts, used)
    flat = np.flatnonzero(used.ravel()).astype(np.int64)
    if len(flat) <= most:
        return flat
    share = mean_around(light[flat], used.shape, flat)
    # Rings without a photon come last, but they may be needed.
    return _drawn(flat, share + 1e-12 * share.max(), most, rng)


def mean_around(light: Float64Array, shape: tuple[int, ...], pixels: IntArray) -> Float64Array:
    """(n_pixels,) mean of ``light`` (n_pixels,) over those of these pixels that are as far from the direct beam."""
    row, column = (np.arange(n) - n // 2 for n in shape)
    ring = np.rint(np.hypot(row[:, None], column[None, :])).astype(np.int64).ravel()[pixels]
    means = np.bincount(ring, weights=light) / np.maximum(np.bincount(ring), 1)
    return np.asarray(means[ring], np.float64)


def brightest_pixels(counts: NDArray[Any], used: BoolArray, rng: np.random.Generator, most: int = N_PIXELS) -> IntArray:
    """As :func:`chosen_pixels`, but each in proportion to its own light.

    More is to be learnt there, which a search among many wrong minima needs; a dim run comes out too bright.
    """
    light = _light(counts, used)
    lit = np.flatnonzero(light).astype(np.int64)
    return _drawn(lit, light[lit], min(most, len(lit)), rng)


def _light(counts: NDArray[Any], used: BoolArray) -> Float64Array:
    """Mean photons of every pixel, (size^2,); 0 where it is not used."""
    light = np.asarray((counts.mean(axis=0) * used).ravel(), np.float64)
    lit = np.count_nonzero(light)
    if lit < 8:
        raise FitRefused(f"Only {lit} pixels saw a photon.", "Check mask and beam stop, or count longer.")
    return light


def _drawn(pixels: IntArray, share: Float64Array, n: int, rng: np.random.Generator) -> IntArray:
    return np.sort(rng.choice(pixels, n, replace=False, p=share / share.sum()))

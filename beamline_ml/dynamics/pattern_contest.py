"""Who foretells this run's own patterns best? Everybody sees its first frames and is asked about some later ones.

Before a fit takes more frames in, its law says where it expects the particles there, which costs one motion more.
Misses are squared differences from the counts less the counts, which photon noise puts there on average whoever
forecasts, over the mean square of the light that is expected as far from the direct beam: 0 is a perfect forecast, and
of two fully developed speckle patterns that have nothing in common, one misses the other by 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.contest import NEURAL_ODE
from beamline_ml.dynamics.pattern_baselines import PATTERN_BASELINES
from beamline_ml.records import Float64Array

FIRST_ORIGIN = 0.4
"""Forecasters are judged from origins that leave at least this part of the run to learn from."""
FEWEST_FRAMES = 4
"""To learn from."""
UNRELATED = 2.0
"""Mean squared difference of two speckle patterns that have nothing in common, over the square of their mean."""


@dataclass(frozen=True)
class PatternContest:
    """Misses of everybody, and how far ahead they were asked."""

    misses: dict[str, float]
    """Mean squared error of the expected photons over the mean square of the light there, by forecaster; infinite where
    the particles' motion did not stay finite."""
    ahead_s: float
    """Root mean square time from the last frame that was seen to those that were asked about."""
    n: int
    """Counts that were asked about."""

    @property
    def scores(self) -> dict[str, float]:
        """Root of the misses, smaller is better; 0 where the noise hides all of them."""
        return {name: float(np.sqrt(max(miss, 0.0))) for name, miss in self.misses.items()}

    def joined(self, other: PatternContest) -> PatternContest:
        """Both contests as one."""
        n = self.n + other.n
        share = other.n / max(n, 1)
        misses = {name: (1.0 - share) * miss + share * other.misses[name] for name, miss in self.misses.items()}
        ahead_s = float(np.sqrt((1.0 - share) * self.ahead_s**2 + share * other.ahead_s**2))
        return PatternContest(misses, ahead_s, n)


def pattern_contest(
    counts: NDArray[Any], times_s: Float64Array, light: Float64Array, blind: dict[int, Float64Array]
) -> PatternContest | None:
    """Score the force law's blind forecasts and every baseline on the same frames.

    Parameters
    ----------
    counts
        (n_frames, n_pixels) photons.
    light
        (n_pixels,) photons that are expected there on average.
    blind
        For each origin (number of frames seen) the force law's expected photons (n_ahead, n_pixels) of the next frames.

    Returns
    -------
    PatternContest or None
        None where no forecast started late enough.
    """
    last = max((n + len(ahead) for n, ahead in blind.items()), default=0)
    found: PatternContest | None = None
    for n_seen, ahead in blind.items():
        if n_seen < max(FEWEST_FRAMES, FIRST_ORIGIN * last):
            continue
        one = of_frames(counts[: n_seen + len(ahead)], times_s[: n_seen + len(ahead)], light, ahead)
        found = one if found is None else found.joined(one)
    return found


def of_frames(counts: NDArray[Any], times_s: Float64Array, light: Float64Array, of_law: Float64Array) -> PatternContest:
    """The contest on the last of these frames, as many as the law foretold (n_ahead, n_pixels), seen those before."""
    n_seen = len(counts) - len(of_law)
    seen, before_s = counts[:n_seen], times_s[:n_seen]
    asked, asked_s = counts[n_seen:], times_s[n_seen:]
    mean_square = max(len(asked) * float((light**2).sum()), 1e-30)

    def miss(expected: Float64Array) -> float:
        off = float(((asked - expected) ** 2 - asked).sum()) / mean_square
        return off if np.isfinite(off) else np.inf

    curves = {name: miss(law(seen, before_s).at(asked_s)) for name, law in PATTERN_BASELINES.items()}
    ahead_s = float(np.sqrt(((asked_s - before_s[-1]) ** 2).mean()))
    return PatternContest({NEURAL_ODE: miss(of_law)} | curves, ahead_s, asked.size)

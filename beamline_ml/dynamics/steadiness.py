"""Do all parts of a run ask for the same law?

A law that a model does not contain may be imitated over a whole run, but then its parts want it changed in ways that
cancel. The pull of one part at the answer of all is what tells them apart: were the law the true one, it would scatter
about zero with a known covariance (score tests of parameters that may not be constant: Nyblom, J. Am. Stat. Assoc. 84,
223 (1989); Andrews, Econometrica 61, 821 (1993)). A few dozen numbers carry what the misfit of all counts hides in its
noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.growing_horizon import Evaluation
from beamline_ml.records import Float64Array, IntArray

LEAST_INFORMATION = 1.0
"""Directions of which a part knows less, in units of the prior's precision, say nothing."""
ALIKE = 0.0015
"""By which laws may differ and still be one, in the units in which parameters are of order one: splines only approach
a force, and very bright light would tell that."""


@dataclass(frozen=True)
class Steadiness:
    """How much the parts of a run differ in what they ask for."""

    chi2: float = 0.0
    """Sum of squares of what would be independent standard normal numbers if one law explained them all."""
    n: int = 0
    """How many these are."""

    @property
    def beyond_chance(self) -> float:
        """By how many standard deviations the sum exceeds what chance makes of it; 0 where nothing was compared."""
        return (self.chi2 - self.n) / float(np.sqrt(2.0 * self.n)) if self.n else 0.0

    def with_more(self, other: Steadiness) -> Steadiness:
        """Both together."""
        return Steadiness(self.chi2 + other.chi2, self.n + other.n)


def of_beginning(
    beginning: Evaluation, whole: Evaluation, covariance: Float64Array, learnt: Float64Array, of_law: IntArray
) -> Steadiness:
    """Of a run's beginning and its rest, at the answer of the whole.

    Parameters
    ----------
    covariance
        (m, m) of the answer.
    learnt
        (m,) what the answer differs by from the prior's mean. Pulls of data and prior need not cancel exactly: what is
        left would move the answer by a last step, which is taken off.
    of_law
        (k,) indices of the parameters that are compared.
    """
    prior = np.linalg.inv(covariance) - whole.information
    left = covariance @ (whole.pull - prior @ learnt)
    score = beginning.pull - beginning.information @ left
    variance = beginning.information - beginning.information @ covariance @ beginning.information
    own = variance[np.ix_(of_law, of_law)]
    return _compared(score[of_law], own, own)


def of_more(part: Evaluation, covariance: Float64Array) -> Steadiness:
    """Of a part that the answer had not seen, whose covariance (m, m) that was; evaluated at that answer."""
    slope = part.information
    return _compared(part.pull, slope + slope @ covariance @ slope, slope)


def _compared(score: Float64Array, covariance: Float64Array, slope: Float64Array) -> Steadiness:
    """``slope``: by what the score changes where the law does."""
    known, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    axes = vectors[:, known > LEAST_INFORMATION]
    expected = axes.T @ (covariance + ALIKE**2 * slope @ slope.T) @ axes
    along = axes.T @ score
    return Steadiness(float(along @ np.linalg.solve(expected, along)), axes.shape[1])

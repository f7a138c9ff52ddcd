"""Do all parts of a run ask for the same law?

A law that a model does not contain may be imitated over a whole run, but then its parts want it changed in ways that
cancel. What pulls one part and not the other tells them apart: were the law the true one, that would scatter about zero
with a known covariance (score tests of parameters that may not be constant: Nyblom, J. Am. Stat. Assoc. 84,
223 (1989); Andrews, Econometrica 61, 821 (1993)). A few dozen numbers carry what the misfit of all counts hides in its
noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.growing_horizon import Evaluation
from beamline_ml.records import Float64Array, IntArray

LEAST_INFORMATION = 1.0
"""Directions of which the parts together know less, in units in which parameters are of order one, say nothing."""
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
        """Both together, or the other alone where this one was no more than expected.

        So a law that changes late is told as soon as one that changes early (Page's cumulative sums, Biometrika 41,
        100 (1954)).
        """
        return other if self.beyond_chance < 0.0 else Steadiness(self.chi2 + other.chi2, self.n + other.n)


def of_parts(first: Evaluation, second: Evaluation, of_law: IntArray | None = None) -> Steadiness:
    """Of two parts of a run, both evaluated at parameters that are nearly the answer of either.

    What pulls both parts alike only says that these are not yet the best ones: a step towards those is taken off, so
    that of the answer's own errors, of an unfinished fit and of a prior nothing is left but what is not linear.

    Parameters
    ----------
    of_law
        (k,) indices of the parameters that are compared; None: all.
    """
    whole = first.information + second.information + LEAST_INFORMATION * np.eye(len(first.pull))
    share = np.linalg.solve(whole, first.information)
    score = first.pull - share.T @ (first.pull + second.pull)
    variance = first.information - first.information @ share
    compared = np.arange(len(score)) if of_law is None else of_law
    return _compared(score[compared], variance[np.ix_(compared, compared)])


def _compared(score: Float64Array, variance: Float64Array) -> Steadiness:
    """The variance is also by what the score changes where the two parts have different laws."""
    known, vectors = np.linalg.eigh(0.5 * (variance + variance.T))
    held = known > LEAST_INFORMATION
    expected = known[held] + (ALIKE * known[held]) ** 2
    return Steadiness(float(((vectors.T @ score)[held] ** 2 / expected).sum()), int(held.sum()))

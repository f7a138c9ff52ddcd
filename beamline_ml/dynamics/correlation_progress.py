"""Where a fit of correlations stands: its answers so far, which of them is the best, and whether more would follow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from beamline_ml.dynamics.carry_over import CarryOver, carried_on
from beamline_ml.dynamics.ensembles import Ensemble
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.statistical_gauss_newton import Belief
from beamline_ml.records import Float64Array

BETTER = 0.05
"""By so much (and by this part of it) chi-squared has to fall in two stages; what is less, other surrogates do."""
MATTERS = (0.25, 0.1)
"""By more than this much, and this part of it, one stage must have brought it down for the fit to have more to say."""
FAIR = 2.0
"""Chi-squared from which on it has four stages to fall in: far from the answer of a strong force steps are slow."""
FAR_WORSE = 1.25
"""An answer whose chi-squared is so many times the best was a step astray: the next one goes out from the best."""
POOLED = 3
"""Ensembles that are regressed together."""


@dataclass(frozen=True)
class Answer:
    """What a stage found."""

    belief: Belief
    surrogate_noise: Float64Array | float = 0.0
    """Covariance (n_parameters, n_parameters) of the answer between one set of surrogates and another."""
    misfit: float = np.inf
    """Chi-squared of the answer as it was tried; infinite: it was not."""

    def is_astray(self, best: Answer) -> bool:
        """Whether the step to this answer went astray, seen from the best."""
        return self.misfit > FAR_WORSE * max(1.0, best.misfit)


@dataclass
class Progress:
    """Where a fit stands, and what it did."""

    belief: Belief
    n_times: int
    """Blocks used so far."""
    blind: dict[int, Float64Array] = field(default_factory=dict)
    """Predicted f^2 (n_q, n_times, n_times) of an ensemble that had seen only so many blocks, by that number."""
    blind_log_s: dict[int, Float64Array] = field(default_factory=dict)
    """The same for log S (n_q, n_times)."""
    blind_variance: dict[int, Float64Array] = field(default_factory=dict)
    """Variance of those f^2 for parameters as uncertain as they were then, (n_q, n_times, n_times)."""
    carried: dict[int, CarryOver] = field(default_factory=dict)
    """What these very speckles add to the blind predictions, by the same number."""
    skipped: list[str] = field(default_factory=list)
    recent: list[Ensemble] = field(default_factory=list)
    """The last ensembles that went as far as the present horizon."""
    explored: Float64Array | None = None
    """Covariance (n_parameters, n_parameters) with which the last ensemble was drawn."""
    answers: list[Answer] = field(default_factory=list)
    """Of the stages that went as far as the present horizon."""

    @property
    def answer(self) -> Answer:
        """The best of those from as many ensembles as are regressed together, or one before if that is far better."""
        if not self.answers:
            return Answer(self.belief)
        best = min(self.answers[POOLED - 1 :] or self.answers[-1:], key=lambda each: each.misfit)
        return self.best_of_all if best.is_astray(self.best_of_all) else best

    @property
    def best_of_all(self) -> Answer:
        """The one with the least chi-squared."""
        return min(self.answers, key=lambda each: each.misfit)

    @property
    def settled(self) -> bool:
        """Whether answers get better no longer, without the last steps having gone astray."""
        if len(self.answers) <= POOLED or any(each.is_astray(self.best_of_all) for each in self.answers[-2:]):
            return False
        patience = 2 if self.best_of_all.misfit < FAIR else 4
        before, last = self.answers[:-patience], self.answers[-patience:]
        if not before:
            return False
        least, now = (min(each.misfit for each in some) for some in (before, last))
        return now > least - BETTER * max(1.0, least)

    @property
    def still_falls(self) -> bool:
        """Whether the last stage alone brought chi-squared down by what matters."""
        if len(self.answers) < 2:
            return True
        before = min(each.misfit for each in self.answers[:-1])
        return self.answers[-1].misfit < before - max(MATTERS[0], MATTERS[1] * before)

    def carry_over(self, ages: CorrelationObservations, n_seen: int) -> CarryOver:
        """Speckle deviations that the first ``n_seen`` blocks foretell; computed once."""
        if n_seen not in self.carried:
            self.carried[n_seen] = carried_on(ages, n_seen, self.blind[n_seen], n_seen)
        return self.carried[n_seen]

"""What a fit found, as plain numbers that survive a round trip through files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.dynamics.contest import CORRECTED, LAWS, NEURAL_ODE, best_curve, published
from beamline_ml.dynamics.doubts import reasons
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.spline import spline_basis, spline_deviation
from beamline_ml.dynamics.stored import record_arrays, stored_fields
from beamline_ml.records import Float64Array

VERSION = 3
MAX_CHI2 = 3.0
"""Above it a law does not describe a run; figures of laws that the model contains and of others: docs/benchmarks.md."""
SYSTEMATIC_LOG_D = 0.04
"""Sixteen samples of ``tests/benchmarks`` in bright light were off by 0.045 (root mean square); noise explains 0.03."""
BEYOND_CHANCE = 2.5
"""Standard errors by which a simple forecast must have been better to say that the law is another."""


@dataclass(frozen=True)
class DynamicsFit:
    """Force, diffusion and how well they explain a run's correlations."""

    mode: str
    """How the data were used, in words."""
    coefficients: Float64Array
    """(n_coefficients,) spline of the radial force in um/s, positive repels."""
    covariance: Float64Array
    """(n_coefficients + 1, n_coefficients + 1) of (coefficients in um/s, log D)."""
    cutoff_um: float
    log_d: float
    number_density_per_um2: float
    """Nominal where the run did not say (see ``warnings``)."""
    box_um: float
    n_boxes: int
    n_per_box: int
    steps_per_time: int
    n_forecast_members: int
    n_threads: int
    seed: int
    chi2: float
    """Mean square of (model - data) / noise over independent combinations of the data; 1 is a perfect description."""
    stationary: bool
    used_until_s: float
    """How much of the run the fit had time to use."""
    edges_inv_um: Float64Array
    """(n_q, 2) rings."""
    q_inv_um: Float64Array
    times_s: Float64Array
    """(n_times,) ages of the blocks below."""
    c2: Float64Array
    """(n_q, n_times, n_times) the observed blocks; NaN where nothing was measured."""
    c2_err: Float64Array
    structure_factor: Float64Array
    """(n_q, n_times)."""
    n_speckles: Float64Array
    contrast: Float64Array
    contrast_err: Float64Array
    model_c2: Float64Array
    """(n_q, n_times, n_times) what the model says to the same."""
    model_s: Float64Array
    """(n_q, n_times)."""
    contest: dict[str, float]
    """Rolling-origin RMSE of F = (C2 - 1) / contrast, by forecaster."""
    contest_s: dict[str, float]
    """Rolling-origin RMSE of log S(q, t), by forecaster."""
    contest_margin: float = 0.0
    """How far behind the best simple forecast the neural ODE's RMSE of F may be by chance (one standard error)."""
    corrected_margin: float = 0.0
    """The same of the law corrected by what it missed."""
    contest_noise: float = 0.0
    """RMSE of F that a forecast without error would have had there, by the noise of the blocks held out."""
    band_scale: float = 1.0
    """How many times wider than foreseen the misses of blind forecasts of this run's own blocks were; at least 1."""
    warnings: tuple[str, ...] = ()
    absolute: bool = False
    begin_s: float = 0.0
    """Age at which ``times_s`` begin to count."""
    start_structure_factor: Float64Array = field(default_factory=lambda: np.empty(0))
    """(n_q,) S of each ring with which the surrogate particles start; empty: they start without order."""
    waiting_s: float = 0.0
    """How long before the first frame used that was."""

    @property
    def observations(self) -> CorrelationObservations:
        """What was fitted, on the grid of ages."""
        return CorrelationObservations(
            c2=self.c2,
            c2_err=self.c2_err,
            structure_factor=self.structure_factor,
            q_inv_um=self.q_inv_um,
            times_s=self.times_s,
            number_density_per_um2=self.number_density_per_um2,
            n_speckles=self.n_speckles,
            contrast=self.contrast,
            contrast_err=self.contrast_err,
            absolute=self.absolute,
            begin_s=self.begin_s,
        )

    @property
    def diffusion_um2_per_s(self) -> float:
        """Brownian diffusion coefficient."""
        return float(np.exp(self.log_d))

    @property
    def diffusion_um2_per_s_err(self) -> float:
        """Its standard error: what ``covariance`` says, and what surrogates and blocks of frames are off by."""
        return self.diffusion_um2_per_s * float(np.sqrt(self.covariance[-1, -1] + SYSTEMATIC_LOG_D**2))

    @property
    def describes_data(self) -> bool:
        """Whether noise explains the misfit, up to a few per cent of model error, and no curve foretold it better.

        What chi-squared is above 1, and the standard errors by which a curve was better, each over its limit
        (``MAX_CHI2``, ``BEYOND_CHANCE``): the squares of these two doubts add up to 1 at most.
        """
        return not self.doubts

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why the law does not describe the run, in words; empty where it does."""
        best, behind_by = self.best_curve or ("", 0.0)
        misfit = f"chi-squared {self.chi2:.1f} (limit {MAX_CHI2:g})"
        contest = (
            f"the simple forecast {best} foretold blocks not yet seen better, by {behind_by:.1f} standard errors "
            f"(limit {BEYOND_CHANCE:g})"
        )
        excess = max(0.0, self.chi2 - 1.0) / (MAX_CHI2 - 1.0)
        return reasons(((misfit, excess), (contest, max(0.0, behind_by) / BEYOND_CHANCE)))

    @property
    def best_curve(self) -> tuple[str, float] | None:
        """The simple forecast that was best in the contest, and by how many standard errors the force was behind it.

        None: there was no such contest, or it was not blind.
        """
        best = best_curve(self.contest)
        if best is None or NEURAL_ODE not in self.contest or self.contest_margin == 0.0:
            return None
        return best, (self.contest[NEURAL_ODE] - self.contest[best]) / self.contest_margin

    @property
    def winner(self) -> str:
        """Whose forecast of C2 is published (:func:`published`).

        A law that describes the run needs no correction, and may be behind by what does not yet say that it is another
        one. One that does not may be behind no curve, and is corrected where that does better and leaves no more than
        noise. A corrected law that leaves no more than noise may be behind a curve by chance.
        """
        curves = {name: score for name, score in self.contest.items() if name not in LAWS}
        law, corrected = (self.contest.get(name, np.inf) for name in LAWS)
        if self.describes_data:
            return published(curves | {NEURAL_ODE: law}, BEYOND_CHANCE * self.contest_margin)
        least = min(curves.values(), default=np.inf)
        leaves_noise = corrected <= self.contest_noise
        if law <= least and (law <= corrected or not leaves_noise):
            return NEURAL_ODE
        if corrected <= least + leaves_noise * BEYOND_CHANCE * self.corrected_margin:
            return CORRECTED
        return published(curves, self.contest_margin)

    @property
    def resolution_um(self) -> float:
        """Distance pi / q_max that the rings resolve; a force that changes within less is not determined there."""
        return float(np.pi / self.q_inv_um.max())

    def kernel(self, r_um: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Radial force (velocity per neighbour, um/s, positive repels) and its standard deviation at r."""
        basis = spline_basis(np.asarray(r_um, np.float64), len(self.coefficients), self.cutoff_um)
        return basis @ self.coefficients, spline_deviation(r_um, self.covariance[:-1, :-1], self.cutoff_um)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays: numbers as they are, words as JSON text in zero-dimensional arrays."""
        return record_arrays(self, VERSION)

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> DynamicsFit:
        """Inverse of :meth:`to_arrays`.

        Raises
        ------
        ResultError
            When an array is missing or the version is another.
        """
        values = stored_fields(cls, arrays, VERSION, "dynamics fit")
        values["warnings"] = tuple(values["warnings"])
        return cls(**values)

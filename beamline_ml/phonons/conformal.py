"""Bands that hold: split-conformal calibration on materials that no member has trained on.

The disagreement of the members says where errors are large; the calibration says how large an error goes with how
much disagreement. Scores are residuals divided by (spread + floor); the band is their 90 % quantile over the held-out
materials (Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018), locally weighted). The windows of the density get one
quantile below and one above per group of predicted share, for residuals there are lopsided: a window is often empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beamline_ml.phonons.thermodynamics import displacement_kernel, heat_capacity_kernel, window_mean
from beamline_ml.phonons.windows import EDGES_INV_CM, MEV_PER_INV_CM
from beamline_ml.records import Float64Array

COVERAGE = 0.9
CALIBRATION_TEMPERATURES_K: Float64Array = np.array(
    [5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 800.0]
)
SHARE_GROUPS: Float64Array = np.array([0.0, 3e-4, 3e-3, 1e-2, 3e-2, 1.01])
"""Windows are calibrated in groups of predicted share."""
_SHARE_FLOOR = 2e-4
_RELATIVE_FLOOR = 0.01
_EDGES_MEV = EDGES_INV_CM * MEV_PER_INV_CM


def conformal_quantile(scores: Float64Array, coverage: float = COVERAGE) -> float:
    """The ceil((n + 1) coverage)-th smallest score: covers a fresh case with at least this probability."""
    rank = int(np.ceil((len(scores) + 1) * coverage))
    return float("inf") if rank > len(scores) else float(np.sort(scores)[rank - 1])


@dataclass(frozen=True, slots=True)
class RelativeBand:
    """Band of a positive quantity on a logarithmic scale."""

    quantile: float

    @staticmethod
    def fit(predicted: Float64Array, members: Float64Array, true: Float64Array) -> RelativeBand:
        """Calibrate on (n,) predictions, (n, n_members) members' values and (n,) truths."""
        scores = np.abs(np.log(true / predicted)) / _log_spread(members)
        return RelativeBand(conformal_quantile(scores))

    def band(self, predicted: Float64Array | float, members: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Lower and upper edges for (n,) predictions and (n, n_members) members' values (or one of each)."""
        reach = self.quantile * _log_spread(members)
        value = np.asarray(predicted, dtype=np.float64)
        return value * np.exp(-reach), value * np.exp(reach)


def _log_spread(members: Float64Array) -> Float64Array:
    spread: Float64Array = np.log(np.maximum(members, 1e-12)).std(axis=-1, ddof=1) + _RELATIVE_FLOOR
    return spread


@dataclass(frozen=True, slots=True)
class TemperatureBand:
    """Bands of a quantity that depends on temperature, calibrated on a grid and interpolated in log T."""

    temperatures_k: Float64Array
    quantiles: Float64Array

    def at(self, temperature_k: float) -> RelativeBand:
        """The band at one temperature; beyond the grid, its end."""
        log_t = np.log(max(temperature_k, 1e-3))
        return RelativeBand(float(np.interp(log_t, np.log(self.temperatures_k), self.quantiles)))


@dataclass(frozen=True, slots=True)
class WindowBand:
    """Bands of the share of modes in a window, by group of predicted share."""

    below: Float64Array
    """(n_groups,) quantile of the residuals towards fewer modes."""
    above: Float64Array
    """(n_groups,) quantile towards more modes."""

    @staticmethod
    def fit(predicted: Float64Array, spread: Float64Array, true: Float64Array) -> WindowBand:
        """Calibrate on (n, n_w) shares, the members' standard deviations and the true shares."""
        group = np.digitize(predicted, SHARE_GROUPS) - 1
        scores = (true - predicted) / (spread + _SHARE_FLOOR)
        tail = 1.0 - (1.0 - COVERAGE) / 2.0
        chosen = [scores[group == g] for g in range(len(SHARE_GROUPS) - 1)]
        below = np.array([conformal_quantile(-s, tail) for s in chosen])
        above = np.array([conformal_quantile(s, tail) for s in chosen])
        return WindowBand(np.maximum(below, 0.0), np.maximum(above, 0.0))

    def band(self, predicted: Float64Array, spread: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Lower and upper shares, shaped like ``predicted``; shares stay within 0 and 1."""
        group = np.digitize(predicted, SHARE_GROUPS) - 1
        unit = spread + _SHARE_FLOOR
        lower = np.clip(predicted - self.below[group] * unit, 0.0, 1.0)
        return lower, np.clip(predicted + self.above[group] * unit, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything the bands need."""

    windows: WindowBand
    mean_energy: RelativeBand
    heat_capacity: TemperatureBand
    displacement: TemperatureBand

    @staticmethod
    def fit(predicted: Float64Array, members: Float64Array, true: Float64Array) -> Calibration:
        """Calibrate on materials that nothing was trained on.

        Parameters
        ----------
        predicted, true
            (n, n_w) shares of the modes per window.
        members
            (n_members, n, n_w) the opinions whose disagreement scales the bands.
        """

        def relative(kernel: Float64Array) -> RelativeBand:
            return RelativeBand.fit(predicted @ kernel, (members @ kernel).T, true @ kernel)

        def over_temperature(kernel: Callable[[Float64Array, float], Float64Array]) -> TemperatureBand:
            quantiles = [relative(kernel(_EDGES_MEV, float(t))).quantile for t in CALIBRATION_TEMPERATURES_K]
            return TemperatureBand(CALIBRATION_TEMPERATURES_K, np.array(quantiles))

        return Calibration(
            windows=WindowBand.fit(predicted, members.std(axis=0, ddof=1), true),
            mean_energy=relative(window_mean(lambda energy: energy, _EDGES_MEV)),
            heat_capacity=over_temperature(heat_capacity_kernel),
            displacement=over_temperature(displacement_kernel),
        )

    def to_arrays(self) -> dict[str, Float64Array]:
        """The calibration as plain arrays."""
        return {
            "windows_below": self.windows.below,
            "windows_above": self.windows.above,
            "mean_energy": np.array([self.mean_energy.quantile]),
            "temperatures_k": self.heat_capacity.temperatures_k,
            "heat_capacity": self.heat_capacity.quantiles,
            "displacement": self.displacement.quantiles,
        }

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[np.float64]]) -> Calibration:
        """The calibration that ``to_arrays`` wrote."""
        temperatures = arrays["temperatures_k"]
        return Calibration(
            WindowBand(arrays["windows_below"], arrays["windows_above"]),
            RelativeBand(float(arrays["mean_energy"][0])),
            TemperatureBand(temperatures, arrays["heat_capacity"]),
            TemperatureBand(temperatures, arrays["displacement"]),
        )

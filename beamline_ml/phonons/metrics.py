"""Figures of merit, as the published networks are judged and as a beamline would judge them.

``y``, ``p`` are (n, 51) true and predicted points; the true maximum is 1. Means are over materials of the mean within
a material, as in the literature (Kong et al., Nat. Commun. 13, 949 (2022) for the transport distance and the mean
frequency).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.phonons.thermodynamics import BOLTZMANN_MEV_PER_K, GAS_CONSTANT_J_PER_K_MOL
from beamline_ml.phonons.windows import MEV_PER_INV_CM, POINTS_INV_CM
from beamline_ml.records import Float64Array

_STEP_INV_CM = 20.0


@dataclass(frozen=True, slots=True)
class PointMetrics:
    """How well the 51 points are met."""

    mse: float
    mse_renormalised: float
    """With every prediction scaled to maximum 1, as the published network does."""
    mae: float
    r2: float
    """Mean over materials of the coefficient of determination."""
    transport_inv_cm: float
    """Wasserstein distance of the curves scaled to equal area, in cm^-1."""
    mean_frequency_inv_cm: float
    """Mean absolute error of the mean frequency."""
    heat_capacity_300k: float
    """Mean absolute error of C_V(300 K) from the points, in J/(K mol of atoms)."""


def point_metrics(p: Float64Array, y: Float64Array) -> PointMetrics:
    """All figures of the 51-point convention."""
    renormalised = p / p.max(axis=1, keepdims=True)
    p_area, y_area = p / p.sum(axis=1, keepdims=True), y / y.sum(axis=1, keepdims=True)
    residual, total = ((p - y) ** 2).sum(axis=1), ((y - y.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    transport = _STEP_INV_CM * np.abs(np.cumsum(p_area - y_area, axis=1)).sum(axis=1)
    capacity = 3.0 * GAS_CONSTANT_J_PER_K_MOL * _point_heat_capacity(300.0)
    return PointMetrics(
        mse=float(material_mse(p, y).mean()),
        mse_renormalised=float(material_mse(renormalised, y).mean()),
        mae=float(np.abs(p - y).mean()),
        r2=float((1.0 - residual / total).mean()),
        transport_inv_cm=float(transport.mean()),
        mean_frequency_inv_cm=float(np.abs((p_area - y_area) @ POINTS_INV_CM).mean()),
        heat_capacity_300k=float(np.abs((p_area - y_area) @ capacity).mean()),
    )


def material_mse(p: Float64Array, y: Float64Array) -> Float64Array:
    """(n,) mean squared error of each material."""
    error: Float64Array = ((p - y) ** 2).mean(axis=1)
    return error


def _point_heat_capacity(temperature_k: float) -> Float64Array:
    """(51,) C_V/k_B of a mode at each published point."""
    half = np.maximum(POINTS_INV_CM, 1e-6) * MEV_PER_INV_CM / (2.0 * BOLTZMANN_MEV_PER_K * temperature_k)
    value: Float64Array = (half / np.sinh(half)) ** 2
    return value


def rank_correlation(a: Float64Array, b: Float64Array) -> float:
    """Spearman's rank correlation of two (n,) arrays without ties."""
    rank_a, rank_b = np.argsort(np.argsort(a)), np.argsort(np.argsort(b))
    return float(np.corrcoef(rank_a, rank_b)[0, 1])

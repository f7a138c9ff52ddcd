"""The shipped phonon ensemble on the development split: ``python -m tests.benchmarks.bench_phonons``.

The development split is the published validation rows, which no member has trained on. They also calibrate the
shipped bands, so coverage is measured on one half with bands calibrated on the other, both ways. References are the
limits of the project, judged on the published test rows, and the published network trained by us from its recipe
(both on those rows: harder or easier rows move every figure alike).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from scipy.spatial.transform import Rotation

from beamline_ml.phonons import load_predictor
from beamline_ml.phonons.assembly import calibrate, evaluate
from beamline_ml.phonons.conformal import RelativeBand
from beamline_ml.phonons.dataset import Material, raw_heat_capacity
from beamline_ml.phonons.ensemble import EnsembleOutput
from beamline_ml.phonons.metrics import material_mse, point_metrics, rank_correlation
from beamline_ml.phonons.predictor import SHIPPED_WEIGHTS, Predictor
from beamline_ml.phonons.thermodynamics import displacement_kernel, heat_capacity_kernel, window_mean
from beamline_ml.phonons.windows import EDGES_INV_CM, MEV_PER_INV_CM
from beamline_ml.service.phonon_data import load_materials
from tests.benchmarks.rows import Row, row

EDGES_MEV = EDGES_INV_CM * MEV_PER_INV_CM
PUBLISHED = {
    "mse": 0.0195, "mae": 0.0750, "transport_inv_cm": 24.3, "mean_frequency_inv_cm": 16.9, "heat_capacity_300k": 0.35,
}  # fmt: skip
"""The published network, trained from its recipe, on the published test rows."""
LIMITS = {
    "mse": 0.0150, "mse_renormalised": 0.0165, "mae": 0.066, "transport_inv_cm": 17.0, "mean_frequency_inv_cm": 10.0,
    "heat_capacity_300k": 0.20,
}  # fmt: skip
UNITS = {"transport_inv_cm": "cm^-1", "mean_frequency_inv_cm": "cm^-1", "heat_capacity_300k": "J/(K mol of atoms)"}


def rows() -> list[Row]:
    """Benchmark rows of the phonons room."""
    torch.set_num_threads(1)
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    held_out = [m for m in load_materials(folder / "phonon") if m.held_out]
    predictor = load_predictor()
    output = evaluate(predictor.ensemble, held_out)
    crystals = [Atoms(m.numbers, m.positions, cell=m.cell, pbc=True) for m in held_out]
    return [
        *_accuracy(output, held_out),
        *_thermodynamics(output, held_out),
        *_uncertainty(output, held_out),
        *_exactness(predictor, crystals[:20]),
        *_cost(predictor, crystals),
    ]


def _accuracy(output: EnsembleOutput, materials: Sequence[Material]) -> list[Row]:
    figures = point_metrics(output.points.double().mean(dim=0).numpy(), np.stack([m.points for m in materials]))
    found = []
    for name in (
        "mse",
        "mse_renormalised",
        "mae",
        "r2",
        "transport_inv_cm",
        "mean_frequency_inv_cm",
        "heat_capacity_300k",
    ):
        value, unit = getattr(figures, name), UNITS.get(name, "1")
        found.append(_row(name, value, unit, "limit on the test rows", LIMITS.get(name)))
        if name in PUBLISHED:
            found.append(_row(f"{name}_published", value, unit, "published network, test rows", PUBLISHED[name]))
    return found


def _thermodynamics(output: EnsembleOutput, materials: Sequence[Material]) -> list[Row]:
    shares, found = output.shares.double().mean(dim=0).numpy(), []
    for temperature, limit in ((20.0, 0.15), (50.0, 0.05), (100.0, None), (300.0, None)):
        predicted = shares @ heat_capacity_kernel(EDGES_MEV, temperature)
        true = np.array([raw_heat_capacity(m.first_inv_cm, m.step_inv_cm, m.raw_dos, temperature) for m in materials])
        error = np.abs(predicted - true)
        name = f"heat_capacity_{temperature:.0f}k"
        found.append(_row(f"{name}_error_over_mean", error.mean() / true.mean(), "1", "stretch", limit))
        found.append(_row(f"{name}_relative_mean", (error / true).mean(), "1", "stretch", limit))
        found.append(_row(f"{name}_relative_median", float(np.median(error / true)), "1", "stretch", limit))
    true = np.stack([m.shares for m in materials]) @ displacement_kernel(EDGES_MEV, 300.0)
    error = np.abs(shares @ displacement_kernel(EDGES_MEV, 300.0) / true - 1.0)
    return [*found, _row("displacement_300k_relative_median", float(np.median(error)), "1")]


def _uncertainty(output: EnsembleOutput, materials: Sequence[Material]) -> list[Row]:
    points = output.points.double().numpy()
    error = material_mse(points.mean(axis=0), np.stack([m.points for m in materials]))
    spread = points.var(axis=0, ddof=1).mean(axis=1)
    covered: dict[str, list[float]] = {}
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(materials))
        for fit, check in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            for name, value in _coverage(output, materials, fit, check).items():
                covered.setdefault(name, []).append(value)
    return [
        _row("spread_against_error_spearman", rank_correlation(spread, error), "1", "limit (at least)", 0.65),
        *(_row(f"coverage_90_{name}", float(np.mean(values)), "1", "nominal", 0.9) for name, values in covered.items()),
    ]


def _coverage(
    output: EnsembleOutput, materials: Sequence[Material], fit: np.ndarray, check: np.ndarray
) -> dict[str, float]:
    """Share of truths inside the bands, calibrated on ``fit``, checked on ``check``."""
    calibration = calibrate(replace(output, shares=output.shares[:, fit]), [materials[i] for i in fit])
    members = output.shares.double().numpy()[:, check]
    true = np.stack([materials[i].shares for i in check])
    lower, upper = calibration.windows.band(members.mean(axis=0), members.std(axis=0, ddof=1))
    inside = (lower <= true + 1e-12) & (true <= upper + 1e-12)

    def share(band: RelativeBand, kernel: np.ndarray) -> float:
        low, high = band.band(members.mean(axis=0) @ kernel, (members @ kernel).T)
        return float(np.mean((low <= true @ kernel) & (true @ kernel <= high)))

    return {
        "windows": float(inside.mean()),
        "occupied_windows": float(inside[true > 1e-3].mean()),
        "mean_energy": share(calibration.mean_energy, window_mean(lambda energy: energy, EDGES_MEV)),
        "heat_capacity_50k": share(calibration.heat_capacity.at(50.0), heat_capacity_kernel(EDGES_MEV, 50.0)),
        "heat_capacity_300k": share(calibration.heat_capacity.at(300.0), heat_capacity_kernel(EDGES_MEV, 300.0)),
        "displacement_300k": share(calibration.displacement.at(300.0), displacement_kernel(EDGES_MEV, 300.0)),
    }


def _turned(atoms: Atoms) -> Atoms:
    matrix = -Rotation.from_euler("xyz", [0.3, 1.1, -0.4]).as_matrix()
    return Atoms(atoms.numbers, atoms.positions @ matrix.T, cell=atoms.cell.array @ matrix.T, pbc=True)


def _shifted(atoms: Atoms) -> Atoms:
    other = atoms.copy()
    other.positions += [0.71, -1.3, 5.5]
    other.wrap()
    return other


CHANGES: dict[str, Callable[[Atoms], Atoms]] = {
    "rotation_inversion": _turned,
    "translation": _shifted,
    "permutation": lambda atoms: atoms[np.random.default_rng(0).permutation(len(atoms))],
    "supercell": lambda atoms: atoms.repeat((2, 1, 1)),
}


def _exactness(predictor: Predictor, crystals: Sequence[Atoms]) -> list[Row]:
    exact, found = load_predictor(double_precision=True), []
    integral = max(abs(predictor(atoms).modes.sum() - 3 * len(atoms)) for atoms in crystals)
    found.append(_row("integral_minus_3n", float(integral), "1", "limit", 1e-6))
    for name, change in CHANGES.items():
        for label, model, limit in (("float32", predictor, 1e-5), ("float64", exact, 1e-9)):
            worst = max(float(np.abs(model(change(a)).shares - model(a).shares).max()) for a in crystals)
            found.append(_row(f"invariance_{name}_{label}", worst, "1", "limit", limit))
    return found


def _cost(predictor: Predictor, crystals: Sequence[Atoms]) -> list[Row]:
    for atoms in crystals[:5]:
        predictor(atoms)
    times = []
    for atoms in crystals:
        began = time.perf_counter()
        predictor(atoms)
        times.append(1e3 * (time.perf_counter() - began))
    code = (
        "from ase.build import bulk; from beamline_ml.phonons import load_predictor; "
        "load_predictor()(bulk('MgO', 'rocksalt', a=4.21))"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    cold = time.perf_counter() - began
    size = sum(file.stat().st_size for file in SHIPPED_WEIGHTS.parent.iterdir()) / 1e6
    return [
        _row("warm_p50_ms", float(np.quantile(times, 0.5)), "ms"),
        _row("warm_p95_ms", float(np.quantile(times, 0.95)), "ms", "limit", 50.0),
        _row("cold_process_s", cold, "s", "limit", 10.0),
        _row("weights_mb", size, "MB", "limit", 5.0),
        _row("members", len(predictor.ensemble.members), "1"),
    ]


def _row(name: str, value: float, unit: str, reference: str = "limit", limit: float | None = None) -> Row:
    return row(f"phonons_{name}", value, unit, limit, reference)


if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)

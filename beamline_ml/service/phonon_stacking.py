"""``beamline-ml phonons stack``: weigh the shipped ensemble against the teacher's labels and keep the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from safetensors.numpy import save_file

from beamline_ml.errors import DataError
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.metrics import PointMetrics, material_mse, point_metrics
from beamline_ml.phonons.opinion import SecondOpinion
from beamline_ml.phonons.predictor import Predictor
from beamline_ml.phonons.stacking import Predicted, Stacking
from beamline_ml.records import Float64Array
from beamline_ml.service.phonon_labels import load_labels

MIN_MATERIALS = 25
_FOLDS = 10


def write_stacking(predictor: Predictor, materials: Sequence[Material], labels: Path, out: Path) -> dict[str, Any]:
    """Fit the stacking on all labelled held-out materials and write it; says how it does where it was not fitted.

    Raises
    ------
    DataError
        Fewer than 25 held-out materials are labelled: weights and bands would be chance.
    """
    chosen, opinions = labelled(materials, labels)
    if len(chosen) < MIN_MATERIALS:
        raise DataError(
            f"Only {len(chosen)} held-out materials are labelled in {labels}; {MIN_MATERIALS} are needed.",
            "Label more with `beamline-ml phonons label`.",
        )
    predicted = predictions(predictor, chosen)
    stacking = Stacking.fit(predicted, opinions, chosen, predictor.version)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in stacking.to_arrays().items()},
        out,
        {"model": stacking.model, "teacher": opinions[0].source},
    )
    true = np.stack([m.points for m in chosen])
    stacked = cross_stacked(predicted, opinions, chosen, predictor.version)
    return {
        "stacking": str(out),
        "model": stacking.stacked_model,
        "materials": len(chosen),
        "stretch": stacking.stretch,
        "point_weights": stacking.point_weights.tolist(),
        "share_weights": stacking.share_weights.tolist(),
        "network": _figures(np.stack([p.points.mean(axis=0) for p in predicted]), true),
        "teacher": _figures(np.stack([o.points(stacking.stretch) for o in opinions]), true),
        "stacked_out_of_fold": _figures(stacked, true),
    }


def labelled(materials: Sequence[Material], labels: Path) -> tuple[list[Material], list[SecondOpinion]]:
    """Held-out materials that have a label, and the labels."""
    by_row = load_labels(labels)
    chosen = [m for m in materials if m.held_out and m.row in by_row]
    return chosen, [by_row[m.row] for m in chosen]


def predictions(predictor: Predictor, materials: Sequence[Material]) -> list[Predicted]:
    """What the ensemble says of each material."""
    crystals = [Atoms(m.numbers, m.positions, cell=m.cell, pbc=True) for m in materials]
    return [Predicted(dos.member_shares, dos.member_points) for dos in map(predictor, crystals)]


def cross_stacked(
    predicted: Sequence[Predicted], opinions: Sequence[SecondOpinion], materials: Sequence[Material], model: str
) -> Float64Array:
    """(n, 51) stacked points of every material, with weights fitted on the other nine tenths."""
    points = np.empty((len(materials), len(materials[0].points)))
    for k in range(_FOLDS):
        others = [i for i in range(len(materials)) if i % _FOLDS != k]
        stacking = Stacking.fit(
            [predicted[i] for i in others], [opinions[i] for i in others], [materials[i] for i in others], model
        )
        for i in range(k, len(materials), _FOLDS):
            points[i] = stacking.points(predicted[i], opinions[i])
    return points


def _figures(points: Float64Array, true: Float64Array) -> dict[str, float]:
    figures: PointMetrics = point_metrics(points, true)
    errors = material_mse(points, true)
    return {
        "mse": figures.mse,
        "mse_standard_error": float(errors.std(ddof=1) / np.sqrt(len(errors))),
        "mae": figures.mae,
        "transport_inv_cm": figures.transport_inv_cm,
        "mean_frequency_inv_cm": figures.mean_frequency_inv_cm,
        "heat_capacity_300k": figures.heat_capacity_300k,
    }

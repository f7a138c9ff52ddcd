"""From trained members to what ships: calibration on held-out materials, the map of training materials, and the
figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from beamline_ml.phonons.conformal import Calibration
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.elements import MAX_ATOMIC_NUMBER
from beamline_ml.phonons.ensemble import Ensemble, EnsembleOutput, MemberWeights, pack, unpack
from beamline_ml.phonons.graph import bond_ratios, build_graph, side_by_side
from beamline_ml.phonons.likeness import TrainingSpace
from beamline_ml.phonons.metrics import point_metrics
from beamline_ml.phonons.network import NetworkShape
from beamline_ml.records import Float64Array, IntArray

_BATCH = 32


def assemble(
    members: Sequence[MemberWeights], shape: NetworkShape, materials: Sequence[Material], version: str
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and description of a weights file.

    Parameters
    ----------
    members
        Weights of each member, all of one shape.
    materials
        Training and held-out materials; the held-out ones calibrate the bands and give the figures.
    """
    weights = pack(members)
    ensemble = Ensemble(shape, unpack(weights))
    trained, held_out = [m for m in materials if not m.held_out], [m for m in materials if m.held_out]
    fresh = evaluate(ensemble, held_out)
    calibration = calibrate(fresh, held_out)
    space = TrainingSpace.fit(
        evaluate(Ensemble(shape, unpack(weights)[:1]), trained).invariants.double().numpy(),
        fresh.invariants.double().numpy(),
        [m.name for m in trained],
        [m.formula for m in trained],
        _bond_range(trained),
        _rows_per_element(trained),
    )
    tensors = dict(weights)
    tensors |= {
        f"calibration.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in calibration.to_arrays().items()
    }
    tensors |= {f"space.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in space.to_arrays().items()}
    points = fresh.points.double().mean(dim=0).numpy()
    figures = asdict(point_metrics(points, np.stack([m.points for m in held_out])))
    about = {
        "version": version,
        "shape": shape.to_dict(),
        "names": list(space.names),
        "formulas": list(space.formulas),
        "held_out_figures": figures,
        "n_parameters": sum(value.numel() for value in members[0].values()),
    }
    return tensors, about


def evaluate(ensemble: Ensemble, materials: Sequence[Material]) -> EnsembleOutput:
    """Outputs of the ensemble for many materials, in order."""
    parts = []
    for start in range(0, len(materials), _BATCH):
        graphs = [build_graph(m.numbers, m.positions, m.cell) for m in materials[start : start + _BATCH]]
        parts.append(ensemble(side_by_side(graphs)))
    return EnsembleOutput(
        torch.cat([part.site_shares for part in parts], dim=1),
        torch.cat([part.shares for part in parts], dim=1),
        torch.cat([part.points for part in parts], dim=1),
        torch.cat([part.invariants for part in parts], dim=0),
    )


def calibrate(output: EnsembleOutput, materials: Sequence[Material]) -> Calibration:
    """Bands from the residuals on materials that no member has trained on."""
    members = output.shares.double().numpy()
    return Calibration.fit(members.mean(axis=0), members, np.stack([material.shares for material in materials]))


def _bond_range(materials: Sequence[Material]) -> Float64Array:
    ratios = np.concatenate([bond_ratios(build_graph(m.numbers, m.positions, m.cell)) for m in materials])
    return np.array([ratios.min(), ratios.max()])


def _rows_per_element(materials: Sequence[Material]) -> IntArray:
    counts = np.zeros(MAX_ATOMIC_NUMBER + 1, dtype=np.int64)
    for material in materials:
        counts[np.unique(material.numbers)] += 1
    return counts

"""Crystal in, phonon density of states out: the shipped ensemble behind one call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from safetensors import safe_open

from beamline_ml.phonons.conformal import Calibration
from beamline_ml.phonons.dos import PhononDos
from beamline_ml.phonons.ensemble import Ensemble, EnsembleOutput, unpack
from beamline_ml.phonons.graph import CrystalGraph, bond_ratios, build_graph, side_by_side
from beamline_ml.phonons.likeness import TrainingSpace
from beamline_ml.phonons.network import NetworkShape
from beamline_ml.phonons.structures import check_structure
from beamline_ml.phonons.windows import CONVENTION_LIMIT_INV_CM, EDGES_INV_CM, MEV_PER_INV_CM
from beamline_ml.records import Float64Array

SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "phonon_ensemble.safetensors"


@dataclass(frozen=True, slots=True)
class Predictor:
    """The ensemble with its calibration; call it with an ase.Atoms."""

    ensemble: Ensemble
    calibration: Calibration
    space: TrainingSpace
    version: str
    dtype: torch.dtype

    def __call__(self, atoms: Atoms) -> PhononDos:
        """Phonon density of states of one crystal.

        Parameters
        ----------
        atoms
            A periodic, fully occupied crystal of at most 400 atoms.

        Raises
        ------
        beamline_ml.errors.StructureRefused
            The crystal cannot be trusted (see ``structures.check_structure``).
        """
        return self.many([atoms])[0]

    def many(self, crystals: Sequence[Atoms]) -> list[PhononDos]:
        """Several crystals in one pass, faster than one by one; refuses if any of them is refused."""
        for atoms in crystals:
            check_structure(atoms, self.space.known_elements)
        graphs = [build_graph(a.numbers, a.get_positions(), a.cell.array, self.dtype) for a in crystals]
        output = self.ensemble(side_by_side(graphs))
        ends = np.cumsum([len(atoms) for atoms in crystals])
        return [
            self._dos(atoms, graphs[index], output, index, slice(int(end) - len(atoms), int(end)))
            for index, (atoms, end) in enumerate(zip(crystals, ends, strict=True))
        ]

    def _dos(self, atoms: Atoms, graph: CrystalGraph, output: EnsembleOutput, index: int, sites: slice) -> PhononDos:
        site_shares = _normalised(output.site_shares[:, sites].double().numpy().mean(axis=0))
        members = _normalised(output.shares[:, index].double().numpy())
        shares = _normalised(site_shares.mean(axis=0))
        lower, upper = self.calibration.windows.band(shares, members.std(axis=0, ddof=1))
        points = output.points[:, index].double().numpy()
        nearest = self.space.nearest(output.invariants[index].double().numpy())
        overflow = float(shares[EDGES_INV_CM[:-1] >= CONVENTION_LIMIT_INV_CM].sum())
        n_modes = 3.0 * len(atoms)
        return PhononDos(
            numbers=atoms.numbers.astype(np.int64),
            masses_u=atoms.get_masses(),
            edges_mev=EDGES_INV_CM * MEV_PER_INV_CM,
            modes=n_modes * shares,
            modes_lower=n_modes * lower,
            modes_upper=n_modes * upper,
            dos_51=points.mean(axis=0),
            site_modes=3.0 * site_shares,
            member_shares=members,
            member_points=points,
            nearest=nearest,
            warnings=self.space.warnings(atoms.numbers, nearest, bond_ratios(graph), overflow),
            calibration=self.calibration,
            model=self.version,
        )


def _normalised(shares: Float64Array) -> Float64Array:
    """Rows with sum 1 in float64, whatever precision the network ran in."""
    rows: Float64Array = shares / shares.sum(axis=-1, keepdims=True)
    return rows


def load_predictor(weights: Path | None = None, double_precision: bool = False) -> Predictor:
    """The predictor with the shipped weights, or those of another training.

    Parameters
    ----------
    weights
        A file written by ``beamline-ml phonons train``; by default the one in the package.
    double_precision
        Run the network in float64 (for checks; predictions agree to 1e-6).
    """
    dtype = torch.float64 if double_precision else torch.float32
    with safe_open(weights or SHIPPED_WEIGHTS, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (a safetensors file is no dict)
    arrays = {name: value.numpy() for name, value in tensors.items() if not name.startswith("member")}
    return Predictor(
        Ensemble(NetworkShape(**about["shape"]), unpack(tensors), dtype),
        Calibration.from_arrays(_under("calibration.", arrays)),
        TrainingSpace.from_arrays(_under("space.", arrays), about["names"], about["formulas"]),
        str(about["version"]),
        dtype,
    )


def _under(prefix: str, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

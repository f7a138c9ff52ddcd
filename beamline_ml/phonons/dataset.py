"""The training material: crystals with their calculated densities of states, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beamline_ml.phonons.thermodynamics import BOLTZMANN_MEV_PER_K
from beamline_ml.phonons.windows import MEV_PER_INV_CM, window_shares
from beamline_ml.records import Float64Array, IntArray

LOSS_TEMPERATURES_K = (20.0, 50.0, 100.0, 300.0)


@dataclass(frozen=True, slots=True)
class Material:
    """One crystal and what density-functional perturbation theory says of its phonons (Petretto et al. 2018)."""

    row: int
    """Row in the published table (file names sorted)."""
    name: str
    """Identifier of the source, such as mp-149."""
    formula: str
    numbers: IntArray
    """(n_atoms,) atomic numbers."""
    positions: Float64Array
    """(n_atoms, 3) in angstrom."""
    cell: Float64Array
    """(3, 3) lattice vectors as rows, in angstrom."""
    first_inv_cm: float
    """First frequency of the raw density of states."""
    step_inv_cm: float
    raw_dos: Float64Array
    """(n,) states/eV per cell."""
    points: Float64Array
    """(51,) the published target: 0, 20, ..., 1000 cm^-1, maximum 1."""
    shares: Float64Array
    """(72,) share of the modes per window."""
    heat_capacity: Float64Array
    """(n_t,) C_V/3R at LOSS_TEMPERATURES_K from the raw density of states."""
    held_out: bool
    """Whether the row belongs to the development split, which no member ever trains on."""


def materials_from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> list[Material]:
    """Records from the fields of the data file (see the file's README for their meaning).

    The development split is the published validation rows (field ``split`` = 1), so that figures can be laid beside the
    published ones.
    """
    return [_material(arrays, index) for index in range(len(arrays["row"]))]


def _material(arrays: Mapping[str, NDArray[np.generic]], index: int) -> Material:
    atoms = slice(int(arrays["offset"][index]), int(arrays["offset"][index + 1]))
    samples = slice(int(arrays["raw_offset"][index]), int(arrays["raw_offset"][index + 1]))
    dos = arrays["raw_dos"][samples].astype(np.float64)
    first, step = float(arrays["raw_f0"][index]), float(arrays["raw_df"][index])
    return Material(
        row=int(arrays["row"][index]),
        name=str(arrays["mp_id"][index]),
        formula=str(arrays["formula"][index]),
        numbers=arrays["numbers"][atoms].astype(np.int64),
        positions=arrays["positions"][atoms].astype(np.float64),
        cell=arrays["cell"][index].astype(np.float64),
        first_inv_cm=first,
        step_inv_cm=step,
        raw_dos=dos,
        points=arrays["phdos51"][index].astype(np.float64),
        shares=window_shares(first, step, dos),
        heat_capacity=np.array([raw_heat_capacity(first, step, dos, t) for t in LOSS_TEMPERATURES_K]),
        held_out=int(arrays["split"][index]) == 1,
    )


def raw_heat_capacity(first_inv_cm: float, step_inv_cm: float, dos: Float64Array, temperature_k: float) -> float:
    """C_V/3R from a raw density of states: real modes only, scaled to one."""
    frequency = first_inv_cm + step_inv_cm * np.arange(len(dos))
    real = frequency > 0.0
    weight = np.clip(dos[real], 0.0, None)
    half = np.minimum(frequency[real] * MEV_PER_INV_CM / (2.0 * BOLTZMANN_MEV_PER_K * temperature_k), 300.0)
    return float(weight @ (half / np.sinh(half)) ** 2 / weight.sum())

"""How good the guidance is: ``python -m tests.benchmarks.bench_guidance``.

Plans are made from the shipped network's prediction and held against the same formulas on the calculated density of
states of 20 crystals that no member has trained on (drawn by a fixed seed from the published validation rows; these
rows also calibrated the bands).

Advice is followed by simulated runs (``tests.guidance.campaign``) of fast, slow, bright and dim samples, one that
stands still and one that is too fast for the frames. An oracle knows how errors really shrink (scatter of fits over
realisations) and stops when the goal is reached; information beyond the goal counts for nobody. The fixed schedule is
the one that the dimmest sample needs; the equal schedule is the shortest fixed one that loses no more than the advice.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms

from beamline_ml.guidance import Goal, heat, spectrum
from beamline_ml.guidance.heating_lines import banded
from beamline_ml.guidance.scattering_lines import predicted_upper_edge_mev
from beamline_ml.phonons import PhononDos, load_predictor
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.thermodynamics import heat_capacity
from beamline_ml.phonons.windows import EDGES_INV_CM, MEV_PER_INV_CM
from beamline_ml.service.phonon_data import load_materials
from tests.benchmarks.rows import Row, row
from tests.guidance import campaign
from tests.guidance.campaign import Sample

EDGES_MEV = EDGES_INV_CM * MEV_PER_INV_CM
N_CRYSTALS = 20
SEED = 8
FACTOR = 1.5
PULSE_J_PER_M3 = 1e7
"""Absorbed by one pulse: a few K at 300 K, some tens of K at 20 K."""
LENGTHS = np.array([100, 200, 400, 800, 1600, 3200])
"""Frames at which errors are known; the last is the fixed schedule."""
GOAL = Goal(relative_error=0.05, longest_s=float(LENGTHS[-1]) * campaign.PERIOD_S)
SAMPLES = (
    *(Sample(relaxation_frames, counts) for relaxation_frames in (4.0, 12.0, 40.0) for counts in (0.05, 0.2, 1.0)),
    Sample(1e6, 0.5),
    Sample(0.25, 0.5),
)
N_REALISATIONS, N_FOLLOWED = 16, 4


def rows() -> list[Row]:
    """Benchmark rows of the guidance room."""
    torch.set_num_threads(1)
    folder = Path(os.environ.get("BEAMLINE_ML_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    held_out = [m for m in load_materials(folder / "phonon") if m.held_out]
    crystals = [Atoms(m.numbers, m.positions, cell=m.cell, pbc=True) for m in held_out]
    predictor = load_predictor()
    densities = [predictor(atoms) for atoms in crystals]
    chosen = np.random.default_rng(SEED).permutation(len(held_out))[:N_CRYSTALS]
    twenty = _from_dos([held_out[i] for i in chosen], [densities[i] for i in chosen], [crystals[i] for i in chosen])
    return [*twenty, *_from_all(held_out, densities, crystals), *_advice()]


def _from_dos(materials: Sequence[Material], densities: Sequence[PhononDos], crystals: Sequence[Atoms]) -> list[Row]:
    ratios = _heating_ratios(materials, densities, crystals)
    capacity = [
        dos.heat_capacity(300.0) / heat_capacity(EDGES_MEV, m.shares, 300.0) - 1.0
        for m, dos in zip(materials, densities, strict=True)
    ]
    edge = [
        predicted_upper_edge_mev(dos)[0] / spectrum.upper_edge_mev(EDGES_MEV, m.shares) - 1.0
        for m, dos in zip(materials, densities, strict=True)
    ]
    held = (np.abs(np.log(ratios)) <= np.log(FACTOR)).all(axis=1)
    limit = "limit (at least)"
    return [
        named("heating_bound_within_factor", int(held.sum()), "of 20", 16, limit),
        named("heat_capacity_300k_within_3_percent", int((np.abs(capacity) <= 0.03).sum()), "of 20", 16, limit),
        named("upper_edge_within_15_percent", int((np.abs(edge) <= 0.15).sum()), "of 20", 16, limit),
    ]


def _heating_ratios(
    materials: Sequence[Material], densities: Sequence[PhononDos], crystals: Sequence[Atoms]
) -> np.ndarray:
    """(n, 4) predicted over calculated: steady at 300 K and 20 K, one pulse at 300 K and at 20 K."""
    found = []
    for material, dos, atoms in zip(materials, densities, crystals, strict=True):
        n = 1e30 * len(atoms) / atoms.get_volume()
        predicted, true = (_heating(shares, n) for shares in (dos.shares, material.shares))
        found.append(predicted / true)
    return np.array(found)


def _heating(shares: np.ndarray, number_density_per_m3: float) -> np.ndarray:
    solid = (EDGES_MEV, shares, number_density_per_m3)
    steady = [1.0 / heat.conductivity_bound_w_per_m_k(*solid, t) for t in (300.0, 20.0)]
    pulse = [heat.pulse_heating_k(*solid, t, PULSE_J_PER_M3) for t in (300.0, 20.0)]
    return np.array([*steady, *pulse])


def _from_all(materials: Sequence[Material], densities: Sequence[PhononDos], crystals: Sequence[Atoms]) -> list[Row]:
    ratios = _heating_ratios(materials, densities, crystals)
    held = (np.abs(np.log(ratios)) <= np.log(FACTOR)).mean(axis=0)
    names = ("steady_300k", "steady_20k", "pulse_300k", "pulse_20k")
    edges = np.array([spectrum.upper_edge_mev(EDGES_MEV, m.shares) for m in materials])
    bands = np.array([predicted_upper_edge_mev(dos) for dos in densities])
    coverage = {
        f"conductivity_coverage_90_{t:.0f}k": _conductivity_coverage(materials, densities, t) for t in (20.0, 300.0)
    }
    coverage["upper_edge_coverage_90"] = float(((bands[:, 1] <= edges) & (edges <= bands[:, 2])).mean())
    return [
        *(named(f"{name}_share_within_factor", float(share), "1") for name, share in zip(names, held, strict=True)),
        *(named(name, value, "1", 0.9, "nominal") for name, value in coverage.items()),
    ]


def _conductivity_coverage(
    materials: Sequence[Material], densities: Sequence[PhononDos], temperature_k: float
) -> float:
    inside = []
    for material, dos in zip(materials, densities, strict=True):

        def bound(shares: np.ndarray) -> float:
            return heat.conductivity_bound_w_per_m_k(EDGES_MEV, shares, 5e28, temperature_k)

        band = banded(dos, temperature_k, bound)
        inside.append(band.lower <= bound(material.shares) <= band.upper)
    return float(np.mean(inside))


def _advice() -> list[Row]:
    wanted = GOAL.relative_error
    curves = [campaign.true_errors(sample, LENGTHS, N_REALISATIONS) for sample in SAMPLES]
    ended = [[campaign.followed(sample, GOAL, seed) for seed in range(N_FOLLOWED)] for sample in SAMPLES]
    ideal = [campaign.oracle_frames(LENGTHS, curve, wanted) for curve in curves]

    def known(frames: Sequence[float]) -> float:
        """Mean nats over the samples when each run is so long."""
        return float(
            np.mean([campaign.information(LENGTHS, c, n, wanted) for c, n in zip(curves, frames, strict=True)])
        )

    of_oracle = known(ideal)
    of_advice = float(np.mean([known(column) for column in zip(*ended, strict=True)]))
    equal = next(n for n in np.geomspace(LENGTHS[0], LENGTHS[-1], 200) if known([n] * len(SAMPLES)) >= of_advice - 1e-9)
    taken, longest = float(np.mean(ended)), float(LENGTHS[-1])
    return [
        named("advice_information_loss", 1.0 - of_advice / of_oracle, "1", 0.10, "limit (at most)"),
        named("advice_beam_time_saved", 1.0 - taken / longest, "1", 0.25, "limit (at least)"),
        named("advice_beam_time_saved_against_equal_schedule", 1.0 - taken / equal, "1"),
        named("advice_beam_time_over_oracle", taken / float(np.mean(ideal)), "1"),
    ]


def named(name: str, value: float, unit: str, limit: float | None = None, reference: str = "limit") -> Row:
    """One benchmark row; names that others ask for stay as they are, the rest begin with the room's."""
    return row(name if name.startswith(REQUIRED) else f"guidance_{name}", value, unit, limit, reference)


REQUIRED = ("heating_bound_within_factor", "advice_information_loss", "advice_beam_time_saved", "ranking_gain")
"""Beginnings of the names that others ask for."""

if __name__ == "__main__":
    json.dump(rows(), sys.stdout, indent=1)

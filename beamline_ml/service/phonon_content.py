"""A predicted density of states as a result in tiled (spec ``PhononDOS``) and in the artifact that people see."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from beamline_ml.phonons import PhononDos
from beamline_ml.results.content import ResultArray, ResultContent, ResultTable
from beamline_ml.results.identity import json_safe, sample_in_key
from beamline_ml.service.phonon_samples import CatalogueSample

SPEC = "PhononDOS"
CONTAINER = "phonons"
"""Below ``results/``: predictions belong to samples, not to runs."""
TEMPERATURES_K = (5.0, 10.0, 20.0, 50.0, 77.0, 100.0, 150.0, 200.0, 250.0, 300.0, 400.0, 600.0, 800.0)
ROOM_K = 300.0


def identity(sample: CatalogueSample, model: str) -> str:
    """What makes this prediction this one: sample, structure and weights."""
    return hashlib.sha256(f"{sample.structure_id} {model}".encode()).hexdigest()[:16]


def phonon_content(sample: CatalogueSample, dos: PhononDos, flow_run_id: str | None) -> ResultContent:
    """Everything that is published for one sample."""
    result_id = identity(sample, dos.model)
    formula = str(sample.entry.get("composition") or sample.entry.get("formula") or "")
    metadata = {
        "technique": "phonon-dos",
        "result_id": result_id,
        "request_id": result_id,
        "sample": {"name": sample.name, "composition": formula, "structure_id": sample.structure_id},
        "run_uids": list(sample.run_uids),
        "model": dos.model,
        "flow_run_id": flow_run_id,
        "nearest": {"name": dos.nearest.name, "formula": dos.nearest.formula, "distance": dos.nearest.distance},
        "imaginary_share": dos.imaginary_share,
        "second_opinion": dos.second_opinion,
        "warnings": list(dos.warnings),
        "headline": headline(dos),
    }
    key = f"{sample_in_key(sample.name)}_{result_id[:8]}"
    return ResultContent(result_id, key, json_safe(metadata), _arrays(dos), _tables(dos), SPEC)


def headline(dos: PhononDos) -> dict[str, Any]:
    """The few numbers that people ask for first."""
    capacity_low, capacity_high = dos.heat_capacity_band(ROOM_K)
    energy_low, energy_high = dos.mean_energy_band_mev()
    return {
        "mean_energy_mev": dos.mean_energy_mev,
        "mean_energy_mev_band": [energy_low, energy_high],
        "heat_capacity_300k_j_per_k_mol": dos.heat_capacity(ROOM_K),
        "heat_capacity_300k_band": [capacity_low, capacity_high],
        "debye_temperature_k": {str(moment): dos.debye_temperature(moment) for moment in (-2, 0, 2)},
        "spread": dos.spread,
    }


def _arrays(dos: PhononDos) -> tuple[ResultArray, ...]:
    return (
        ResultArray("site_modes", dos.site_modes, ("site", "window"), "1", "modes of each site in each window; sum 3"),
        ResultArray("dos_51", dos.dos_51, ("point",), "1", "published convention: 0, 20, ..., 1000 cm^-1, maximum 1"),
    )


def _tables(dos: PhononDos) -> tuple[ResultTable, ...]:
    bands = np.array([dos.heat_capacity_band(t) for t in TEMPERATURES_K])
    thermal: dict[str, Any] = {
        "temperature_k": list(TEMPERATURES_K),
        "heat_capacity_j_per_k_mol": [dos.heat_capacity(t) for t in TEMPERATURES_K],
        "heat_capacity_lower": bands[:, 0],
        "heat_capacity_upper": bands[:, 1],
        "entropy_j_per_k_mol": [dos.entropy(t) for t in TEMPERATURES_K],
    }
    windows: dict[str, Any] = {
        "energy_lower_mev": dos.edges_mev[:-1],
        "energy_upper_mev": dos.edges_mev[1:],
        "modes": dos.modes,
        "modes_lower": dos.modes_lower,
        "modes_upper": dos.modes_upper,
    }
    low, high = dos.mean_square_displacement_band(ROOM_K)
    sites: dict[str, Any] = {
        "element": [chemical_symbols[number] for number in dos.numbers],
        "displacement_300k_angstrom2": dos.mean_square_displacement(ROOM_K),
        "displacement_300k_lower": low,
        "displacement_300k_upper": high,
        "b_factor_300k_angstrom2": dos.b_factor(ROOM_K),
    }
    return (
        ResultTable("windows", windows, "modes of the cell in each energy window, sum 3N, with 90 % band"),
        ResultTable("thermodynamics", thermal, "harmonic heat capacity and entropy per mol of atoms, with 90 % band"),
        ResultTable("sites", sites, "mean-square displacement along one direction of every site, with 90 % band"),
    )


def markdown(predicted: Mapping[str, PhononDos], refused: Mapping[str, str], unchanged: int) -> str:
    """Artifact: what was predicted, with a picture; what was refused, and why."""
    lines = [
        f"# Phonon densities of states: {len(predicted)} predicted, {unchanged} unchanged, {len(refused)} refused",
        *([f"![densities of states]({picture(predicted)})"] if predicted else []),
        "| sample | mean energy (meV) | C_V at 300 K (J/(K mol atoms)) | most like | notes |\n|---|---|---|---|---|\n"
        + "\n".join(_row(name, dos) for name, dos in predicted.items()),
        *(f"**Refused**: {reason}" for reason in refused.values()),
    ]
    return "\n\n".join(lines)


def _row(name: str, dos: PhononDos) -> str:
    low, high = dos.heat_capacity_band(ROOM_K)
    capacity = f"{dos.heat_capacity(ROOM_K):.2f} ({low:.2f} to {high:.2f})"
    return f"| {name} | {dos.mean_energy_mev:.1f} | {capacity} | {dos.nearest.formula} | {'; '.join(dos.warnings)} |"


def picture(predicted: Mapping[str, PhononDos], most: int = 6) -> str:
    """The first few densities with their bands, as a PNG in a data address."""
    shown = list(predicted.items())[:most]
    figure = Figure(figsize=(8.0, 1.6 * len(shown)), layout="constrained")
    panels: Any = np.atleast_1d(figure.subplots(len(shown), 1, sharex=True))
    for axes, (name, dos) in zip(panels, shown, strict=True):
        width = np.diff(dos.edges_mev)
        axes.stairs(dos.modes_upper / width, dos.edges_mev, baseline=dos.modes_lower / width, fill=True, alpha=0.25)
        axes.stairs(dos.modes / width, dos.edges_mev)
        axes.set_ylabel("modes/meV")
        axes.set_title(name, loc="left", fontsize=9)
    panels[-1].set_xlim(0.0, max(_highest_mev(dos) for _, dos in shown))
    panels[-1].set_xlabel("phonon energy (meV)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _highest_mev(dos: PhononDos) -> float:
    """Energy below which 99.5 % of the modes lie, and a little more."""
    beyond = int(np.searchsorted(np.cumsum(dos.shares), 0.995))
    return 1.1 * float(dos.edges_mev[min(beyond + 1, len(dos.edges_mev) - 1)])

"""What the command line does for ``beamline-ml phonons fetch | train | predict``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from beamline_ml.errors import StructureRefused
from beamline_ml.phonons import PhononDos, load_predictor, structure_from_text
from beamline_ml.results.identity import json_safe
from beamline_ml.service.phonon_content import TEMPERATURES_K, headline


def fetch(folder: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Get the training data into ``folder``; says where the data file lies."""
    from beamline_ml.service import phonon_fetch

    return {"data": str(phonon_fetch.fetch(folder, report=report))}


def train(
    data: Path,
    out: Path,
    report: Callable[[str], None],
    seed: int = 0,
    members: int = 8,
    minutes: float | None = None,
    processes: int = 2,
) -> dict[str, Any]:
    """Train the ensemble from a data file (or its folder); says where the weights lie."""
    from beamline_ml.service import phonon_training

    weights = phonon_training.train(data, out, seed, members, minutes, processes, report=report)
    return {"weights": str(weights), "card": str(weights.parent / phonon_training.CARD_FILE)}


def predict(files: Sequence[Path], weights: Path | None = None) -> list[dict[str, Any]]:
    """Prediction for every CIF file; a file that is refused says why, and the others are done."""
    predictor = load_predictor(weights)
    answers: list[dict[str, Any]] = []
    for file in files:
        try:
            dos = predictor(structure_from_text(_text(file), name=file.name))
        except StructureRefused as refusal:
            answers.append({"file": str(file), "refused": refusal.culprit, "remedy": refusal.remedy})
        else:
            answers.append({"file": str(file), **_answer(dos)})
    return answers


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StructureRefused(f"{file} cannot be read ({error}).", "Give the path of a CIF file.") from error


def _answer(dos: PhononDos) -> dict[str, Any]:
    answer: dict[str, Any] = json_safe(
        {
            **headline(dos),
            "edges_mev": dos.edges_mev,
            "modes": dos.modes,
            "modes_lower": dos.modes_lower,
            "modes_upper": dos.modes_upper,
            "temperature_k": TEMPERATURES_K,
            "heat_capacity_j_per_k_mol": [dos.heat_capacity(t) for t in TEMPERATURES_K],
            "displacement_300k_angstrom2": dos.mean_square_displacement(300.0),
            "nearest": {"name": dos.nearest.name, "formula": dos.nearest.formula, "distance": dos.nearest.distance},
            "imaginary_share": dos.imaginary_share,
            "warnings": dos.warnings,
            "model": dos.model,
        }
    )
    return answer

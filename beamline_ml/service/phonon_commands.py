"""What the command line does for ``beamline-ml phonons fetch | train | predict | label | stack``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beamline_ml.errors import StructureRefused
from beamline_ml.phonons import PhononDos, load_predictor, structure_from_text
from beamline_ml.results.identity import json_safe
from beamline_ml.service.phonon_content import TEMPERATURES_K, headline

if TYPE_CHECKING:
    from beamline_ml.service.phonon_teacher import SecondOpinions


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


def label(
    data: Path, out: Path, report: Callable[[str], None], training: bool = False, count: int | None = None
) -> dict[str, Any]:
    """Second opinions on the held-out materials of the data (or the training ones), in random order."""
    from beamline_ml.service.phonon_data import load_materials
    from beamline_ml.service.phonon_labels import in_random_order, label
    from beamline_ml.service.phonon_teacher import load_teacher

    materials = [m for m in load_materials(data) if m.held_out is not training]
    return {"labels": str(label(in_random_order(materials, seed=0)[:count], out, load_teacher(), report))}


def stack(data: Path, labels: Path, out: Path, weights: Path | None = None) -> dict[str, Any]:
    """Weigh the network against the second opinions on the held-out materials; says how both and the stack do."""
    from beamline_ml.service.phonon_data import load_materials
    from beamline_ml.service.phonon_stacking import write_stacking

    return write_stacking(load_predictor(weights), load_materials(data), labels, out)


def predict(files: Sequence[Path], weights: Path | None = None, second_opinion: bool = False) -> list[dict[str, Any]]:
    """Prediction for every CIF file; a file that is refused says why, and the others are done."""
    predictor = load_predictor(weights)
    opinions = _opinions() if second_opinion else None
    answers: list[dict[str, Any]] = []
    for file in files:
        try:
            atoms = structure_from_text(_text(file), name=file.name)
            dos = predictor(atoms) if opinions is None else opinions(atoms, predictor(atoms))
        except StructureRefused as refusal:
            answers.append({"file": str(file), "refused": refusal.culprit, "remedy": refusal.remedy})
        else:
            answers.append({"file": str(file), **_answer(dos)})
    return answers


def _opinions() -> SecondOpinions:
    from beamline_ml.service.phonon_teacher import SecondOpinions

    return SecondOpinions.open()


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
            "second_opinion": dos.second_opinion,
            "warnings": dos.warnings,
            "model": dos.model,
        }
    )
    return answer

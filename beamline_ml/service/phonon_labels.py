"""The label factory: second opinions for many materials, one line of a file each, in as many sittings as it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms

from beamline_ml.errors import DataError, OpinionRefused
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.opinion import SecondOpinion

LABELS_FILE = "teacher_labels.jsonl"
_DIGITS = 5


class GivesOpinions(Protocol):
    """What a teacher must be able to do."""

    def __call__(self, atoms: Atoms) -> SecondOpinion:
        """Density of states of a crystal, or OpinionRefused."""
        ...


def label(
    materials: Sequence[Material],
    out_dir: Path,
    teacher: GivesOpinions,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Ask the teacher about every material that is not in the file yet; refusals are kept as well.

    Returns
    -------
    Path of the file: a JSON object a line, with ``row`` and either ``dos`` and what belongs to it or ``refused``.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    file = out_dir / LABELS_FILE
    _drop_cut_off_line(file)
    known = {entry["row"] for entry in _entries(file)} if file.is_file() else set()
    missing = [material for material in materials if material.row not in known]
    report(f"{len(materials)} materials, {len(materials) - len(missing)} labelled already")
    for count, material in enumerate(missing, start=1):
        entry = _entry(material, teacher)
        with file.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")
        said = entry.get("refused") or f"{entry['seconds']:.1f} s"
        report(f"{count}/{len(missing)}: row {material.row}, {material.formula}: {said}")
    return file


def load_labels(file: Path) -> dict[int, SecondOpinion]:
    """Second opinions by row; rows that were refused are left out.

    Raises
    ------
    DataError
        No such file, or a line of it is no label.
    """
    if not file.is_file():
        raise DataError(f"There are no labels in {file}.", "Make them with `beamline-ml phonons label`.")
    return {entry["row"]: _opinion(entry) for entry in _entries(file) if "refused" not in entry}


def in_random_order(materials: Sequence[Material], seed: int) -> list[Material]:
    """The materials shuffled, so that a factory that was stopped early leaves a fair sample."""
    order = np.random.default_rng(seed).permutation(len(materials))
    return [materials[index] for index in order]


def _drop_cut_off_line(file: Path) -> None:
    """A labelling that was killed while it wrote leaves a line without its end; that material is asked again."""
    text = file.read_text() if file.is_file() else ""
    if text and not text.endswith("\n"):
        file.write_text(text[: text.rfind("\n") + 1])


def _entry(material: Material, teacher: GivesOpinions) -> dict[str, Any]:
    try:
        opinion = teacher(Atoms(material.numbers, material.positions, cell=material.cell, pbc=True))
    except OpinionRefused as refusal:
        return {"row": material.row, "refused": str(refusal)}
    return {
        "row": material.row,
        "step_inv_cm": opinion.step_inv_cm,
        "dos": [float(f"{value:.{_DIGITS}g}") for value in opinion.dos],
        "imaginary_share": opinion.imaginary_share,
        "seconds": round(opinion.seconds, 2),
        "source": opinion.source,
    }


def _entries(file: Path) -> list[dict[str, Any]]:
    lines = file.read_text().splitlines()
    try:
        return [json.loads(line) for line in lines if line]
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file} holds a line that is no label ({error}).", "Delete that line and label again: it goes on there."
        ) from error


def _opinion(entry: dict[str, Any]) -> SecondOpinion:
    return SecondOpinion(
        entry["step_inv_cm"], np.array(entry["dos"]), entry["imaginary_share"], entry["seconds"], entry["source"]
    )

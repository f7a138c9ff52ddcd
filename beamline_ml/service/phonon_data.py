"""Files of the phonon training set: read the data file, or make it from the public originals.

The data file holds arrays only (a numpy archive without pickles); its fields become ``phonons.dataset.Material``
records.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from beamline_ml.errors import DataError
from beamline_ml.phonons.dataset import Material, materials_from_arrays
from beamline_ml.phonons.opinion import published_points
from beamline_ml.phonons.structures import structure_from_text
from beamline_ml.phonons.windows import POINTS_INV_CM

DATA_FILE = "phonon_dfpt_dev1332.npz"
_FIELDS = (
    "row", "mp_id", "formula", "offset", "numbers", "positions", "cell", "phdos51", "raw_offset", "raw_f0", "raw_df",
    "raw_dos", "split",
)  # fmt: skip


def load_materials(path: Path) -> list[Material]:
    """Materials of a data file, or of the data file in a folder.

    Raises
    ------
    DataError
        No such file, or it is not the archive that ``beamline-ml phonons fetch`` makes.
    """
    return materials_from_arrays(load_arrays(path))


def load_arrays(path: Path) -> dict[str, Any]:
    """The arrays of a data file, unchanged."""
    file = path / DATA_FILE if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"There is no phonon data file {file}.",
            "Get it with `beamline-ml phonons fetch`, or point to a folder that holds it.",
        )
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise DataError(
            f"{file} cannot be read ({error}).", "Fetch it again with `beamline-ml phonons fetch`."
        ) from error
    missing = [name for name in _FIELDS if name not in arrays]
    if missing:
        raise DataError(f"{file} lacks {', '.join(missing)}.", "Fetch it again with `beamline-ml phonons fetch`.")
    return arrays


def arrays_from_originals(originals: Iterable[tuple[int, int, bytes]]) -> dict[str, Any]:
    """Arrays of the data file from the raw JSON files.

    Parameters
    ----------
    originals
        (row in the published table, split: 0 train or 1 validation, content of the JSON file), sorted by row.
    """
    records = [_record(row, split, json.loads(content)) for row, split, content in originals]
    columns: dict[str, Any] = {
        name: np.array([record[name] for record in records])
        for name in ("row", "split", "mp_id", "formula", "natoms", "cell", "phdos51", "raw_f0", "raw_df")
    }
    columns |= {
        name: np.concatenate([record[name] for record in records]) for name in ("numbers", "positions", "raw_dos")
    }
    columns["offset"] = _starts([len(record["numbers"]) for record in records])
    columns["raw_offset"] = _starts([len(record["raw_dos"]) for record in records])
    columns["phfreq"] = POINTS_INV_CM
    return columns


def _record(row: int, split: int, content: Mapping[str, Any]) -> dict[str, Any]:
    metadata, phonon = content["metadata"], content["phonon"]
    atoms: Atoms = structure_from_text(metadata["structure"], name=str(metadata["material_id"]))
    frequencies = np.asarray(phonon["dos_frequencies"], dtype=np.float64)
    dos = np.asarray(phonon["ph_dos"], dtype=np.float64)
    return {
        "row": row,
        "split": split,
        "mp_id": str(metadata["material_id"]),
        "formula": str(metadata["formula"]),
        "natoms": len(atoms),
        "numbers": atoms.numbers.astype(np.int16),
        "positions": atoms.get_positions(),
        "cell": atoms.cell.array,
        "phdos51": published_points(frequencies, dos).astype(np.float32),
        "raw_f0": frequencies[0],
        "raw_df": (frequencies[-1] - frequencies[0]) / (len(frequencies) - 1),
        "raw_dos": dos.astype(np.float32),
    }


def _starts(lengths: list[int]) -> Any:
    return np.concatenate([[0], np.cumsum(lengths)])

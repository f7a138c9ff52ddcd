"""Which samples the catalogue knows, and which of them a phonon density of states can be predicted for.

A sample is what start documents say under ``sample``, or a node of the container ``samples/``. Its structure is the
text of a CIF file (``cif``) or an ASE-like description (``structure`` with symbols or numbers, cell, and positions or
scaled_positions); a file name is not followed, for documents come from anyone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import Atoms

from beamline_ml.errors import StructureRefused
from beamline_ml.phonons.structures import check_structure, structure_from_text

SAMPLES = "samples"
_ID_LENGTH = 16


@dataclass(frozen=True, slots=True)
class CatalogueSample:
    """One sample with one structure, and the runs that were made of it."""

    name: str
    entry: dict[str, Any]
    """What the catalogue says of it."""
    run_uids: tuple[str, ...] = field(default=())

    @property
    def has_structure(self) -> bool:
        """Whether a structure is given at all; a composition alone is not one."""
        return bool(self.entry.get("cif") or self.entry.get("structure"))

    @property
    def structure_id(self) -> str:
        """Digest of name and structure: a changed structure is another prediction."""
        told = {"name": self.name, "cif": self.entry.get("cif"), "structure": self.entry.get("structure")}
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:_ID_LENGTH]

    def atoms(self) -> Atoms:
        """The crystal.

        Raises
        ------
        StructureRefused
            It cannot be read, or lies outside what can be predicted whatever the network.
        """
        cif = self.entry.get("cif")
        if cif:
            return structure_from_text(str(cif), name=self.name)
        atoms = _from_description(self.entry.get("structure"), self.name)
        check_structure(atoms, name=self.name)
        return atoms


def catalogued_samples(raw: Any, samples: Any | None = None) -> list[CatalogueSample]:
    """Samples with a structure, each once, in order of their names.

    Parameters
    ----------
    raw
        tiled's client of the runs.
    samples
        tiled's client of the container ``samples/``, where there is one.
    """
    found: dict[str, CatalogueSample] = {}
    for uid, run in raw.items():
        start = run.metadata.get("start", {})
        _gather(found, start.get("sample"), uid)
    for key, node in samples.items() if samples is not None else ():
        _gather(found, {"name": key, **dict(node.metadata)}, None)
    return sorted(found.values(), key=lambda sample: (sample.name, sample.structure_id))


def _gather(found: dict[str, CatalogueSample], entry: Any, run_uid: str | None) -> None:
    """Add what one document says; the same sample with the same structure gathers its runs."""
    if not isinstance(entry, Mapping):
        return
    sample = CatalogueSample(str(entry.get("name") or "unnamed"), dict(entry))
    if not sample.has_structure:
        return
    known = found.setdefault(sample.structure_id, sample)
    if run_uid is not None:
        found[sample.structure_id] = replace(known, run_uids=tuple(sorted({*known.run_uids, run_uid})))


def _from_description(described: Any, name: str) -> Atoms:
    if not isinstance(described, Mapping):
        raise StructureRefused(f"The structure of {name} is no description.", "Give symbols, cell and positions.")
    _check_occupancies(described, name)
    kinds = described.get("numbers") if described.get("numbers") is not None else described.get("symbols")
    place = "positions" if described.get("positions") is not None else "scaled_positions"
    try:
        cell = np.asarray(described["cell"], dtype=np.float64)
        where = np.asarray(described[place], dtype=np.float64).reshape(-1, 3)
        return Atoms(kinds, cell=cell, pbc=described.get("pbc", True), **{place: where})
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise StructureRefused(
            f"The structure of {name} cannot be read ({type(error).__name__}: {error}).",
            "Give numbers or symbols, cell (3 x 3, angstrom), and positions or scaled_positions of every atom.",
        ) from error


def _check_occupancies(described: Mapping[str, Any], name: str) -> None:
    """A description may say how full its sites are; anything but full (or what cannot be read) is refused."""
    for key in [key for key in described if str(key).lower().startswith("occupanc")]:
        shares = described[key]
        try:
            full = np.allclose(np.asarray(shares, dtype=np.float64), 1.0, atol=1e-3)
        except (TypeError, ValueError):
            full = False
        if not full:
            raise StructureRefused(
                f"The structure of {name} has partially occupied sites ({key}: {str(shares)[:60]}).",
                "Give an ordered approximant; a phonon density of an average atom is none.",
            )


def readable(samples: Iterable[CatalogueSample]) -> tuple[list[tuple[CatalogueSample, Atoms]], dict[str, str]]:
    """Samples with their crystals, and by name those refused with the reason."""
    crystals, refused = [], {}
    for sample in samples:
        try:
            crystals.append((sample, sample.atoms()))
        except StructureRefused as refusal:
            refused[sample.name] = str(refusal)
    return crystals, refused

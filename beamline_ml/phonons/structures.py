"""What the network may be asked: a crystal that can be read and lies within what can be trusted, or a refusal with
the reason."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Collection

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io import read

from beamline_ml.errors import StructureRefused
from beamline_ml.records import Float64Array, IntArray

MAX_ATOMS = 400
MIN_CONTACT_ANGSTROM = 1.0
MIN_HYDROGEN_BOND_ANGSTROM = 0.9
"""Bonds of hydrogen to another element may be this short: O-H is 0.97 angstrom in the hydroxides of the training
data."""
MAX_VOLUME_PER_ATOM_ANGSTROM3 = 200.0


def structure_from_text(text: str, name: str = "the structure") -> Atoms:
    """Crystal from the text of a CIF file.

    Raises
    ------
    StructureRefused
        The text is no CIF with one fully occupied, periodic crystal.
    """
    try:
        with warnings.catch_warnings():
            # The reader warns of missing symmetry entries and odd settings; what matters is checked below.
            warnings.simplefilter("ignore")
            atoms = read(io.StringIO(text), format="cif")
    except (
        ValueError,
        KeyError,
        IndexError,
        AssertionError,
        TypeError,
        RuntimeError,
        StopIteration,
        AttributeError,
    ) as error:
        raise StructureRefused(
            f"{name} is not a readable CIF ({type(error).__name__}: {error}).",
            "Give a complete CIF with cell, symmetry and atom sites; check that it opens in VESTA or ase.",
        ) from error
    if not isinstance(atoms, Atoms) or len(atoms) == 0:
        raise StructureRefused(f"{name} holds no atoms.", "Give a CIF with an atom_site loop.")
    check_structure(atoms, name=name)
    _check_formula(atoms, text, name)
    return atoms


def _check_formula(atoms: Atoms, text: str, called: str) -> None:
    """A file that was cut off still reads, with sites missing: the formula it states gives it away."""
    stated = re.search(r"_chemical_formula_sum\s+(?:'([^']*)'|\"([^\"]*)\"|(\S+))", text)
    if stated is None:
        return
    formula = next(group for group in stated.groups() if group is not None)
    wanted = {symbol: float(count or 1.0) for symbol, count in re.findall(r"([A-Z][a-z]?)([\d.]*)", formula)}
    found = {symbol: float(count) for symbol, count in atoms.symbols.formula.count().items()}
    ratios = [found.get(symbol, 0.0) / count for symbol, count in wanted.items() if count > 0.0]
    if set(found) != set(wanted) or max(ratios) - min(ratios) > 0.01 * max(ratios) or min(ratios) < 0.99:
        raise StructureRefused(
            f"{called} states the formula {formula}, but its sites give {atoms.get_chemical_formula()}.",
            "The file is incomplete or its symmetry is wrong: export it again.",
        )


def check_structure(atoms: Atoms, known_elements: Collection[int] | None = None, name: str | None = None) -> None:
    """Refuse a crystal of which no density of states can honestly be predicted.

    Parameters
    ----------
    atoms
        The crystal.
    known_elements
        Atomic numbers that the network has seen; None skips this check.
    name
        How to call the crystal in a refusal; by default its formula.

    Raises
    ------
    StructureRefused
        Not periodic, no volume, not finite, too large, partially occupied, unknown elements, atoms too close or too
        far apart.
    """
    called = name or (atoms.get_chemical_formula() if len(atoms) else "the structure")
    _check_periodic(atoms, called)
    _check_size(atoms, called)
    _check_occupancy(atoms, called)
    if known_elements is not None:
        _check_elements(atoms, known_elements, called)
    _check_contacts(atoms, called)


def _check_periodic(atoms: Atoms, called: str) -> None:
    if len(atoms) == 0:
        raise StructureRefused(f"{called} holds no atoms.", "Give a crystal with at least one atom.")
    if not all(atoms.pbc):
        raise StructureRefused(
            f"{called} is not periodic in all three directions.",
            "The network knows bulk crystals only: set pbc=True if this is one; molecules and surfaces are refused.",
        )
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise StructureRefused(f"{called} has positions or a cell that are not finite.", "Repair the structure file.")
    if abs(np.linalg.det(atoms.cell.array)) < 1.0:
        raise StructureRefused(f"{called} has a cell without volume.", "Give three independent lattice vectors.")


def _check_size(atoms: Atoms, called: str) -> None:
    if len(atoms) > MAX_ATOMS:
        raise StructureRefused(
            f"{called} has {len(atoms)} atoms; at most {MAX_ATOMS} are allowed.", "Give the primitive cell."
        )
    volume = abs(np.linalg.det(atoms.cell.array)) / len(atoms)
    if volume > MAX_VOLUME_PER_ATOM_ANGSTROM3:
        raise StructureRefused(
            f"{called} has {volume:.0f} cubic angstrom per atom, which is no dense crystal.",
            "Check the cell; molecules in vacuum and missing atom sites look like this.",
        )


def _check_occupancy(atoms: Atoms, called: str) -> None:
    for site in (atoms.info.get("occupancy") or {}).values():
        if len(site) > 1 or any(abs(float(share) - 1.0) > 1e-3 for share in site.values()):
            shares = ", ".join(f"{symbol} {float(share):g}" for symbol, share in site.items())
            raise StructureRefused(
                f"{called} has a partially occupied site ({shares}).",
                "Give an ordered approximant; a phonon density of an average atom is none.",
            )


def _check_elements(atoms: Atoms, known: Collection[int], called: str) -> None:
    unknown = sorted(set(atoms.numbers.tolist()) - set(known))
    if unknown:
        symbols = ", ".join(chemical_symbols[number] if number else "an unnamed element" for number in unknown)
        raise StructureRefused(
            f"{called} contains {symbols}, which the training data do not.",
            "No prediction can be trusted here: measure or calculate, or train on data with these elements.",
        )


def _check_contacts(atoms: Atoms, called: str) -> None:
    i, j, distance = _close_pairs(atoms.get_positions(), atoms.cell.array)
    one_hydrogen = (atoms.numbers[i] == 1) != (atoms.numbers[j] == 1)
    limit = np.where(one_hydrogen, MIN_HYDROGEN_BOND_ANGSTROM, MIN_CONTACT_ANGSTROM)
    refused = np.flatnonzero(distance < limit)
    if len(refused):
        k = refused[np.argmin(distance[refused])]
        raise StructureRefused(
            f"{called} has {atoms.symbols[int(i[k])]} (site {int(i[k])}) and "
            f"{atoms.symbols[int(j[k])]} (site {int(j[k])}) {distance[k]:.2f} angstrom apart, "
            f"closer than {limit[k]:g} angstrom.",
            "Remove duplicated sites or split positions; such contacts are not physical.",
        )


def _close_pairs(positions: Float64Array, cell: Float64Array) -> tuple[IntArray, IntArray, Float64Array]:
    # vesin imports torch where it is installed; readers of records and structures do not pay for that.
    from vesin import NeighborList

    finder = NeighborList(cutoff=MIN_CONTACT_ANGSTROM, full_list=False)
    i, j, distance = finder.compute(points=positions, box=cell, periodic=True, quantities="ijd")
    return np.asarray(i, dtype=np.int64), np.asarray(j, dtype=np.int64), np.asarray(distance)

"""Crystals that are let through, and every kind of refusal."""

from __future__ import annotations

import io

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write

from beamline_ml.errors import StructureRefused
from beamline_ml.phonons.structures import check_structure, structure_from_text

KNOWN = frozenset({1, 3, 8, 11, 14, 17})


def cif(atoms: Atoms) -> str:
    buffer = io.BytesIO()
    write(buffer, atoms, format="cif")
    return buffer.getvalue().decode()


def rock_salt() -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.64)


def test_cif_is_read_as_written() -> None:
    atoms = structure_from_text(cif(rock_salt()))
    assert sorted(atoms.get_chemical_symbols()) == ["Cl", "Na"]
    assert abs(atoms.get_volume() - rock_salt().get_volume()) < 1e-3


def test_a_sound_crystal_passes() -> None:
    check_structure(rock_salt(), KNOWN)


def test_hydroxide_bond_of_ordinary_length_passes() -> None:
    crystal = Atoms("LiOH", positions=[(0, 0, 0), (1.9, 0, 0), (2.87, 0, 0)], cell=[4.5, 3.6, 3.6], pbc=True)
    check_structure(crystal, KNOWN)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no crystal here",
        "data_x\n_cell_length_a 4.0\n",
        "data_x\nloop_\n _atom_site_label\n _atom_site_fract_x\n Si 0.0\n",
    ],
)
def test_broken_cif_is_refused(text: str) -> None:
    with pytest.raises(StructureRefused, match="sample-7"):
        structure_from_text(text, name="sample-7")


def test_truncated_cif_is_refused_or_whole_never_less() -> None:
    whole = cif(bulk("NaCl", "rocksalt", a=5.64, cubic=True))
    for length in range(0, len(whole) - 60, 37):
        with pytest.raises(StructureRefused):
            structure_from_text(whole[:length])


def test_partial_occupancy_is_refused() -> None:
    text = cif(rock_salt())
    text = text.replace(" 1.0000\n", " 0.5000\n")
    assert "0.5000" in text
    with pytest.raises(StructureRefused, match="partially occupied"):
        structure_from_text(text)


def test_unknown_element_is_refused_by_name() -> None:
    with pytest.raises(StructureRefused, match="Gd"):
        check_structure(bulk("Gd", "hcp", a=3.63, c=5.78), KNOWN)
    dummy = Atoms("XCl", positions=[(0, 0, 0), (2.8, 0, 0)], cell=[5.6, 4, 4], pbc=True)
    with pytest.raises(StructureRefused, match="unnamed"):
        check_structure(dummy, KNOWN)


def test_contact_is_refused_also_across_the_cell_boundary() -> None:
    across = Atoms("NaCl", positions=[(0.1, 2, 2), (4.5, 2, 2)], cell=[5.0, 4.0, 4.0], pbc=True)
    with pytest.raises(StructureRefused, match=r"0.60 angstrom"):
        check_structure(across, KNOWN)
    onto_itself = Atoms("Na", positions=[(0, 0, 0)], cell=[0.8, 6.0, 6.0], pbc=True)
    with pytest.raises(StructureRefused, match=r"0.80 angstrom"):
        check_structure(onto_itself, KNOWN)


def test_hydrogen_on_hydrogen_is_held_to_one_angstrom() -> None:
    crystal = Atoms("H2", positions=[(0, 0, 0), (0.95, 0, 0)], cell=[4.0, 4.0, 4.0], pbc=True)
    with pytest.raises(StructureRefused, match=r"0.95 angstrom"):
        check_structure(crystal, KNOWN)


@pytest.mark.parametrize(
    ("atoms", "reason"),
    [
        (molecule("CH3CH2OH"), "not periodic"),
        (Atoms("Si", cell=[4, 4, 4], pbc=(True, True, False)), "not periodic"),
        (Atoms(), "no atoms"),
        (Atoms("Si", cell=[4, 4, 0], pbc=True), "without volume"),
        (Atoms("Si", positions=[(np.nan, 0, 0)], cell=[4, 4, 4], pbc=True), "not finite"),
        (bulk("Si", "diamond", a=5.43).repeat((6, 6, 6)), "432 atoms"),
        (Atoms("Si", cell=[20, 20, 20], pbc=True), "no dense crystal"),
    ],
)
def test_what_is_no_ordinary_crystal_is_refused(atoms: Atoms, reason: str) -> None:
    with pytest.raises(StructureRefused, match=reason):
        check_structure(atoms)

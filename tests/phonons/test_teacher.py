"""The teacher: for real where its extra is installed; what it plans, what it refuses, and what is said without it."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from beamline_ml.errors import DataError, OpinionRefused, TeacherMissing
from beamline_ml.phonons.dataset import Material, materials_from_arrays
from beamline_ml.phonons.opinion import SecondOpinion
from beamline_ml.service.phonon_commands import predict
from beamline_ml.service.phonon_labels import in_random_order, label, load_labels
from beamline_ml.service.phonon_teacher import (
    MAX_SUPERCELL_ATOMS,
    SecondOpinions,
    Teacher,
    load_teacher,
    supercell_counts,
)

needs_extra = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("sevenn", "phonopy", "spglib")),
    reason="the teacher is not installed: pip install -c constraints.txt 'beamline-ml[teacher]'",
)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher()


def rock_salt(cubic: bool = False) -> Atoms:
    return bulk("NaCl", "rocksalt", a=5.64, cubic=cubic)


@needs_extra
def test_rock_salt(teacher: Teacher) -> None:
    """Inelastic neutron scattering puts all modes of NaCl below 270 cm^-1 (Raunio et al., Phys. Rev. 178, 1496)."""
    opinion = teacher(rock_salt())
    assert 120.0 < opinion.mean_inv_cm < 190.0
    assert opinion.shares()[-30:].sum() < 1e-6
    assert opinion.imaginary_share < 1e-3
    assert opinion.seconds < 60.0
    assert "SevenNet-0" in opinion.source


@needs_extra
def test_any_cell_of_a_crystal_gives_the_same_opinion(teacher: Teacher) -> None:
    np.testing.assert_allclose(teacher(rock_salt(cubic=True)).shares(), teacher(rock_salt()).shares(), atol=0.02)


@needs_extra
def test_an_independent_calculation_agrees(teacher: Teacher, test_data: Path) -> None:
    """Labels that were made beforehand with a program of its own (see the data's README)."""
    from beamline_ml.service.phonon_data import load_materials

    known = {e["k"]: e for e in json.loads((test_data / "phonon/sevennet0_phonon_dos_valid90.json").read_text())}
    small = [m for m in load_materials(test_data / "phonon") if m.row in known and len(m.numbers) <= 3][:3]
    for material in small:
        opinion = teacher(Atoms(material.numbers, material.positions, cell=material.cell, pbc=True))
        assert np.mean((opinion.points() - known[material.row]["y"]) ** 2) < 2e-3, material.formula


@needs_extra
def test_too_dear_a_crystal_is_refused_before_it_is_paid_for(teacher: Teacher) -> None:
    from dataclasses import replace

    disordered = bulk("Si", "diamond", a=5.43, cubic=True).repeat((2, 2, 1))
    disordered.rattle(0.1, seed=1)
    with pytest.raises(OpinionRefused, match="more than 2 s"):
        replace(teacher, budget_s=2.0)(disordered)


@needs_extra
def test_unknown_elements_are_refused(teacher: Teacher) -> None:
    with pytest.raises(OpinionRefused, match="Po"):
        teacher(bulk("Po", "sc", a=3.34))


@needs_extra
def test_prediction_with_the_shipped_stacking(tmp_path: Path) -> None:
    write(tmp_path / "salt.cif", rock_salt())
    (alone,), (both,) = predict([tmp_path / "salt.cif"]), predict([tmp_path / "salt.cif"], second_opinion=True)
    assert "SevenNet-0" in both["second_opinion"]
    assert both["model"].startswith(alone["model"] + "+stack-")
    assert sum(both["modes"]) == pytest.approx(6.0, abs=1e-6)
    assert both["modes"] != alone["modes"]


def test_without_the_extra_the_network_answers_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sevenn", None)
    with pytest.raises(TeacherMissing, match=r"beamline-ml\[teacher\]"):
        load_teacher()
    write(tmp_path / "salt.cif", rock_salt())
    (alone,), (asked,) = predict([tmp_path / "salt.cif"]), predict([tmp_path / "salt.cif"], second_opinion=True)
    assert asked["modes"] == alone["modes"]
    assert asked["model"] == alone["model"]
    assert alone["second_opinion"] == "not asked"
    assert "beamline-ml[teacher]" in asked["second_opinion"]
    assert any("beamline-ml[teacher]" in warning for warning in asked["warnings"])
    assert SecondOpinions.open().model("weights-1") == "weights-1"


@pytest.mark.parametrize("length", [7.2, 5.0])
def test_supercells_are_long_enough_and_not_too_large(length: float) -> None:
    small, long = rock_salt(), Atoms("Si4", cell=[3.0, 4.0, 11.0], pbc=True)
    assert supercell_counts(small, 7.2) == (2, 2, 2)
    for cell in (small, long):
        counts = np.array(supercell_counts(cell, length))
        assert (counts * cell.cell.lengths() >= length).all()
        assert counts.prod() * len(cell) <= MAX_SUPERCELL_ATOMS
    crowded = Atoms("Si40", cell=[3.0, 7.0, 30.0], pbc=True)
    assert supercell_counts(crowded, 7.2) == (2, 1, 1)


class EinsteinSolid:
    """A teacher without a potential: every atom swings at 3000 cm^-1 over the root of its mass. Refuses lithium."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, atoms: Atoms) -> SecondOpinion:
        self.asked.append(atoms.get_chemical_formula())
        if "Li" in atoms.symbols:
            raise OpinionRefused("Lithium is too light.", "Take the network.")
        frequency = np.arange(0.0, 1000.0)
        centres = 3000.0 / np.sqrt(atoms.get_masses())
        dos = np.exp(-0.5 * ((frequency[None] - centres[:, None]) / 5.0) ** 2).sum(axis=0)
        return SecondOpinion(1.0, dos, 0.0, 0.5, "Einstein")


@pytest.fixture(scope="module")
def materials(small_arrays: dict[str, Any]) -> list[Material]:
    return materials_from_arrays(small_arrays)


def test_labelling_goes_on_where_it_stopped(tmp_path: Path, materials: list[Material]) -> None:
    teacher, lines = EinsteinSolid(), []
    label(materials[:5], tmp_path, teacher)
    file = label(materials, tmp_path, teacher, lines.append)
    assert len(teacher.asked) == len(materials)
    assert lines[0] == "12 materials, 5 labelled already"
    labels = load_labels(file)
    lithium = [m.row for m in materials if 3 in m.numbers]
    assert lithium
    assert sorted(labels) == [m.row for m in materials if m.row not in lithium]
    fresh = EinsteinSolid()(Atoms(materials[0].numbers, cell=materials[0].cell, pbc=True))
    np.testing.assert_allclose(labels[materials[0].row].shares(), fresh.shares(), atol=1e-4)


def test_a_cut_off_line_is_named_and_labelled_again(tmp_path: Path, materials: list[Material]) -> None:
    file, teacher = label(materials[:3], tmp_path, EinsteinSolid()), EinsteinSolid()
    whole = file.read_text()
    file.write_text(whole[:-20])
    with pytest.raises(DataError, match=r"teacher_labels\.jsonl"):
        load_labels(file)
    label(materials[:3], tmp_path, teacher)
    assert len(teacher.asked) == 1
    assert file.read_text() == whole
    with pytest.raises(DataError, match="phonons label"):
        load_labels(tmp_path / "none.jsonl")


def test_random_order_is_seeded_and_whole(materials: list[Material]) -> None:
    one, again, other = (in_random_order(materials, seed) for seed in (0, 0, 1))
    assert [m.row for m in one] == [m.row for m in again] != [m.row for m in other]
    assert sorted(m.row for m in one) == [m.row for m in materials]


def test_too_few_labels_make_no_stacking(tmp_path: Path, materials: list[Material]) -> None:
    from beamline_ml.phonons import load_predictor
    from beamline_ml.service.phonon_stacking import write_stacking

    file = label(materials, tmp_path, EinsteinSolid())
    with pytest.raises(DataError, match="phonons label"):
        write_stacking(load_predictor(), materials, file, tmp_path / "stack.safetensors")

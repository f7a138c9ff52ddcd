"""The shipped predictor, through its public door."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from scipy.spatial.transform import Rotation

from beamline_ml.errors import StructureRefused
from beamline_ml.phonons import PhononDos, load_predictor
from beamline_ml.phonons.predictor import SHIPPED_WEIGHTS, Predictor
from beamline_ml.phonons.thermodynamics import GAS_CONSTANT_J_PER_K_MOL


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return load_predictor()


@pytest.fixture(scope="module")
def exact() -> Predictor:
    return load_predictor(double_precision=True)


def perovskite() -> Atoms:
    a = 3.9
    atoms = Atoms(
        "SrTiO3",
        scaled_positions=[(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)],
        cell=[a, 1.02 * a, 1.05 * a],
        pbc=True,
    )
    atoms.rattle(0.05, seed=1)
    return atoms


def turned(atoms: Atoms) -> Atoms:
    matrix = -Rotation.from_euler("xyz", [0.3, 1.1, -0.4]).as_matrix()
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ matrix.T, scale_atoms=False)
    other.positions = atoms.positions @ matrix.T
    return other


def moved(atoms: Atoms) -> Atoms:
    other = atoms.copy()
    other.positions += [0.71, -1.3, 5.5]
    other.wrap()
    return other


def test_public_record_has_what_is_promised(predictor: Predictor) -> None:
    atoms = perovskite()
    dos = predictor(atoms)
    n_w = len(dos.edges_mev) - 1
    assert isinstance(dos, PhononDos)
    assert dos.modes.shape == dos.modes_lower.shape == dos.modes_upper.shape == (n_w,)
    assert dos.site_modes.shape == (len(atoms), n_w)
    assert dos.dos_51.shape == (51,)
    assert dos.edges_mev[0] == 0.0
    assert dos.edges_mev[-1] == pytest.approx(4500.0 * 0.12398419843)
    assert dos.modes.sum() == pytest.approx(3 * len(atoms), abs=1e-6)
    np.testing.assert_allclose(dos.site_modes.sum(axis=1), 3.0, atol=1e-6)
    np.testing.assert_allclose(dos.site_modes.sum(axis=0), dos.modes, atol=1e-6)
    assert ((dos.modes_lower <= dos.modes) & (dos.modes <= dos.modes_upper) & (dos.modes_lower >= 0)).all()
    assert dos.imaginary_share == "not assessed"
    assert dos.spread > 0.0


@pytest.mark.parametrize("change", [turned, moved, lambda a: a[[3, 1, 4, 0, 2]]], ids=["rotated", "moved", "permuted"])
def test_the_same_crystal_gives_the_same_answer(
    predictor: Predictor, exact: Predictor, change: Callable[[Atoms], Atoms]
) -> None:
    atoms = perovskite()
    for model, tolerance in ((predictor, 1e-5), (exact, 1e-9)):
        one, other = model(atoms), model(change(atoms))
        np.testing.assert_allclose(other.modes, one.modes, atol=tolerance)
        np.testing.assert_allclose(other.dos_51, one.dos_51, atol=tolerance)


def test_a_supercell_has_the_modes_of_its_cells(predictor: Predictor, exact: Predictor) -> None:
    atoms = perovskite()
    for model, tolerance in ((predictor, 1e-5), (exact, 1e-9)):
        one, four = model(atoms), model(atoms.repeat((2, 1, 2)))
        np.testing.assert_allclose(four.shares, one.shares, atol=tolerance)
        np.testing.assert_allclose(four.dos_51, one.dos_51, atol=tolerance)
        assert four.heat_capacity(80.0) == pytest.approx(one.heat_capacity(80.0), rel=1e-4)


def test_one_by_one_or_together_is_the_same(predictor: Predictor) -> None:
    crystals = [perovskite(), bulk("NaCl", "rocksalt", a=5.64), bulk("Si", "diamond", a=5.43)]
    for alone, together in zip(map(predictor, crystals), predictor.many(crystals), strict=True):
        np.testing.assert_allclose(together.modes, alone.modes, atol=1e-5)
        assert together.nearest.name == alone.nearest.name


@pytest.mark.parametrize(
    ("atoms", "mean_frequency_inv_cm", "capacity_300k"),
    [
        # Measured: heat capacities at 300 K per mol of atoms (CRC Handbook; C_p, which exceeds C_V by up to 1.2 here).
        (bulk("Si", "diamond", a=5.43), (290.0, 390.0), 19.8),
        (bulk("NaCl", "rocksalt", a=5.64), (130.0, 210.0), 24.4),
        (bulk("MgO", "rocksalt", a=4.21), (360.0, 480.0), 18.7),
        (bulk("GaAs", "zincblende", a=5.65), (150.0, 230.0), 23.1),
    ],
    ids=["Si", "NaCl", "MgO", "GaAs"],
)
def test_textbook_crystals(
    predictor: Predictor, atoms: Atoms, mean_frequency_inv_cm: tuple[float, float], capacity_300k: float
) -> None:
    dos = predictor(atoms)
    assert mean_frequency_inv_cm[0] < dos.mean_frequency_inv_cm < mean_frequency_inv_cm[1]
    assert dos.heat_capacity(300.0) == pytest.approx(capacity_300k, abs=1.5)
    low, high = dos.heat_capacity_band(300.0)
    assert low < dos.heat_capacity(300.0) < high <= 3.0 * GAS_CONSTANT_J_PER_K_MOL


def test_thermodynamics_of_the_answer(predictor: Predictor) -> None:
    dos = predictor(bulk("NaCl", "rocksalt", a=5.64))
    displacement = dos.mean_square_displacement(300.0)
    # X-ray diffraction at 295 K: B about 1.6 (Na) and 1.3 (Cl) square angstrom (Butt et al., Acta Cryst. A44, 1988).
    assert (dos.b_factor(300.0) > 0.8).all()
    assert (dos.b_factor(300.0) < 2.4).all()
    low, high = dos.mean_square_displacement_band(300.0)
    assert ((low < displacement) & (displacement < high)).all()
    np.testing.assert_allclose(dos.debye_waller_factor(300.0, 3.0), np.exp(-9.0 * displacement))
    assert dos.debye_temperature(-2) < dos.debye_temperature(2)
    assert dos.entropy(300.0) > dos.heat_capacity(300.0)
    energy_low, energy_high = dos.mean_energy_band_mev()
    assert energy_low < dos.mean_energy_mev < energy_high


def test_isotopes_change_displacements_not_modes(predictor: Predictor) -> None:
    natural, heavy = bulk("NaCl", "rocksalt", a=5.64), bulk("NaCl", "rocksalt", a=5.64)
    heavy.set_masses([22.99, 37.0])
    np.testing.assert_array_equal(predictor(heavy).modes, predictor(natural).modes)
    ratio = predictor(heavy).mean_square_displacement(300.0) / predictor(natural).mean_square_displacement(300.0)
    np.testing.assert_allclose(ratio, natural.get_masses() / [22.99, 37.0])


def test_a_crystal_of_the_training_set_is_its_own_neighbour_and_a_strange_one_is_flagged(predictor: Predictor) -> None:
    familiar = predictor(bulk("MgO", "rocksalt", a=4.24))
    assert familiar.nearest.formula == "MgO"
    assert familiar.warnings == ()
    for a in (7.0, 2.9):
        strange = predictor(bulk("MgO", "rocksalt", a=a))
        assert any("trained on" in warning for warning in strange.warnings), a


def test_refusals_come_before_numbers(predictor: Predictor) -> None:
    with pytest.raises(StructureRefused, match="Gd"):
        predictor(bulk("Gd", "hcp", a=3.63, c=5.78))
    with pytest.raises(StructureRefused, match="Xe"):
        predictor.many([bulk("Si", "diamond", a=5.43), bulk("Xe", "fcc", a=6.2)])


def test_weights_are_small_and_say_what_they_are() -> None:
    folder = SHIPPED_WEIGHTS.parent
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5_000_000
    card = (folder / "MODEL_CARD.md").read_text()
    for section in ("## Data", "## Licence", "## Figures", "## Limits"):
        assert section in card
    assert load_predictor().version in card


def test_records_can_be_had_without_torch() -> None:
    code = "import sys, beamline_ml.phonons; assert 'torch' not in sys.modules; assert 'e3nn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_bands_hold_on_materials_no_member_has_seen(predictor: Predictor, test_data: Path) -> None:
    """The materials that calibrated the bands: this guards the whole path from file to band, not the statistics."""
    from beamline_ml.service.phonon_data import load_materials

    inside, errors = [], []
    for material in [m for m in load_materials(test_data / "phonon") if m.held_out][::3]:
        dos = predictor(Atoms(material.numbers, material.positions, cell=material.cell, pbc=True))
        truth = material.shares * 3 * len(material.numbers)
        inside.append(np.mean((dos.modes_lower <= truth + 1e-9) & (truth <= dos.modes_upper + 1e-9)))
        errors.append(np.mean((dos.dos_51 - material.points) ** 2))
    assert 0.85 < np.mean(inside) < 0.97
    assert np.mean(errors) < 0.025

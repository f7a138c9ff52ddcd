"""The teacher (optional extra ``beamline-ml[teacher]``): phonons of a crystal from the pretrained potential SevenNet-0.

Finite displacements with phonopy in the given cell, whose atoms are relaxed first. SevenNet-0 (Park et al., J. Chem.
Theory Comput. 20, 4857 (2024)) comes with its weights in the wheel of ``sevenn``; nothing is fetched. The long-range
splitting of optical modes (LO-TO) is not corrected: that needs Born charges.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from beamline_ml.errors import DataError, OpinionRefused, TeacherMissing
from beamline_ml.phonons import PhononDos
from beamline_ml.phonons.opinion import SecondOpinion
from beamline_ml.phonons.stacking import SHIPPED_STACKING, Stacking, load_stacking
from beamline_ml.records import Float64Array

SUPERCELLS_ANGSTROM = (7.2, 6.0, 5.0)
"""Every supercell is at least this long along each lattice vector; shorter ones are for crystals that cost too much."""
MAX_SUPERCELL_ATOMS = 96
DISPLACEMENT_ANGSTROM = 0.02
MESH_ANGSTROM = 40.0
"""Fineness of the mesh of wave vectors, in phonopy's sense."""
BROADENING_INV_CM = 3.0
BUDGET_S = 60.0
MAX_IMAGINARY_SHARE = 0.1
_RELAX_STEPS = 40
_FORCE_LIMIT_EV_PER_ANGSTROM = 2e-3
_INV_CM_PER_THZ = 33.35640951981521
_PLANNED = 0.75
"""Part of the budget that may be planned for; the rest is for what estimates miss."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """Call it with a crystal: it answers within its budget or says why not."""

    calculator: Any
    """ASE calculator of the potential."""
    name: str
    budget_s: float = BUDGET_S
    clock: Callable[[], float] = time.process_time
    """Processor seconds: another program beside it makes no opinion worse."""

    def __call__(self, atoms: Atoms) -> SecondOpinion:
        """Density of states of one crystal.

        Parameters
        ----------
        atoms
            A periodic, fully occupied crystal (see ``phonons.check_structure``).

        Raises
        ------
        OpinionRefused
            The potential does not know an element, the crystal costs more than the budget, or it came out unstable.
        """
        began, called = self.clock(), atoms.get_chemical_formula()
        self._check_elements(atoms, called)
        with _quiet():
            cell = primitive(atoms)
            self._relax(cell, began + 0.25 * self.budget_s)
            displaced = self._affordable(cell, began, called)
            displaced.phonopy.forces = self._forces_of(displaced, began, called)
            frequency, dos = density(displaced.phonopy)
        return self._opinion(frequency, dos, displaced, began, called)

    def _opinion(
        self, frequency: Float64Array, dos: Float64Array, displaced: Displaced, began: float, called: str
    ) -> SecondOpinion:
        real = frequency >= 0.0
        imaginary = float(dos[frequency < -3.0 * BROADENING_INV_CM].sum() / dos.sum())
        if imaginary > MAX_IMAGINARY_SHARE:
            raise OpinionRefused(
                f"The teacher finds {100.0 * imaginary:.0f} % of the modes of {called} unstable.",
                "The prediction of the network alone stands; a calculation with electrons would decide.",
            )
        source = f"{self.name}, phonopy {version('phonopy')}, {len(displaced.at_rest())} atoms in the supercell"
        return SecondOpinion(float(frequency[1] - frequency[0]), dos[real], imaginary, self.clock() - began, source)

    def _check_elements(self, atoms: Atoms, called: str) -> None:
        unknown = sorted(set(atoms.numbers.tolist()) - set(self.calculator.type_map))
        if unknown:
            symbols = ", ".join(chemical_symbols[number] for number in unknown)
            raise OpinionRefused(
                f"{called} contains {symbols}, which {self.name} does not know.",
                "The prediction of the network alone stands.",
            )

    def _relax(self, cell: Atoms, until: float) -> None:
        """Move the atoms to rest; cell and symmetry are kept."""
        from ase.constraints import FixSymmetry
        from ase.optimize import FIRE

        cell.calc = self.calculator
        if len(cell) == 1:
            return
        cell.set_constraint(FixSymmetry(cell, symprec=1e-3))
        for _ in FIRE(cell, logfile=None).irun(fmax=_FORCE_LIMIT_EV_PER_ANGSTROM, steps=_RELAX_STEPS):
            if self.clock() > until:
                break
        cell.set_constraint()

    def _affordable(self, cell: Atoms, began: float, called: str) -> Displaced:
        """The best set of displacements that the rest of the budget pays for."""
        self.calculator.reset()  # which remembers the forces of the last step of the relaxation
        at = self.clock()
        self._forces(cell)
        pace = (self.clock() - at) / len(cell)
        for length, plusminus in product(SUPERCELLS_ANGSTROM, ("auto", False)):
            if self.clock() - began > _PLANNED * self.budget_s:
                break
            displaced = Displaced.of(cell, supercell_counts(cell, length), plusminus)
            forces_on = (1 + len(displaced)) * len(displaced.at_rest())
            if forces_on * pace <= began + _PLANNED * self.budget_s - self.clock():
                return displaced
        raise self._too_dear(called, len(cell))

    def _forces_of(self, displaced: Displaced, began: float, called: str) -> Float64Array:
        """(n_displacements, n_atoms, 3) forces without those at rest, which the relaxation left."""
        at_rest = self._forces(displaced.at_rest())
        forces = []
        for atoms in displaced:
            if self.clock() - began > self.budget_s:
                raise self._too_dear(called, len(atoms))
            forces.append(self._forces(atoms) - at_rest)
        return np.array(forces)

    def _too_dear(self, called: str, n_atoms: int) -> OpinionRefused:
        return OpinionRefused(
            f"The teacher would need more than {self.budget_s:.0f} s for {called} ({n_atoms} atoms).",
            "The prediction of the network alone stands; give a primitive cell, or more time.",
        )

    def _forces(self, atoms: Atoms) -> Float64Array:
        atoms.calc = self.calculator
        forces: Float64Array = atoms.get_forces()
        return forces


@dataclass(frozen=True, slots=True)
class Displaced:
    """A supercell and its displaced copies."""

    phonopy: Any

    @staticmethod
    def of(cell: Atoms, counts: tuple[int, int, int], plusminus: Any) -> Displaced:
        """As few displacements as symmetry allows; ``plusminus`` False leaves out the opposite ones."""
        from phonopy import Phonopy
        from phonopy.structure.atoms import PhonopyAtoms

        unit = PhonopyAtoms(numbers=cell.numbers, cell=cell.cell.array, scaled_positions=cell.get_scaled_positions())
        phonopy = Phonopy(unit, np.diag(counts), primitive_matrix=np.eye(3), symprec=1e-3)
        phonopy.generate_displacements(distance=DISPLACEMENT_ANGSTROM, is_plusminus=plusminus)
        return Displaced(phonopy)

    def __len__(self) -> int:
        return len(self.phonopy.supercells_with_displacements)

    def __iter__(self) -> Iterator[Atoms]:
        return map(_ase, self.phonopy.supercells_with_displacements)

    def at_rest(self) -> Atoms:
        """The supercell without displacements."""
        return _ase(self.phonopy.supercell)


def _ase(cell: Any) -> Atoms:
    return Atoms(cell.numbers, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True)


def primitive(atoms: Atoms) -> Atoms:
    """The primitive cell in the same orientation; the crystal as it is where it is one already."""
    import spglib

    given = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    found = spglib.standardize_cell(given, to_primitive=True, no_idealize=True, symprec=1e-3)
    if found is None or len(found[2]) >= len(atoms):
        return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    cell, scaled, numbers = found
    return Atoms(numbers, cell=cell, scaled_positions=scaled, pbc=True)


def supercell_counts(cell: Atoms, length_angstrom: float) -> tuple[int, int, int]:
    """Repeats along each lattice vector, for a supercell at least so long with at most 96 atoms (or one cell)."""
    lengths = cell.cell.lengths()
    counts = np.ceil(length_angstrom / lengths - 1e-9).astype(int)
    while counts.prod() > 1 and counts.prod() * len(cell) > MAX_SUPERCELL_ATOMS:
        # Shorten where the supercell stays longest.
        counts[np.argmax(np.where(counts > 1, (counts - 1) * lengths, -1.0))] -= 1
    a, b, c = counts.tolist()
    return a, b, c


def density(phonopy: Any) -> tuple[Float64Array, Float64Array]:
    """Frequencies in cm^-1, imaginary ones below zero, and the density of states on them, 1 cm^-1 apart."""
    phonopy.produce_force_constants(show_drift=False)
    phonopy.symmetrize_force_constants()
    phonopy.run_mesh(MESH_ANGSTROM)
    modes = np.asarray(phonopy.mesh.frequencies) * _INV_CM_PER_THZ
    weights = np.broadcast_to(np.asarray(phonopy.mesh.weights, dtype=np.float64)[:, None], modes.shape)
    low, high = np.floor(modes.min()) - 20.0, np.ceil(modes.max()) + 20.0
    edges = np.arange(min(low, -20.0) - 0.5, high + 1.0)
    counts, _ = np.histogram(modes, edges, weights=weights)
    offsets = np.arange(-15.0, 16.0)
    kernel = np.exp(-0.5 * (offsets / BROADENING_INV_CM) ** 2)
    return edges[:-1] + 0.5, np.convolve(counts, kernel / kernel.sum(), mode="same")


@contextmanager
def _quiet() -> Iterator[None]:
    """phonopy, spglib and sevenn announce deprecations and missing accelerators; nobody here can act on them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_teacher(budget_s: float = BUDGET_S) -> Teacher:
    """SevenNet-0 with the weights of the ``sevenn`` wheel, on one core.

    Raises
    ------
    TeacherMissing
        The extra is not installed.
    """
    absent = [name for name in ("sevenn", "phonopy", "spglib") if importlib.util.find_spec(name) is None]
    if absent:
        raise TeacherMissing(
            f"There is no second opinion: {', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed.",
            "pip install 'beamline-ml[teacher]' brings it; predictions come from the network alone.",
        )
    with _quiet():
        from sevenn.calculator import SevenNetCalculator

        calculator = SevenNetCalculator("7net-0", device="cpu")
    return Teacher(calculator, f"SevenNet-0 (sevenn {version('sevenn')})", budget_s)


@dataclass(frozen=True, slots=True)
class SecondOpinions:
    """Adds the teacher's opinion to predictions, or says why there is none."""

    teacher: Teacher | None
    stacking: Stacking | None
    missing: str = ""
    """Why there is no teacher at all."""

    @staticmethod
    def open(stacking: Path = SHIPPED_STACKING) -> SecondOpinions:
        """The teacher where its extra is installed, else the reason."""
        try:
            return SecondOpinions(load_teacher(), load_stacking(stacking))
        except (TeacherMissing, DataError) as error:
            return SecondOpinions(None, None, str(error))

    def model(self, version: str) -> str:
        """Version of predictions that come out of this, from that of the network."""
        return self.stacking.stacked_model if self.stacking and self.stacking.model == version else version

    def __call__(self, atoms: Atoms, dos: PhononDos) -> PhononDos:
        """The stacked prediction; without an opinion, the network's own with the reason among its warnings."""
        if self.teacher is None or self.stacking is None:
            return _alone(dos, self.missing, dos.model)
        try:
            return self.stacking(dos, self.teacher(atoms))
        except OpinionRefused as refusal:
            return _alone(dos, str(refusal), self.model(dos.model))


def _alone(dos: PhononDos, reason: str, model: str) -> PhononDos:
    told = f"no second opinion: {reason}"
    return replace(dos, second_opinion=told, warnings=(*dos.warnings, told), model=model)

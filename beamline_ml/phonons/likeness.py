"""Which training material a crystal is most like, and whether it lies outside what the network was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beamline_ml.phonons.dos import NearestMaterial
from beamline_ml.records import Float64Array, IntArray

N_DIRECTIONS = 16
RARE_ELEMENT_ROWS = 5
_FAR = 1.5


@dataclass(frozen=True, slots=True)
class TrainingSpace:
    """The training materials as points in the network's own description of crystals."""

    names: tuple[str, ...]
    formulas: tuple[str, ...]
    mean: Float64Array
    """(n,) mean invariants."""
    projection: Float64Array
    """(n, n_directions) principal directions (at most 16), scaled to unit variance over the training materials."""
    points: Float64Array
    """(n_materials, n_directions)."""
    unit: float
    """Distance to the nearest training material that 95 % of held-out materials stay below."""
    bond_range: Float64Array
    """(2,) shortest and longest nearest-neighbour distance in training, over the sum of covalent radii."""
    element_rows: IntArray
    """(95,) in how many training materials each element occurs."""

    @staticmethod
    def fit(
        invariants: Float64Array,
        held_out: Float64Array,
        names: Sequence[str],
        formulas: Sequence[str],
        bond_range: Float64Array,
        rows: IntArray,
    ) -> TrainingSpace:
        """Space of (n_materials, n) invariants, with its unit from those of (m, n) held-out materials."""
        mean = invariants.mean(axis=0)
        _, singular, directions = np.linalg.svd(invariants - mean, full_matrices=False)
        kept = min(N_DIRECTIONS, int(np.sum(singular > 1e-3 * singular[0])))
        projection = directions[:kept].T * np.sqrt(len(invariants)) / singular[:kept]
        points = (invariants - mean) @ projection
        fresh = (held_out - mean) @ projection
        distance = np.linalg.norm(fresh[:, None] - points[None], axis=2).min(axis=1)
        return TrainingSpace(
            tuple(names),
            tuple(formulas),
            mean,
            projection,
            points,
            float(np.quantile(distance, 0.95)),
            bond_range,
            rows,
        )

    @property
    def known_elements(self) -> frozenset[int]:
        """Atomic numbers that occur in the training materials."""
        return frozenset(np.flatnonzero(self.element_rows).tolist())

    def nearest(self, invariants: Float64Array) -> NearestMaterial:
        """The training material closest to a crystal with these (n,) invariants."""
        distance = np.linalg.norm(self.points - (invariants - self.mean) @ self.projection, axis=1)
        index = int(np.argmin(distance))
        return NearestMaterial(self.names[index], self.formulas[index], float(distance[index]) / self.unit)

    def warnings(
        self, numbers: IntArray, nearest: NearestMaterial, bonds: Float64Array, overflow: float
    ) -> tuple[str, ...]:
        """Reasons for caution about a crystal: unlike all training, odd distances, rare elements, very stiff modes.

        Parameters
        ----------
        bonds
            (n_atoms,) nearest-neighbour distances over the sums of covalent radii (``graph.bond_ratios``).
        overflow
            Share of the modes above 1010 cm^-1.
        """
        found = []
        if nearest.distance > 1.0:
            degree = "far outside" if nearest.distance > _FAR else "at the edge of"
            found.append(
                f"{degree} what the network was trained on: the most similar material, "
                f"{nearest.formula} ({nearest.name}), is {nearest.distance:.1f} times as far as 95 % of unseen crystals"
            )
        found += self._odd_distances(bonds)
        found += self._rare(numbers)
        if overflow > 0.01:
            found.append(
                f"{100.0 * overflow:.0f} % of the modes lie above 1010 cm^-1, where windows are wide and data few"
            )
        return tuple(found)

    def _odd_distances(self, bonds: Float64Array) -> list[str]:
        low, high = self.bond_range
        said = "outside what the network was trained on: nearest neighbours"
        if bonds.min() < 0.98 * low:
            return [f"{said} only {bonds.min():.2f} times their covalent radii apart (training: from {low:.2f})"]
        if bonds.max() > 1.02 * high:
            return [f"{said} {bonds.max():.2f} times their covalent radii apart (training: up to {high:.2f})"]
        return []

    def _rare(self, numbers: IntArray) -> list[str]:
        from ase.data import chemical_symbols

        present = np.unique(numbers)
        rare = [int(n) for n in present if self.element_rows[n] < RARE_ELEMENT_ROWS]
        return [f"{chemical_symbols[n]} occurs in only {int(self.element_rows[n])} training material(s)" for n in rare]

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Numbers of the space as plain arrays (names and formulas travel as text)."""
        return {
            "mean": self.mean.astype(np.float32),
            "projection": self.projection.astype(np.float32),
            "points": self.points.astype(np.float16),
            "unit": np.array([self.unit], dtype=np.float64),
            "bond_range": self.bond_range.astype(np.float64),
            "element_rows": self.element_rows.astype(np.int64),
        }

    @staticmethod
    def from_arrays(
        arrays: Mapping[str, NDArray[np.generic]], names: Sequence[str], formulas: Sequence[str]
    ) -> TrainingSpace:
        """The space that ``to_arrays`` wrote."""
        return TrainingSpace(
            tuple(names),
            tuple(formulas),
            arrays["mean"].astype(np.float64),
            arrays["projection"].astype(np.float64),
            arrays["points"].astype(np.float64),
            float(arrays["unit"][0]),
            arrays["bond_range"].astype(np.float64),
            arrays["element_rows"].astype(np.int64),
        )

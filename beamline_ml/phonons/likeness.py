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
    """(n, 16) principal directions, scaled to unit variance over the training materials."""
    points: Float64Array
    """(n_materials, 16)."""
    unit: float
    """Distance to the nearest training material that 95 % of held-out materials stay below."""
    element_rows: IntArray
    """(95,) in how many training materials each element occurs."""

    @staticmethod
    def fit(
        invariants: Float64Array, held_out: Float64Array, names: Sequence[str], formulas: Sequence[str], rows: IntArray
    ) -> TrainingSpace:
        """Space of (n_materials, n) invariants, with its unit from those of (m, n) held-out materials."""
        mean = invariants.mean(axis=0)
        _, singular, directions = np.linalg.svd(invariants - mean, full_matrices=False)
        scale = np.sqrt(len(invariants)) / singular[:N_DIRECTIONS]
        projection = directions[:N_DIRECTIONS].T * scale
        points = (invariants - mean) @ projection
        fresh = (held_out - mean) @ projection
        distance = np.linalg.norm(fresh[:, None] - points[None], axis=2).min(axis=1)
        return TrainingSpace(
            tuple(names), tuple(formulas), mean, projection, points, float(np.quantile(distance, 0.95)), rows
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

    def warnings(self, numbers: IntArray, nearest: NearestMaterial, overflow: float) -> tuple[str, ...]:
        """Reasons for caution about a crystal: far from all training, rare elements, modes in the wide windows."""
        found = []
        if nearest.distance > 1.0:
            degree = "far outside" if nearest.distance > _FAR else "at the edge of"
            found.append(
                f"{degree} what the network was trained on: the most similar material, "
                f"{nearest.formula} ({nearest.name}), is {nearest.distance:.1f} times as far as 95 % of unseen crystals"
            )
        found += self._rare(numbers)
        if overflow > 0.01:
            found.append(
                f"{100.0 * overflow:.0f} % of the modes lie above 1010 cm^-1, where windows are wide and data few"
            )
        return tuple(found)

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
            arrays["element_rows"].astype(np.int64),
        )

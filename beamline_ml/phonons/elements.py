"""What is known of each element before any training: masses, radii, electronegativities, places in the periodic
table."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_masses, covalent_radii

from beamline_ml.records import Float64Array

MAX_ATOMIC_NUMBER = 94

# Pauling's scale (CRC Handbook of Chemistry and Physics); 0 where none is tabulated, replaced by 1.3 (a metal's).
_PAULING = (
    "0 2.20 0 0.98 1.57 2.04 2.55 3.04 3.44 3.98 0 0.93 1.31 1.61 1.90 2.19 2.58 3.16 0 0.82 1.00 1.36 1.54 "
    "1.63 1.66 1.55 1.83 1.88 1.91 1.90 1.65 1.81 2.01 2.18 2.55 2.96 3.00 0.82 0.95 1.22 1.33 1.60 2.16 1.90 "
    "2.20 2.28 2.20 1.93 1.69 1.78 1.96 2.05 2.10 2.66 2.60 0.79 0.89 1.10 1.12 1.13 1.14 1.13 1.17 1.20 1.20 "
    "1.20 1.22 1.23 1.24 1.25 1.10 1.27 1.30 1.50 2.36 1.90 2.20 2.20 2.28 2.54 2.00 1.62 2.33 2.02 2.00 2.20 "
    "2.20 0.70 0.90 1.10 1.30 1.50 1.38 1.36 1.28 "
)
_NOBLE = (2, 10, 18, 36, 54, 86)


def electronegativity() -> Float64Array:
    """(95,) Pauling electronegativity by atomic number."""
    values = np.array([float(word) for word in _PAULING.split()])
    return np.where(values > 0.0, values, 1.3)


def period_and_group(number: int) -> tuple[int, int]:
    """Row (1-7) and column (1-18; 3 for lanthanides and actinides) of an element in the periodic table."""
    period = 1 + sum(number > noble for noble in _NOBLE)
    start = 0 if period == 1 else _NOBLE[period - 2]
    place, length = number - start, (2, 8, 8, 18, 18, 32, 32)[period - 1]
    from_right = length - place
    if place <= 2 and period > 1:
        return period, place
    if period == 1:
        return period, 1 if place == 1 else 18
    return period, 18 - from_right if from_right <= 15 else 3


def descriptors() -> Float64Array:
    """(95, 9) scaled facts by atomic number: log mass, mass^-1/2, mass, radius, electronegativity, period, group, s/p
    place.

    All are of order one, so that they can stand beside a learned embedding.
    """
    numbers = np.arange(MAX_ATOMIC_NUMBER + 1)
    mass = np.maximum(atomic_masses[: MAX_ATOMIC_NUMBER + 1], 1.0)
    place = np.array([(0, 0) if n == 0 else period_and_group(int(n)) for n in numbers], dtype=np.float64)
    period, group = place[:, 0], place[:, 1]
    columns = [
        np.log(mass) / 2.0 - 1.8,
        4.0 / np.sqrt(mass) - 0.6,
        mass / 100.0 - 0.8,
        2.0 * (radii() - 1.4),
        electronegativity() - 1.8,
        period / 3.0 - 1.3,
        group / 9.0 - 1.2,
        (group >= 13) * 1.0,
        (group <= 2) * 1.0,
    ]
    return np.stack(columns, axis=1)


def radii() -> Float64Array:
    """(95,) covalent radii in angstrom (Cordero et al., Dalton Trans. 2008, 2832)."""
    values: Float64Array = np.asarray(covalent_radii[: MAX_ATOMIC_NUMBER + 1], dtype=np.float64)
    return values


def masses_u() -> Float64Array:
    """(95,) standard atomic masses in u."""
    values: Float64Array = np.asarray(atomic_masses[: MAX_ATOMIC_NUMBER + 1], dtype=np.float64)
    return values

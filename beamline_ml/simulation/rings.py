"""Correlations of simulated particles on rings of wave vectors, as a large detector under a large beam sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.shells import shells_of_box, squared
from beamline_ml.records import Float64Array

MAX_MODES = 64


@dataclass(frozen=True)
class RingSample:
    """What a detector counts, and the field correlation that none sees."""

    c2: Float64Array
    """(n_q, n_times, n_times) from counts at contrast 1; the diagonal holds shot noise."""
    c2_err: Float64Array
    """(n_q, n_times, n_times) from counting alone."""
    f2: Float64Array
    """(n_q, n_times, n_times) |f|^2 of the same particles' fields, freed of the bias of few modes."""
    structure_factor: Float64Array
    """(n_q, n_times) absolute S(q, t) as counted."""
    structure_factor_err: Float64Array
    """(n_q, n_times) from counting alone."""
    q_inv_um: Float64Array
    times_s: Float64Array
    contrast: Float64Array
    """(n_q, n_times) of each frame by itself, <k (k - 1)> / <k>^2 - 1; 1 but for the chance of few speckles."""
    n_speckles: Float64Array
    """(n_q,) wave vectors per ring, all boxes together."""
    number_density_per_um2: float

    def observations(self, n_times: int) -> CorrelationObservations:
        """The first ``n_times`` times as a run would hand them to ``fit``."""
        return CorrelationObservations(
            c2=self.c2[:, :n_times, :n_times],
            c2_err=self.c2_err[:, :n_times, :n_times],
            structure_factor=self.structure_factor[:, :n_times],
            structure_factor_err=self.structure_factor_err[:, :n_times],
            q_inv_um=self.q_inv_um,
            times_s=self.times_s[:n_times],
            number_density_per_um2=self.number_density_per_um2,
            n_speckles=self.n_speckles,
            contrast=self.contrast[:, :n_times].mean(axis=1),
            # n speckles of exponential intensity scatter by 2 / sqrt(n) in the contrast of one frame.
            contrast_err=2.0 / np.sqrt(self.n_speckles),
            absolute=True,
        )


def scatter_into_rings(
    x_um: Float64Array,
    box_um: float,
    times_s: Float64Array,
    edges_inv_um: Float64Array,
    photons_per_speckle: float,
    rng: np.random.Generator,
    weight: Float64Array | None = None,
) -> RingSample:
    """Count photons at wave vectors of periodic boxes and correlate them.

    Parameters
    ----------
    x_um
        (n_times, n_boxes, n_per_box, 2) particles of independent boxes, wrapped or not.
    times_s
        (n_times,) ages of the sample in s, positive and increasing.
    edges_inv_um
        (n_q, 2) low and high edge of each ring.
    photons_per_speckle
        Expected counts at S(q) = 1.
    weight
        (n_times, n_boxes, n_per_box) scattering length of each particle; None: 1. A 0 is a particle that is not there.

    Raises
    ------
    FitRefused
        When a ring holds no wave vector of the box.
    """
    n_times, n_boxes, n_per_box, _ = x_um.shape
    shells = shells_of_box(box_um, edges_inv_um, MAX_MODES, rng)
    q = shells.vectors_inv_um.T
    fields = np.empty((n_times, n_boxes, len(shells.ring)), np.complex128)
    # Box by box: the waves of all particles at once would take gigabytes.
    for at in np.ndindex(n_times, n_boxes):
        waves = np.exp(-1j * (x_um[at] @ q))
        fields[at] = (waves if weight is None else weight[at][:, None] * waves).sum(axis=0) / np.sqrt(n_per_box)
    n_modes = shells.modes(n_boxes)
    rings = [
        _ring(fields[:, :, shells.ring == k].reshape(n_times, -1), photons_per_speckle, rng)
        for k in range(shells.n_rings)
    ]
    c2, c2_err, f, structure, contrast = (np.stack(part) for part in zip(*rings, strict=True))
    length = np.hypot(*q)
    mean_q = np.bincount(shells.ring, weights=length) / np.bincount(shells.ring)
    density = n_per_box / box_um**2
    structure_err = np.sqrt(structure / (photons_per_speckle * n_modes[:, None]))
    f2 = squared(f, n_modes)
    return RingSample(c2, c2_err, f2, structure, structure_err, mean_q, times_s, contrast, n_modes, density)


def _ring(a: np.ndarray, photons: float, rng: np.random.Generator) -> tuple[Float64Array, ...]:
    """C2, its counting error, field correlation, S and contrast of one ring's fields (n_times, n_modes)."""
    n = a.shape[1]
    expected = photons * np.abs(a) ** 2
    counts = rng.poisson(expected).astype(np.float64)
    mean = counts.mean(axis=1)
    c2 = counts @ counts.T / n / np.outer(mean, mean)
    # Counts of one frame change both the product and its normalisation: k1 goes with I2 - C2 <I2>.
    light = expected.mean(axis=1)
    true = expected @ expected.T / n
    of_one = (expected[:, None] * (expected[None] - (true / light[:, None])[..., None]) ** 2).mean(axis=2)
    c2_err = np.sqrt((of_one + of_one.T + true) / n) / np.outer(light, light)
    s = (np.abs(a) ** 2).mean(axis=1)
    f = (a @ a.conj().T).real / n / np.sqrt(np.outer(s, s))
    contrast = (counts * (counts - 1.0)).mean(axis=1) / mean**2 - 1.0
    return c2, c2_err, f, mean / photons, contrast

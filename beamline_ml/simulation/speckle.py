"""From moving particles to counted photons."""

from __future__ import annotations

from typing import Any

import numpy as np

from beamline_ml.dynamics.brownian import brownian_motion
from beamline_ml.dynamics.gridding import GriddedScattering
from beamline_ml.dynamics.patterns import sphere_form_factor
from beamline_ml.records import Float32Array, Float64Array, Geometry
from beamline_ml.simulation.movie import Movie, MovieRecipe


def pixel_dq_inv_um(geometry: Geometry) -> float:
    """Momentum transfer between the direct beam and the pixel beside it in 1/um: q = 4 pi / lambda sin(theta / 2)."""
    angle = np.arctan(geometry.pixel_size_m / geometry.detector_distance_m)
    return float(4.0 * np.pi / (geometry.wavelength_angstrom * 1e-4) * np.sin(angle / 2.0))


def _pixel_radius(size: int) -> Float64Array:
    offset = np.arange(size) - size // 2
    return np.hypot(offset[:, None], offset[None, :])


def _beam_profile(x_um: Float64Array, box_um: float) -> Float64Array:
    """Amplitude of a beam that fades like a squared cosine to nothing at the edge of the box, (n,)."""
    folded = (x_um / box_um + 0.5) % 1.0 - 0.5
    return np.cos(np.pi * folded[:, 0]) ** 2 * np.cos(np.pi * folded[:, 1]) ** 2


def _expected_photons(recipe: MovieRecipe, rng: np.random.Generator) -> tuple[Float32Array, float]:
    """Noise-free intensity (n_total, size, size), scaled to photons, and the edge of the simulated box in um."""
    dq = pixel_dq_inv_um(recipe.geometry)
    box = recipe.beam_speckle_px * 2.0 * np.pi / dq
    system = recipe.system
    n_particles = round(system.number_density_per_um2 * box**2)
    scattering = GriddedScattering(recipe.detector_size, dq)
    radius = _pixel_radius(recipe.detector_size)
    sensitivity = sphere_form_factor(radius * dq, recipe.particle_radius_um) * (radius >= recipe.beam_stop_px)
    intensity = np.empty((recipe.n_total, recipe.detector_size, recipe.detector_size), np.float32)
    start = rng.uniform(-0.5 * box, 0.5 * box, (n_particles, 2))
    # Neighbours in space are neighbours in memory: the same sample, a third less time.
    start = start[np.lexsort((start[:, 1], np.floor(start[:, 0] / system.cutoff_um)))]
    motion = brownian_motion(
        start,
        box,
        system.spline(),
        system.cutoff_um,
        system.diffusion_um2_per_s,
        recipe.frame_period_s,
        recipe.n_total,
        rng,
        hold=recipe.force_every,
    )
    for frame, x in enumerate(motion):
        amplitude = scattering.amplitude(x, _beam_profile(x, box))
        intensity[frame] = (amplitude.real**2 + amplitude.imag**2) * sensitivity
    seen = intensity[: recipe.n_observed, radius >= recipe.beam_stop_px]
    intensity *= np.float32(recipe.photons_per_pixel / seen.mean(dtype=np.float64))
    return intensity, box


def _truth(recipe: MovieRecipe, box_um: float) -> dict[str, Any]:
    r = np.linspace(0.0, 1.4 * recipe.system.cutoff_um, 141)[1:]
    return {
        "system": "self_organising",
        "diffusion_um2_per_s": recipe.system.diffusion_um2_per_s,
        "kernel_r_um": r,
        "kernel_um_per_s": recipe.system.radial_force(r),
        "cutoff_um": recipe.system.cutoff_um,
        "number_density_per_um2": recipe.system.number_density_per_um2,
        "illuminated_box_um": box_um,
        "contrast": 1.0,
    }


def simulate_movie(recipe: MovieRecipe | None = None, seed: int = 0) -> Movie:
    """Let particles organise themselves in a coherent beam and count the scattered photons.

    The sample moves in a periodic box under a soft-edged beam (so particles leave and enter the light as in a real
    sample); each frame is |sum_j w(r_j) exp(-i q.r_j)|^2 times the sphere form factor, read at the pixel centres at the
    instant that a frame begins, plus Poisson noise.

    Returns
    -------
    Movie
        ``n_observed + n_future`` frames, uint16 counts and float32 noise-free intensity.
    """
    recipe = recipe or MovieRecipe()
    rng = np.random.default_rng(seed)
    intensity, box = _expected_photons(recipe, rng)
    counts = np.empty(intensity.shape, np.uint16)
    for frame, expected in enumerate(intensity):
        counts[frame] = np.minimum(rng.poisson(expected), np.iinfo(np.uint16).max)
    sample = {
        "name": "self-organising spheres",
        "composition": "SiO2",
        "number_density_per_um2": recipe.system.number_density_per_um2,
    }
    return Movie(
        counts=counts,
        intensity=intensity,
        geometry=recipe.geometry,
        frame_period_s=recipe.frame_period_s,
        exposure_s=recipe.exposure_s,
        sample=sample,
        n_observed=recipe.n_observed,
        truth=_truth(recipe, box),
    )

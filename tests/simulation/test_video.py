"""Any film of particles becomes scattering frames; the real one gives the diffusion coefficient that tracking gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import curve_fit

from beamline_ml.errors import FramesError
from beamline_ml.simulation import Movie, scattering_from_video
from beamline_ml.simulation.speckle import pixel_dq_inv_um

TRACKED_D_UM2_PER_S = 0.40


def diffusion_from_ring(movie: Movie, low: float, high: float, lags: int) -> float:
    """D of a ring in um^2/s, from a fit of the plain intensity correlation."""
    size = movie.counts.shape[1]
    offset = np.arange(size) - size // 2
    q = np.hypot(offset[:, None], offset[None, :]) * pixel_dq_inv_um(movie.geometry)
    pick = (q >= low) & (q < high)
    pixels = movie.counts[:, pick].astype(float)
    mean = pixels.mean(axis=1)
    g2 = [(pixels[k:] * pixels[:-k]).mean() / (mean[k:] * mean[:-k]).mean() for k in range(1, lags)]
    q2 = q[pick].mean() ** 2
    delay = np.arange(1, lags) * movie.frame_period_s
    fit, _ = curve_fit(lambda t, a, b, d: a + b * np.exp(-2.0 * d * q2 * t), delay, g2, p0=[1.0, 0.8, 0.3])
    return float(fit[2])


def film_of_walkers(shape: tuple[int, int], dtype: str, seed: int = 0) -> np.ndarray:
    """Bright spots of 2 px that diffuse by 0.5 px^2 per frame."""
    rng = np.random.default_rng(seed)
    rows, cols = np.arange(shape[0]), np.arange(shape[1])
    x = rng.uniform(0, 1, (60, 2)) * shape
    frames = []
    for _ in range(120):
        spots_r = np.exp(-0.5 * (rows[:, None] - x[:, 0]) ** 2 / 2.0)
        spots_c = np.exp(-0.5 * (cols[:, None] - x[:, 1]) ** 2 / 2.0)
        frames.append(40.0 + 100.0 * spots_r @ spots_c.T)
        x = (x + rng.standard_normal(x.shape)) % shape
    return np.clip(frames, 0, 255 if dtype == "uint8" else 65535).astype(dtype)


def test_real_colloids_diffuse_as_tracking_says(test_data: Path) -> None:
    with np.load(test_data / "colloids" / "colloids_bulk_water_224x160.npz") as film:
        movie = scattering_from_video(film["frames"], float(film["frame_period_s"]), float(film["um_per_px"]))
    assert movie.counts.shape[1] == movie.counts.shape[2]
    for low, high in ((1.4, 2.0), (1.8, 2.4)):
        assert diffusion_from_ring(movie, low, high, 60) == pytest.approx(TRACKED_D_UM2_PER_S, rel=0.35)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("shape", [(96, 64), (64, 101)])
def test_any_film_keeps_its_dynamics(shape: tuple[int, int], dtype: str) -> None:
    film = film_of_walkers(shape, dtype)
    movie = scattering_from_video(film, 0.02, 0.25)
    true_d = 0.5 * 0.25**2 / 0.02
    assert movie.counts.dtype == np.uint16
    assert diffusion_from_ring(movie, 2.0, 4.5, 12) == pytest.approx(true_d, rel=0.3)


def test_flicker_and_dead_pixels_do_not_matter() -> None:
    film = film_of_walkers((64, 64), "float32")
    spoilt = film * np.linspace(0.5, 1.5, len(film), dtype=np.float32)[:, None, None]
    spoilt[:, 10, 11] = 5000.0
    clean = scattering_from_video(film, 0.02, 0.25)
    dirty = scattering_from_video(spoilt, 0.02, 0.25)
    rate = diffusion_from_ring(clean, 2.0, 4.5, 12)
    assert diffusion_from_ring(dirty, 2.0, 4.5, 12) == pytest.approx(rate, rel=0.15)


def test_geometry_gives_the_films_momentum_transfer() -> None:
    movie = scattering_from_video(film_of_walkers((64, 64), "uint8"), 0.02, 0.25)
    assert pixel_dq_inv_um(movie.geometry) == pytest.approx(2.0 * np.pi / (64 * 0.25), rel=1e-6)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((20, 32)), np.full((20, 32, 32), 7, np.uint8), np.full((20, 32, 32), np.nan), np.zeros((20, 32, 32))],
    ids=["flat", "still", "nan", "black"],
)
def test_films_without_information_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(FramesError):
        scattering_from_video(frames, 0.04, 0.3)

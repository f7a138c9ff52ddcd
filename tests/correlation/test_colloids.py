"""Real particles: video microscopy of diffusing colloids, looked at as coherent scattering."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from beamline_ml.correlation import QMap, bad_pixels, fit_power_law, fit_relaxation, g2_from_two_time, two_time

N_Q = 5
Q_RANGE_INV_UM = (1.3, 2.2)


@pytest.fixture(scope="module")
def video(test_data: Path) -> dict[str, np.ndarray]:
    path = test_data / "colloids" / "colloids_bulk_water_224x160.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there; it is cut from bulk_water of soft-matter/trackpy-examples.")
    with np.load(path) as stored:
        return dict(stored)


def speckle_of(video: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """|FFT of the windowed frame minus the time mean|^2, and |q| in 1/um of every pixel."""
    frames = video["frames"].astype(float)
    window = np.outer(np.hanning(frames.shape[1]), np.hanning(frames.shape[2]))
    pattern = np.abs(np.fft.fft2((frames - frames.mean(axis=0)) * window)) ** 2
    rows, cols = (2 * np.pi * np.fft.fftfreq(n, float(video["um_per_px"])) for n in frames.shape[1:])
    return pattern, np.hypot(rows[:, None], cols[None])


def test_colloids_diffuse_as_they_should(video: dict[str, np.ndarray]) -> None:
    pattern, q_um = speckle_of(video)
    edges = np.linspace(*Q_RANGE_INV_UM, N_Q + 1)
    labels = np.searchsorted(edges, q_um)
    labels[labels > N_Q] = 0
    counts = np.round(pattern * 50 / pattern[:, labels > 0].mean()).astype(np.uint32)
    q = np.array([q_um[labels == k].mean() for k in range(1, N_Q + 1)]) * 1e-4
    assert not bad_pixels(counts)[labels > 0].any()
    c2 = two_time(counts, QMap(labels, q_inv_angstrom=q), frame_period_s=float(video["frame_period_s"]))
    fits = fit_relaxation(g2_from_two_time(c2))
    assert fits.refused == (None,) * N_Q
    np.testing.assert_allclose(fits.contrast, 1.0, atol=0.25)  # one speckle per pixel
    law = fit_power_law(fits)
    assert law.diffusive, law.reason
    assert law.diffusion_coefficient_um2_per_s is not None
    assert law.diffusion_coefficient_um2_per_s_err is not None
    assert law.diffusion_coefficient_um2_per_s == pytest.approx(0.40, rel=0.35)
    assert abs(law.diffusion_coefficient_um2_per_s - 0.40) < 2.5 * law.diffusion_coefficient_um2_per_s_err

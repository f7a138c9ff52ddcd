"""Real films of particles as coherent-scattering movies.

The squared Fourier transform of a microscope frame is the speckle pattern that a plane coherent wave would make on that
sample (Cerbino and Trappe, Phys. Rev. Lett. 100, 188102 (2008), digital Fourier microscopy): its two-time functions
decay with q as the particles move.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from beamline_ml.errors import FramesError
from beamline_ml.records import Float32Array, Float64Array, Geometry
from beamline_ml.simulation.movie import Movie

PHOTON_ENERGY_KEV = 8.0
DETECTOR_DISTANCE_M = 10.0
LIKENESS_FLOOR = 0.7
"""Rings are kept while a frame and the next share this part: beyond, motion is undersampled and camera noise counts."""
SMALLEST_SIZE = 32
MEAN_COUNTS = 200.0


def _checked(frames: NDArray[Any], frame_period_s: float, um_per_px: float) -> NDArray[Any]:
    frames = np.asarray(frames)
    if frames.ndim != 3 or frames.shape[0] < 2 or min(frames.shape[1:]) < 8:
        raise FramesError(
            f"A film must be (n_frames, rows, cols) with 2 frames of 8 x 8 pixels or more, not {frames.shape}.",
            "Give grey-scale frames; take one channel of a colour film.",
        )
    if not (frame_period_s > 0 and um_per_px > 0):
        raise FramesError(
            f"frame_period_s = {frame_period_s} and um_per_px = {um_per_px} must both be positive.",
            "State the film's time between frames in s and its scale in um per pixel.",
        )
    if not np.isfinite(frames).all():
        raise FramesError("The film holds NaN or infinite pixels.", "Replace them, for example by the pixel's median.")
    return frames


def _fluctuations(frames: NDArray[Any]) -> Float32Array:
    """Frames with the lamp's flicker divided out and everything that never moves subtracted."""
    film = frames.astype(np.float32)
    brightness = film.mean(axis=(1, 2))
    if (brightness > 0).all():
        film *= (brightness.mean() / brightness)[:, None, None]
    film -= film.mean(axis=0)
    if not film.any():
        raise FramesError(
            "Nothing moves in this film: every frame is the same.", "Check that the right file was given."
        )
    return film


def _spectra(film: Float32Array) -> NDArray[np.complex64]:
    """Windowed Fourier transform on a square grid, (n_frames, size, size), zero frequency at size // 2."""
    rows, cols = film.shape[1:]
    size = 2 * ((max(rows, cols) + 1) // 2)
    window = np.outer(np.hanning(rows + 2)[1:-1], np.hanning(cols + 2)[1:-1]).astype(np.float32)
    spectra = np.empty((len(film), size, size), np.complex64)
    for k, frame in enumerate(film):
        spectra[k] = np.fft.fftshift(scipy.fft.fft2(frame * window, s=(size, size)))
    return spectra


def _ring_index(size: int) -> NDArray[np.int64]:
    offset = np.arange(size) - size // 2
    return np.rint(np.hypot(offset[:, None], offset[None, :])).astype(np.int64)


def _likeness(spectra: NDArray[np.complex64]) -> Float64Array:
    """Per ring of one pixel: how much a frame and the next have in common, 1 = all, 0 = nothing but camera noise."""
    ring = _ring_index(spectra.shape[1]).ravel()
    power = np.zeros(ring.max() + 1)
    shared = np.zeros_like(power)
    for now, then in pairwise(spectra):
        power += np.bincount(ring, np.abs(now.ravel()) ** 2)
        shared += np.bincount(ring, (now * then.conj()).real.ravel())
    return shared / np.maximum(power, 1e-30)


def _useful_half_size(likeness: Float64Array, half: int) -> int:
    """Radius in pixels up to which rings carry motion and not only camera noise."""
    smooth = np.convolve(likeness[: half + 1], np.ones(3) / 3.0, mode="same")
    poor = np.flatnonzero(smooth[2:] < LIKENESS_FLOOR)
    last = int(poor[0]) + 2 if len(poor) else half
    return int(np.clip(last, min(SMALLEST_SIZE // 2, half), half))


def _equalised(power: Float32Array) -> Float32Array:
    """Power divided by its own ring average over the film, as if the particles scattered equally at every q.

    A film's spectrum falls by orders of magnitude within the width of a usual q ring; what varies there with q and not
    with time would lift the baseline of a plain correlation. Corners beyond the last full ring go with that ring.
    """
    ring = np.minimum(_ring_index(power.shape[1]), power.shape[1] // 2)
    mean = np.bincount(ring.ravel(), power.mean(axis=0).ravel()) / np.bincount(ring.ravel())
    return power / np.maximum(mean, 1e-12 * mean.max())[ring].astype(np.float32)


def _as_counts(power: Float32Array) -> NDArray[np.uint16]:
    """Integer counts, ``MEAN_COUNTS`` a pixel."""
    return np.minimum(np.rint(power * np.float32(MEAN_COUNTS)), np.iinfo(np.uint16).max).astype(np.uint16)


def _equivalent_geometry(size: int, dq_inv_um: float) -> Geometry:
    """Detector on which the pixel beside the direct beam has momentum transfer dq."""
    center = float(size // 2)
    wavelength_um = Geometry(PHOTON_ENERGY_KEV, DETECTOR_DISTANCE_M, 1.0, 0.0, 0.0).wavelength_angstrom * 1e-4
    angle = 2.0 * np.arcsin(dq_inv_um * wavelength_um / (4.0 * np.pi))
    return Geometry(PHOTON_ENERGY_KEV, DETECTOR_DISTANCE_M, float(DETECTOR_DISTANCE_M * np.tan(angle)), center, center)


def scattering_from_video(
    frames: NDArray[Any], frame_period_s: float, um_per_px: float, sample_name: str = "filmed particles"
) -> Movie:
    """Turn any grey-scale film into scattering frames with an equivalent small-angle geometry.

    Frames are divided by their brightness, freed of what never moves (dead pixels, dirt), windowed (Hann), zero-padded
    to a square, Fourier transformed, and each ring is scaled to the same mean counts; the grid is cut where consecutive
    frames no longer share most of their signal.

    Parameters
    ----------
    frames
        (n_frames, rows, cols), any real dtype.
    frame_period_s
        Time between frames in s.
    um_per_px
        Scale of the film in um per pixel.

    Raises
    ------
    FramesError
        When the film has no three dimensions, holds NaN, or nothing moves in it.
    """
    film = _fluctuations(_checked(frames, frame_period_s, um_per_px))
    spectra = _spectra(film)
    size = spectra.shape[1]
    half = _useful_half_size(_likeness(spectra), size // 2)
    middle = size // 2
    power = np.abs(spectra[:, middle - half : middle + half, middle - half : middle + half]) ** 2
    dq = 2.0 * np.pi / (size * um_per_px)
    return Movie(
        counts=_as_counts(_equalised(power)),
        intensity=None,
        geometry=_equivalent_geometry(2 * half, dq),
        frame_period_s=float(frame_period_s),
        exposure_s=float(frame_period_s),
        sample={"name": sample_name},
        n_observed=len(power),
    )

"""Rings of equal width in q from a pyFAI geometry file, which knows tilted detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from beamline_ml.correlation.qmap import QMap
from beamline_ml.errors import GeometryError

_BEAM_STOP_PART = 0.08


def rings_from_poni(path: Path, frame_shape: tuple[int, int] | None, n_q: int) -> QMap:
    """Rings of equal width in q, from a beam-stop margin to the last ring wholly on the detector.

    Raises
    ------
    GeometryError
        When pyFAI is not installed, the file cannot be understood, or no shape is known.
    """
    q = _q_of_pixels(path, frame_shape)
    border = np.concatenate([q[0], q[-1], q[:, 0], q[:, -1]])
    innermost = q.min()
    # With the beam on the detector the border bounds the last whole ring; beside it, every ring is a part of one.
    outer = border.min() if innermost < border.min() else q.max()
    inner = max(innermost, _BEAM_STOP_PART * outer)
    edges = np.linspace(inner, outer, n_q + 1)
    labels = np.digitize(q, edges)
    labels[labels > n_q] = 0
    sums = np.bincount(labels.ravel(), q.ravel(), n_q + 1)[1:]
    counts = np.bincount(labels.ravel(), minlength=n_q + 1)[1:]
    return QMap(labels, q_inv_angstrom=sums / np.maximum(counts, 1))


def _q_of_pixels(path: Path, frame_shape: tuple[int, int] | None) -> NDArray[np.float64]:
    try:
        import pyFAI
    except ImportError as error:
        raise GeometryError(
            f"{path.name} is a pyFAI geometry file, and pyFAI is not installed.",
            'Install it with pip install "beamline-ml[pyfai]".',
        ) from error
    try:
        geometry = pyFAI.load(str(path))
    except (ValueError, KeyError, RuntimeError, OSError) as error:
        raise GeometryError(f"{path} is no readable .poni file: {error}.", "Write it again with pyFAI.") from error
    shape = frame_shape or geometry.detector.shape
    if shape is None or geometry.wavelength is None:
        raise GeometryError(
            f"{path.name} knows no {'detector shape' if shape is None else 'wavelength'}.",
            "Give frame_shape, or a .poni file with a detector and a wavelength.",
        )
    _require_shape(path, geometry.detector.shape, shape)
    return np.asarray(geometry.center_array(shape, unit="q_A^-1"), np.float64)


def _require_shape(path: Path, known: tuple[int, ...] | None, asked: tuple[int, ...]) -> None:
    if known is not None and tuple(known) != tuple(asked):
        hint = "; they look transposed" if tuple(known) == tuple(asked)[::-1] else ""
        raise GeometryError(
            f"The frames are {tuple(asked)} (rows, cols) but the detector in {path.name} is {tuple(known)}{hint}.",
            "Use the .poni file of the detector that took the run.",
        )

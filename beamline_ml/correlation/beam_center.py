"""Where the scattering is centred: its average is symmetric about the beam, so it is registered with itself turned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from skimage.filters import gaussian
from skimage.registration import phase_cross_correlation
from skimage.transform import downscale_local_mean

from beamline_ml.records import BoolArray, Float64Array

MIN_HALF_WIDTH_PX = 24
MOST_BLOCKS = 128
MIN_LIKENESS = 0.8
FEWEST_PAIRS = 100
_OVERLAP = 0.3
_SMALL_STEPS = 6
_SMOOTHING_BLOCKS = 1.5
_LEAST_WEIGHT = 0.25


@dataclass(frozen=True, slots=True)
class BeamCenter:
    """Centre of symmetry of the scattering, 0-based, in pixels from the middle of the first."""

    row_px: float
    column_px: float
    err_px: float
    """Half the distance between the centres that two independent halves of the pixels give, at least 0.1."""

    def distance_px(self, row_px: float, column_px: float) -> float:
        """How far another point is from here."""
        return float(np.hypot(row_px - self.row_px, column_px - self.column_px))


def register_beam_center(
    mean_frame: ArrayLike, usable: ArrayLike, row_px: float, column_px: float
) -> BeamCenter | None:
    """Find the centre of symmetry of the scattering near a supposed beam centre.

    Small-angle scattering is the same at r and -r from the beam. Turned by 180 degrees about the supposed centre, the
    average frame is therefore displaced by twice the error of that centre. Masked phase correlation (D. Padfield, IEEE
    Trans. Image Process. 21, 2706, 2012, as in scikit-image) finds the displacement to half a block of pixels, least
    squares over pairs of opposite blocks the rest. It is done for two halves of the pixels like the fields of a
    chessboard, which share no photon.

    Parameters
    ----------
    mean_frame
        (rows, cols) average counts of many frames.
    usable
        (rows, cols) bool, False where pixels are bad, masked or in a shadow.
    row_px, column_px
        Supposed beam centre.

    Returns
    -------
    None where the centre cannot be told: it lies within 24 pixels of the edge or outside, or the two halves do not
    agree on a symmetric picture (correlation below 0.8).
    """
    frame, good = np.asarray(mean_frame, np.float64), np.asarray(usable, np.bool_)
    good = good & np.isfinite(frame)
    first = np.indices(frame.shape).sum(axis=0) % 2 == 0
    halves = (good & first, good & ~first)
    centers = [_refined(frame, half, (row_px, column_px)) for half in halves]
    one, other = centers
    if one is None or other is None:
        return None
    center = (0.5 * (one[0] + other[0]), 0.5 * (one[1] + other[1]))
    pictures = [_picture(frame, half, center) for half in halves]
    if pictures[0] is None or pictures[1] is None or _likeness(pictures[0], pictures[1]) < MIN_LIKENESS:
        return None
    err_px = 0.5 * float(np.hypot(one[0] - other[0], one[1] - other[1]))
    return BeamCenter(*center, max(err_px, 0.1))


@dataclass(frozen=True, slots=True)
class _Picture:
    """A square about a supposed centre, in blocks of pixels, ready to be compared with itself turned."""

    image: Float64Array
    known: BoolArray
    center: tuple[float, float]
    """Its middle, in pixels of the frame."""
    block_px: int

    @property
    def both(self) -> BoolArray:
        """Blocks that are known together with their partner on the other side of the middle."""
        return self.known & self.known[::-1, ::-1]


def _refined(frame: Float64Array, good: BoolArray, center: tuple[float, float]) -> tuple[float, float] | None:
    """The centre after one large step and some small ones, each from a square about the last; None near the edge."""
    for step in (_large_step, *[_small_step] * _SMALL_STEPS):
        picture = _picture(frame, good, center)
        if picture is None or picture.both.sum() < FEWEST_PAIRS:
            return None
        by = step(picture)
        center = (picture.center[0] + by[0], picture.center[1] + by[1])
    return center


def _large_step(picture: _Picture) -> tuple[float, float]:
    """Half the displacement of the picture against itself turned, to half a block."""
    shift: Any = phase_cross_correlation(
        picture.image,
        picture.image[::-1, ::-1],
        reference_mask=picture.known,
        moving_mask=picture.known[::-1, ::-1],
        overlap_ratio=_OVERLAP,
    )
    row, column = shift[0]
    return 0.5 * picture.block_px * float(row), 0.5 * picture.block_px * float(column)


def _small_step(picture: _Picture) -> tuple[float, float]:
    """Least squares for the displacement d in S(r - d) - S(r + d) = -2 d . grad S, over pairs of known blocks."""
    difference = (picture.image - picture.image[::-1, ::-1])[picture.both]
    gradient: Any = np.gradient(picture.image)
    slopes = [0.5 * (slope - slope[::-1, ::-1])[picture.both] for slope in gradient]
    moved, *_ = np.linalg.lstsq(np.stack(slopes, axis=1), -0.5 * difference, rcond=None)
    row, column = np.clip(moved, -1.0, 1.0) * picture.block_px
    return float(row), float(column)


def _picture(frame: Float64Array, good: BoolArray, center: tuple[float, float]) -> _Picture | None:
    margin = min(center[0], frame.shape[0] - 1 - center[0], center[1], frame.shape[1] - 1 - center[1])
    if not margin >= MIN_HALF_WIDTH_PX:
        return None
    block_px = max(2, math.ceil(2 * margin / MOST_BLOCKS))
    side_px = int(2 * margin) // block_px * block_px
    first = [round(at - 0.5 * (side_px - 1)) for at in center]
    square = tuple(slice(lo, lo + side_px) for lo in first)
    weight = downscale_local_mean(good[square].astype(np.float64), (block_px, block_px))
    total = downscale_local_mean(np.where(good, frame, 0.0)[square], (block_px, block_px))
    smooth_weight, smooth_total = (gaussian(one, _SMOOTHING_BLOCKS) for one in (weight, total))
    known = smooth_weight > _LEAST_WEIGHT
    mean = smooth_total / np.where(known, smooth_weight, 1.0)
    # The root makes the counting noise of all blocks the same.
    image = np.where(known, np.sqrt(np.maximum(mean, 0.0)), 0.0)
    return _Picture(image, known, (first[0] + 0.5 * (side_px - 1), first[1] + 0.5 * (side_px - 1)), block_px)


def _likeness(one: _Picture, other: _Picture) -> float:
    """Correlation of one half of the pixels with the other half turned; 0 where nothing varies."""
    both = one.known & other.known[::-1, ::-1]
    first, second = one.image[both], other.image[::-1, ::-1][both]
    scatter = float(first.std() * second.std())
    return float(np.cov(first, second, bias=True)[0, 1]) / scatter if scatter > 0 else 0.0

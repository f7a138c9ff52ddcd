"""Which detector pixel belongs to which q bin."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from beamline_ml.correlation.partition import partition
from beamline_ml.errors import GeometryError
from beamline_ml.records import BoolArray, Float64Array, Geometry, IntArray


class QMap:
    """Pixels grouped into dynamic q bins and, inside them, static bins.

    Parameters
    ----------
    labels
        (rows, cols) integers: 0 = unused, dynamic bins numbered 1, 2, ... without a gap.
    static_labels
        (rows, cols) integers of finer bins that smooth the mean intensity for ``normalization="static"``; 0 = unused.
        Each static bin lies inside one dynamic bin and every used pixel has one. None: the dynamic bins.
    mask
        (rows, cols) bool, **True = use the pixel** (the convention of APS q-map files). ``bad_pixels`` returns the
        opposite, True = bad; pass that to :meth:`without`. None: use every labelled pixel.
    flatfield
        (rows, cols) positive floats, the relative gain of each pixel: counts are divided by it. None: all equal.
    q_inv_angstrom
        (n_q,) mean momentum transfer of each dynamic bin in 1/angstrom. None: unknown (NaN).

    Raises
    ------
    GeometryError
        Shapes disagree, labels are not whole numbers from 1 without a gap, a mask empties a bin, a static bin lies in
        two dynamic bins, or the flat field is not positive and finite where pixels are used.
    """

    def __init__(
        self,
        labels: ArrayLike,
        static_labels: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        flatfield: ArrayLike | None = None,
        q_inv_angstrom: ArrayLike | None = None,
    ) -> None:
        self.labels: IntArray = _labels("labels", labels)
        self.mask: BoolArray = _mask(mask, self.labels.shape)
        n_q = int(self.labels.max(initial=0))
        _check_bins(self.labels, n_q, "labels")
        self.labels = np.where(self.mask, self.labels, 0)
        _check_not_emptied(self.labels, n_q)
        self.static_labels: IntArray = _static(static_labels, self.labels)
        self.flatfield: Float64Array | None = _flatfield(flatfield, self.labels)
        self.q_inv_angstrom: Float64Array = _q(q_inv_angstrom, n_q)
        self.n_bad_pixels = 0
        """Labelled pixels that :meth:`without` took out."""
        for array in (self.labels, self.mask, self.static_labels, self.q_inv_angstrom):
            array.setflags(write=False)

    @classmethod
    def from_geometry(
        cls,
        geometry: Geometry,
        frame_shape: tuple[int, int],
        n_q: int = 8,
        q_min_inv_angstrom: float | None = None,
        q_max_inv_angstrom: float | None = None,
        n_phi: int = 1,
        n_static: int | None = None,
        mask: ArrayLike | None = None,
        flatfield: ArrayLike | None = None,
    ) -> Self:
        """Rings of equal width in q (times ``n_phi`` sectors) computed from the experiment's geometry.

        Parameters
        ----------
        geometry
            Energy, distance, pixel size and beam centre.
        frame_shape
            (rows, cols) of the detector.
        n_q, n_phi
            Rings and sectors; bin ``ring * n_phi + sector + 1``, sectors counted from the +column axis towards +row.
        q_min_inv_angstrom, q_max_inv_angstrom
            Inner and outer edge in 1/angstrom. Default: from a beam-stop margin (8 % of the outer radius, at least
            3 pixels) to the last ring that lies wholly on the detector; when the beam misses the detector, all of it.
        n_static
            Static rings in all, a multiple of ``n_q``. Default: static bins are the dynamic bins.
        mask
            (rows, cols) bool, True = use. Bins that the mask empties are refused.

        Raises
        ------
        GeometryError
            The geometry is not physical, or a ring holds no pixel.
        """
        labels, static, q_mean = partition(
            geometry, frame_shape, n_q, (q_min_inv_angstrom, q_max_inv_angstrom), n_phi, n_static, mask
        )
        return cls(labels, static, mask, flatfield, q_mean)

    @property
    def n_q(self) -> int:
        """Number of dynamic bins."""
        return int(self.labels.max())

    @property
    def n_static(self) -> int:
        """Number of static bins."""
        return int(self.static_labels.max())

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(rows, cols) of a frame."""
        return self.labels.shape[0], self.labels.shape[1]

    @property
    def n_pixels(self) -> IntArray:
        """(n_q,) used pixels of each dynamic bin."""
        return np.bincount(self.labels.ravel(), minlength=self.n_q + 1)[1:].astype(np.int64)

    @property
    def n_static_pixels(self) -> IntArray:
        """(n_static,) used pixels of each static bin."""
        return np.bincount(self.static_labels.ravel(), minlength=self.n_static + 1)[1:].astype(np.int64)

    @property
    def dynamic_of_static(self) -> IntArray:
        """(n_static,) 0-based dynamic bin in which each static bin lies."""
        owner = np.zeros(self.n_static + 1, np.int64)
        owner[self.static_labels.ravel()] = self.labels.ravel()
        return owner[1:] - 1

    def without(self, bad: ArrayLike) -> QMap:
        """The same map without the pixels where ``bad`` (rows, cols) is True, as ``bad_pixels`` returns them."""
        bad_array = np.asarray(bad, bool)
        if bad_array.shape != self.labels.shape:
            raise _shape_error("bad-pixel map", bad_array.shape, self.labels.shape)
        q = None if np.isnan(self.q_inv_angstrom).all() else self.q_inv_angstrom
        cleaned = QMap(self.labels, self.static_labels, self.mask & ~bad_array, self.flatfield, q)
        cleaned.n_bad_pixels = self.n_bad_pixels + int((bad_array & (self.labels > 0)).sum())
        return cleaned

    def check_frames(self, frame_shape: tuple[int, ...]) -> None:
        """Raise :class:`GeometryError` unless frames of this (rows, cols) fit the map."""
        if tuple(frame_shape) == self.frame_shape:
            return
        hint = "; the map looks transposed" if tuple(frame_shape[::-1]) == self.frame_shape else ""
        raise GeometryError(
            f"The frames are {tuple(frame_shape)} (rows, cols) but the q-map is {self.frame_shape}{hint}.",
            "Load the q-map that was made for this detector, or transpose it (labels.T).",
        )


def _shape_error(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> GeometryError:
    hint = "; it looks transposed" if shape == expected[::-1] else ""
    return GeometryError(
        f"The {name} is {shape} (rows, cols) but the labels are {expected}{hint}.",
        "Give one value per detector pixel, in the orientation of the frames.",
    )


def _labels(name: str, labels: ArrayLike) -> IntArray:
    array = np.asarray(labels)
    if array.ndim != 2 or array.size == 0:
        raise GeometryError(f"The {name} have shape {array.shape}.", "Give a non-empty (rows, cols) array.")
    whole = array.astype(np.int64) if array.dtype.kind in "iub" or np.isfinite(array).all() else None
    if whole is None or not np.array_equal(whole, array) or whole.min() < 0:
        raise GeometryError(f"The {name} hold negative or broken numbers.", "Use 0 for unused and 1, 2, ... for bins.")
    return whole


def _mask(mask: ArrayLike | None, shape: tuple[int, ...]) -> BoolArray:
    if mask is None:
        return np.ones(shape, np.bool_)
    array = np.asarray(mask).astype(np.bool_)
    if array.shape != shape:
        raise _shape_error("mask", array.shape, shape)
    return array


def _check_bins(labels: IntArray, n_bins: int, name: str) -> None:
    if n_bins == 0:
        raise GeometryError(f"The {name} use no pixel.", "Give at least one bin numbered 1.")
    empty = np.flatnonzero(np.bincount(labels.ravel(), minlength=n_bins + 1)[1:] == 0) + 1
    if empty.size:
        raise GeometryError(
            f"The {name} run to {n_bins} but {_some(empty)} have no pixel.", "Number the bins 1, 2, ... without a gap."
        )


def _check_not_emptied(labels: IntArray, n_q: int) -> None:
    empty = np.flatnonzero(np.bincount(labels.ravel(), minlength=n_q + 1)[1:] == 0) + 1
    if empty.size:
        raise GeometryError(
            f"The mask leaves {_some(empty)} of {n_q} without a pixel.",
            "Remember that True means 'use this pixel' (for a map of bad pixels call qmap.without(bad)), "
            "or leave these bins out of the labels.",
        )


def _some(bins: NDArray[Any]) -> str:
    shown = ", ".join(str(int(b)) for b in bins[:5])
    return f"bin(s) {shown}{', ...' if bins.size > 5 else ''}"


def _static(static_labels: ArrayLike | None, labels: IntArray) -> IntArray:
    if static_labels is None:
        return labels.copy()
    static = _labels("static labels", static_labels)
    if static.shape != labels.shape:
        raise _shape_error("static label map", static.shape, labels.shape)
    used = labels > 0
    if (static[used] == 0).any():
        raise GeometryError(
            f"{int((static[used] == 0).sum())} pixels have a dynamic bin but no static bin.",
            "Give every used pixel a static bin, or leave static_labels out.",
        )
    # A static bin that the mask emptied would be a gap in the numbering: close the ranks.
    kept, compact = np.unique(static[used], return_inverse=True)
    result = np.zeros_like(static)
    result[used] = compact + 1
    pairs = np.unique(np.stack([result[used], labels[used]]), axis=1)
    shared = np.flatnonzero(np.bincount(pairs[0]) > 1)
    if shared.size:
        raise GeometryError(
            f"Static {_some(kept[shared - 1])} lie in more than one dynamic bin.",
            "Make the static bins a refinement of the dynamic bins.",
        )
    return result


def _flatfield(flatfield: ArrayLike | None, labels: IntArray) -> Float64Array | None:
    if flatfield is None:
        return None
    gain = np.asarray(flatfield, np.float64)
    if gain.shape != labels.shape:
        raise _shape_error("flat field", gain.shape, labels.shape)
    bad = ~(np.isfinite(gain) & (gain > 0)) & (labels > 0)
    if bad.any():
        raise GeometryError(
            f"The flat field is zero, negative or not finite in {int(bad.sum())} used pixels.", "Mask these pixels."
        )
    return gain


def _q(q_inv_angstrom: ArrayLike | None, n_q: int) -> Float64Array:
    if q_inv_angstrom is None:
        return np.full(n_q, np.nan)
    q = np.array(q_inv_angstrom, np.float64).reshape(-1)
    if q.shape != (n_q,):
        raise GeometryError(f"There are {n_q} q bins but {q.size} q values.", "Give one q in 1/angstrom per bin.")
    return q

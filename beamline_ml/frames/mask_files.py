"""Read masks: which pixels to use. Nonzero means use, as in APS q-map files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FileMissing, FileRefused, FramesError, GeometryError
from beamline_ml.frames.hdf5_gate import read_numbers
from beamline_ml.records import BoolArray

_MAX_BYTES = 2**30
_HDF5_NAMES = ("mask", "qmap/mask", "xpcs/qmap/mask", "entry/mask", "data")


def load_mask(path: str | Path, frame_shape: tuple[int, int] | None = None) -> BoolArray:
    """Read which pixels to use.

    Parameters
    ----------
    path
        ``.npy``, ``.tif``/``.tiff``, or HDF5 with a dataset ``mask`` (or ``qmap/mask``, ``entry/mask``, ``data``).
    frame_shape
        (rows, cols) of the frames that the mask must fit.

    Returns
    -------
    mask
        (rows, cols) bool, True = use.

    Raises
    ------
    FileMissing
        When there is no such file.
    GeometryError
        When it is no mask, uses no pixel, or does not fit the frames; both shapes are named.
    """
    file = Path(path)
    if not file.is_file():
        raise FileMissing(f"There is no mask file {file}.", "Check the parameter mask.")
    try:
        values = _read(file)
    except (OSError, ValueError, FramesError) as error:
        raise GeometryError(
            f"{file} is no readable mask: {error}.", "Save the mask with numpy.save, as TIFF, or as an HDF5 dataset."
        ) from error
    return _checked(values, file, frame_shape)


def _read(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return np.array(_within_budget(mapped, path))
    if suffix in (".tif", ".tiff"):
        return _read_tiff(path)
    with h5py.File(path, "r") as file:
        name = next((name for name in _HDF5_NAMES if name in file), None)
        if name is None:
            raise ValueError(f"it has none of the datasets {', '.join(_HDF5_NAMES)}")
        return read_numbers(file, name, _MAX_BYTES)


def _read_tiff(path: Path) -> NDArray[Any]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        if math.prod(page.shape) * 8 > _MAX_BYTES:
            raise FileRefused(f"{path} has shape {page.shape}.", "Give a mask made for this detector.")
        return np.asarray(page.asarray())


def _within_budget(array: NDArray[Any], path: Path) -> NDArray[Any]:
    if array.nbytes > _MAX_BYTES:
        raise FileRefused(f"{path} has shape {array.shape}.", "Give a mask made for this detector.")
    return array


def _checked(values: NDArray[Any], path: Path, frame_shape: tuple[int, int] | None) -> BoolArray:
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise GeometryError(
            f"{path.name} holds {values.dtype} of shape {values.shape}.", "A mask is a (rows, cols) array of numbers."
        )
    if frame_shape is not None and values.shape != tuple(frame_shape):
        hint = "; the mask looks transposed" if values.shape == tuple(frame_shape)[::-1] else ""
        raise GeometryError(
            f"The frames are {tuple(frame_shape)} (rows, cols) but the mask {path.name} is {values.shape}{hint}.",
            "Give the mask of the detector that took the run, in the orientation of its frames.",
        )
    mask = np.nan_to_num(values) != 0
    if not mask.any():
        raise GeometryError(f"{path.name} uses no pixel.", "Nonzero means use; invert the mask if it marks bad pixels.")
    return mask

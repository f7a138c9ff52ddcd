"""Movie files: scattering frames that a detector can play back, in areaDetector's HDF5 layout.

The frames lie in ``/entry/data/data``; geometry and timing in the NeXus fields that areaDetector and APS files use
(``/entry/instrument/...``, with a ``units`` attribute each); the sample in ``/entry/sample/description`` as JSON.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import FileMissing, FramesError
from beamline_ml.records import Geometry

DATA = "entry/data/data"
DETECTOR = "entry/instrument/detector_1"
ENERGY = "entry/instrument/incident_beam/incident_energy"
SAMPLE = "entry/sample/description"
TIMESTAMPS = "entry/instrument/NDAttributes/NDArrayTimeStamp"

_CHUNK_FRAMES = 16
_DEFAULT_PERIOD_S = 0.01


def write_movie(
    path: Path,
    counts: NDArray[Any],
    geometry: Geometry,
    frame_period_s: float,
    exposure_s: float,
    sample: dict[str, Any],
) -> None:
    """Write frames and what is needed to understand them.

    Parameters
    ----------
    path
        File to create; an existing one is replaced once the new one is complete.
    counts
        Frames, (n_frames, rows, cols), unsigned integers.
    geometry
        Energy, distance, pixel size and beam centre.
    frame_period_s, exposure_s
        Time between frames and exposure of a frame in s.
    sample
        JSON-serialisable description with at least ``name``.

    Raises
    ------
    FramesError
        When the frames are no (n, rows, cols) array of unsigned integers.
    """
    if counts.ndim != 3 or counts.dtype.kind != "u":
        raise FramesError(
            f"A movie needs unsigned integer frames (n, rows, cols), not {counts.dtype} of shape {counts.shape}.",
            "Convert a video with beamline_ml.simulation.scattering_from_video first.",
        )
    unfinished = path.with_suffix(".partial")
    with h5py.File(unfinished, "w", libver="latest") as file:
        chunks = (min(_CHUNK_FRAMES, len(counts)), *counts.shape[1:])
        file.create_dataset(DATA, data=counts, chunks=chunks, **hdf5plugin.Bitshuffle(cname="lz4"))
        for name, value, unit in _instrument_fields(geometry, frame_period_s, exposure_s):
            file.create_dataset(name, data=float(value), dtype="<f8").attrs["units"] = unit
        file.create_dataset(SAMPLE, data=json.dumps(sample), dtype=h5py.string_dtype())
    unfinished.replace(path)


def _instrument_fields(
    geometry: Geometry, frame_period_s: float, exposure_s: float
) -> tuple[tuple[str, float, str], ...]:
    return (
        (ENERGY, geometry.photon_energy_kev, "keV"),
        (f"{DETECTOR}/distance", geometry.detector_distance_m, "m"),
        (f"{DETECTOR}/x_pixel_size", geometry.pixel_size_m, "m"),
        (f"{DETECTOR}/y_pixel_size", geometry.pixel_size_m, "m"),
        (f"{DETECTOR}/beam_center_x", geometry.beam_center_column_px, "pixel"),
        (f"{DETECTOR}/beam_center_y", geometry.beam_center_row_px, "pixel"),
        (f"{DETECTOR}/frame_time", frame_period_s, "s"),
        (f"{DETECTOR}/count_time", exposure_s, "s"),
    )


@dataclass(frozen=True)
class MovieFile:
    """An open movie; a context manager that closes the file."""

    path: Path
    geometry: Geometry
    frame_period_s: float
    exposure_s: float
    sample: dict[str, Any]
    assumed: tuple[str, ...]
    """Names of values that the file does not say and that were assumed."""
    _file: h5py.File

    @property
    def _data(self) -> h5py.Dataset:
        return self._file[DATA]

    @property
    def n_frames(self) -> int:
        """Number of frames in the file."""
        return int(self._data.shape[0])

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return int(self._data.shape[1]), int(self._data.shape[2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""
        return np.dtype(self._data.dtype)

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Frames ``first`` to ``last`` (exclusive), (last - first, rows, cols).

        Raises
        ------
        FramesError
            When the movie ends before ``last``.
        """
        if not 0 <= first <= last <= self.n_frames:
            raise FramesError(
                f"Frames {first} to {last} were asked of {self.path.name}, which has {self.n_frames}.",
                "Ask for fewer frames, or make a longer movie.",
            )
        return np.asarray(self._data[first:last])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_movie(path: Path) -> MovieFile:
    """Open a movie written by :func:`write_movie`, or any areaDetector HDF5 file with scattering frames.

    What the file does not say is assumed and listed in ``assumed``: 100 Hz, 8 keV, 10 m, 75 um pixels, the beam in
    the middle.

    Raises
    ------
    FileMissing
        When there is no such file.
    FramesError
        When it is no HDF5 file or holds no (n, rows, cols) integer frames in ``/entry/data/data``.
    """
    if not path.is_file():
        raise FileMissing(f"There is no movie {path}.", "Check the path.")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise FramesError(f"{path} is no HDF5 file ({error}).", "Give an areaDetector HDF5 file.") from error
    data = file.get(DATA)
    if not isinstance(data, h5py.Dataset) or data.ndim != 3 or data.dtype.kind not in "ui" or 0 in data.shape:
        file.close()
        raise FramesError(
            f"{path} holds no integer frames (n, rows, cols) in /{DATA}.",
            "Give an areaDetector HDF5 file with scattering frames, or an .npz video with frames, frame_period_s and "
            "um_per_px.",
        )
    return _described(path, file, data)


def _described(path: Path, file: h5py.File, data: h5py.Dataset) -> MovieFile:
    assumed: list[str] = []

    def value(name: str, default: float) -> float:
        if name in file:
            return float(np.asarray(file[name]).reshape(-1)[0])
        assumed.append(f"{name.rsplit('/', 1)[-1]} = {default:g}")
        return default

    geometry = Geometry(
        photon_energy_kev=value(ENERGY, 8.0),
        detector_distance_m=value(f"{DETECTOR}/distance", 10.0),
        pixel_size_m=value(f"{DETECTOR}/x_pixel_size", 75e-6),
        beam_center_row_px=value(f"{DETECTOR}/beam_center_y", (data.shape[1] - 1) / 2),
        beam_center_column_px=value(f"{DETECTOR}/beam_center_x", (data.shape[2] - 1) / 2),
    )
    frame_period_s = value(f"{DETECTOR}/frame_time", _period_from_timestamps(file))
    return MovieFile(
        path=path,
        geometry=geometry,
        frame_period_s=frame_period_s,
        exposure_s=value(f"{DETECTOR}/count_time", 0.9 * frame_period_s),
        sample=_sample(file, path),
        assumed=tuple(assumed),
        _file=file,
    )


def _period_from_timestamps(file: h5py.File) -> float:
    """Median step of areaDetector's time stamps, in s; the default where there are none."""
    if TIMESTAMPS not in file or file[TIMESTAMPS].shape[0] < 2:
        return _DEFAULT_PERIOD_S
    step_s = float(np.median(np.diff(np.asarray(file[TIMESTAMPS], dtype=np.float64).reshape(-1))))
    return step_s if step_s > 0 else _DEFAULT_PERIOD_S


def _sample(file: h5py.File, path: Path) -> dict[str, Any]:
    if SAMPLE not in file:
        return {"name": path.stem}
    description = json.loads(file[SAMPLE].asstr()[()])
    return {"name": path.stem, **description}

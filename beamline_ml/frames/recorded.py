"""What a detector file says about how its frames were taken: timing, energy, distance, pixel size, beam centre."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from beamline_ml.errors import FramesError
from beamline_ml.frames.hdf5_gate import contained_dataset, contains, read_numbers
from beamline_ml.records import Geometry

_TOLERANCE = 1e-3
_HC_KEV_ANGSTROM = Geometry(1.0, 1.0, 1.0, 0.0, 0.0).wavelength_angstrom
_MAX_BYTES = 4096
_SCALE = (
    dict.fromkeys(("m", "meter", "meters", "s", "second", "seconds", "kev", "a", "å", "angstrom"), 1.0)
    | dict.fromkeys(("pixel", "pixels", "px"), 1.0)
    | {"cm": 1e-2, "mm": 1e-3, "um": 1e-6, "µm": 1e-6}
    | {"ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9, "ev": 1e-3}
)
"""To s, m, keV, angstrom and pixels; looked up in lower case."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the file says; None where it is silent."""

    frame_period_s: float | None = None
    """Time between the starts of two frames in s."""
    exposure_s: float | None = None
    photon_energy_kev: float | None = None
    detector_distance_m: float | None = None
    pixel_size_m: float | None = None
    beam_center_row_px: float | None = None
    beam_center_column_px: float | None = None
    notes: tuple[str, ...] = ()
    """What the file says twice and differently, and which of the two was used."""

    @property
    def geometry(self) -> Geometry | None:
        """Energy, distance, pixel size and beam centre, when the file says all of them."""
        values = (
            self.photon_energy_kev,
            self.detector_distance_m,
            self.pixel_size_m,
            self.beam_center_row_px,
            self.beam_center_column_px,
        )
        known = [value for value in values if value is not None]
        return Geometry(*known) if len(known) == len(values) else None

    def disagreements(self, geometry: Geometry, exposure_s: float) -> tuple[str, ...]:
        """Where the file says another geometry or exposure than the run, by more than 0.1 %; the run is believed."""
        of_run = {**asdict(geometry), "exposure_s": exposure_s}
        both = ((name, getattr(self, name), value) for name, value in of_run.items())
        return tuple(
            f"The run says {name} = {value:.6g}, the detector file {said:.6g}; that of the run was used."
            for name, said, value in both
            if said is not None and not math.isclose(said, value, rel_tol=_TOLERANCE)
        )


@dataclass(frozen=True, slots=True)
class _Place:
    path: str
    unit: str
    """Unit where the file names none."""
    is_wavelength: bool = False


def _detector(name: str, unit: str) -> tuple[_Place, ...]:
    """DECTRIS masters call the detector ``detector``, areaDetector movies and APS files ``detector_1``."""
    return tuple(_Place(f"entry/instrument/{group}/{name}", unit) for group in ("detector", "detector_1"))


_PLACES: dict[str, tuple[_Place, ...]] = {
    "frame_period_s": _detector("frame_time", "s"),
    "exposure_s": _detector("count_time", "s"),
    "photon_energy_kev": (
        _Place("entry/instrument/incident_beam/incident_energy", "kev"),
        _Place("entry/instrument/beam/incident_wavelength", "angstrom", is_wavelength=True),
        _Place("entry/instrument/detector/detectorSpecific/photon_energy", "ev"),
    ),
    "detector_distance_m": (*_detector("detector_distance", "m"), *_detector("distance", "m")),
    "pixel_size_m": (*_detector("x_pixel_size", "m"), *_detector("y_pixel_size", "m")),
    "beam_center_row_px": _detector("beam_center_y", "pixel"),
    "beam_center_column_px": _detector("beam_center_x", "pixel"),
}
"""Where to look, the most trusted place first; the others are compared with it."""

_ANY_SIGN = {"beam_center_row_px", "beam_center_column_px"}


def recorded_in(file: h5py.File, frame_period_s: float | None = None) -> Recorded:
    """Read what an open HDF5 file of an Eiger, an areaDetector or the APS says.

    Where a value stands in several places the first of these is used, and a note is made when they differ by more than
    0.1 %: ``detector_distance`` before ``distance``; ``incident_energy`` before ``incident_wavelength`` before the
    detector's ``photon_energy`` setting; ``x_pixel_size`` before ``y_pixel_size``.

    Parameters
    ----------
    frame_period_s
        Overrides the file; then the file may also say zero.

    Raises
    ------
    FramesError
        When a value is no single finite number, is in an unknown unit, or the frame time is zero or negative.
    """
    notes: list[str] = []
    values: dict[str, Any] = {}
    for name, places in _PLACES.items():
        if name == "frame_period_s" and frame_period_s is not None:
            values[name] = frame_period_s
            continue
        said = [(place.path, value) for place in places for value in _said(file, place)]
        values[name] = _agreed(name, said, Path(file.filename), notes)
    return Recorded(**values, notes=tuple(notes))


def _said(file: h5py.File, place: _Place) -> Iterator[float]:
    if not contains(file, place.path):
        return
    value = single_number(file, place.path) * _factor(file, place)
    yield _HC_KEV_ANGSTROM / value if place.is_wavelength and value > 0 else value


def single_number(file: h5py.File, name: str) -> float:
    """One number, also where a writer made a (1,) or (1, 1) array of it.

    Raises
    ------
    FramesError
        When it is not one finite number.
    """
    values = read_numbers(file, name, _MAX_BYTES).reshape(-1)
    if values.size != 1 or not np.isfinite(values[0]):
        raise FramesError(
            f"{name} in {file.filename} is not one number but {values[:3].tolist()}.",
            "Correct it in the file (h5py), or give the value by hand.",
        )
    return float(values[0])


def _factor(file: h5py.File, place: _Place) -> float:
    unit = contained_dataset(file, place.path).attrs.get("units", place.unit)
    text = unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)
    if text.strip().lower() not in _SCALE:
        raise FramesError(
            f"{place.path} in {file.filename} is in {text!r}.", f"Write it in {place.unit} and say so in its units."
        )
    return _SCALE[text.strip().lower()]


def _agreed(name: str, said: list[tuple[str, float]], path: Path, notes: list[str]) -> float | None:
    if name == "frame_period_s" and said and said[0][1] <= 0:
        raise FramesError(
            f"The frame time in {path.name} ({said[0][0]}) is {said[0][1]:g} s.",
            "Give the time between two frames by hand (frame_period_s), or correct the file.",
        )
    # A detector that was never told its distance writes zero.
    usable = [(where, value) for where, value in said if name in _ANY_SIGN or value > 0]
    if not usable:
        return None
    where, chosen = usable[0]
    for other, value in usable[1:]:
        if not math.isclose(value, chosen, rel_tol=_TOLERANCE):
            notes.append(
                f"{path.name} says {name} = {chosen:.6g} in {where} and {value:.6g} in {other}; the first was used."
            )
    return chosen

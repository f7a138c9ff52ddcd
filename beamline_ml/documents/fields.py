"""Where beamlines record what the analysis needs, and what makes sense there.

``FIELDS`` is the whole table. Each field has a unit in its name, a range outside which a number is a mistake rather
than a measurement, and places to look in order of precedence. The first place that says anything is used; a later
place that disagrees becomes a warning. A profile adds its own places in front
(:class:`beamline_ml.settings.MetadataSettings`).

A place is a path: ``start.`` leads into the start document, ``config.`` into the configuration readings of the
detector's descriptor. ``{detector}`` stands for the name of the detector device.

The names come from what beamlines record today: the plan of beamline-ml (``start.xpcs``), NSLS-II CHX (Eiger detectors
report ``<detector>_beam_center_x``, ``_wavelength``, ``_det_distance``, ``_cam_acquire_period``), APS 8-ID
(``create_run_metadata_dict`` writes ``X_energy``, ``bcx``, ``det_dist``, ``pix_dim_x``, ``t0``, ``t1``, later
``energy``, ``beam_center_x``, ``count_time``, ``frame_time``) and ophyd-async area detectors
(``<detector>-driver-acquire_period``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from beamline_ml.errors import SettingsError
from beamline_ml.settings import MetadataSettings

HC_KEV_ANGSTROM = 12.398419843320026
"""Planck's constant times the speed of light (CODATA 2018)."""

RELATIVE_TOLERANCE = 1e-3
"""Two places agree when they differ by less than this part of the value."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place where a field may be recorded."""

    path: str
    """Dotted path starting with ``start`` or ``config``."""
    scale: float = 1.0
    """Factor from the recorded unit to the unit of the field."""
    is_wavelength: bool = False
    """Whether the place holds a wavelength in angstrom that stands for a photon energy."""

    def convert(self, value: float) -> float:
        """Bring a recorded number into the unit of the field."""
        return HC_KEV_ANGSTROM / value if self.is_wavelength else value * self.scale


@dataclass(frozen=True, slots=True)
class Field:
    """Something that the analysis must know about a run."""

    name: str
    """Name with its unit; the same as in :class:`beamline_ml.records.Geometry` or ``RunDescription``."""
    lowest: float
    """Smallest value that makes sense (exclusive)."""
    highest: float
    """Largest value that makes sense."""
    places: tuple[Place, ...]
    """Where to look, the most trusted place first."""

    def plausible(self, value: float) -> bool:
        """Whether a number in the field's unit can be a measurement."""
        return self.lowest < value <= self.highest


def _places(*paths: str) -> tuple[Place, ...]:
    return tuple(Place(path) for path in paths)


ENERGY = Field(
    "photon_energy_kev",
    0.1,
    200.0,
    (
        *_places("start.xpcs.photon_energy_kev", "start.X_energy", "start.energy"),
        Place("config.{detector}_photon_energy", scale=1e-3),
        Place("start.photon_energy", scale=1e-3),
        Place("config.{detector}_wavelength", is_wavelength=True),
        Place("start.wavelength", is_wavelength=True),
    ),
)
DISTANCE = Field(
    "detector_distance_m",
    0.005,
    200.0,
    _places(
        "start.xpcs.detector_distance_m",
        "start.det_dist",
        "start.det_distance",
        "start.detector_distance",
        "config.{detector}_det_distance",
        "config.{detector}-det_distance",
    ),
)
PIXEL_SIZE = Field(
    "pixel_size_m",
    1e-8,
    0.01,
    _places(
        "start.xpcs.pixel_size_m",
        "start.pix_dim_x",
        "start.x_pixel_size",
        "config.{detector}_x_pixel_size",
        "config.{detector}_pixel_size",
    ),
)
BEAM_ROW = Field(
    "beam_center_row_px",
    -1e5,
    1e5,
    _places("start.xpcs.beam_center_row_px", "start.bcy", "start.beam_center_y", "config.{detector}_beam_center_y"),
)
BEAM_COLUMN = Field(
    "beam_center_column_px",
    -1e5,
    1e5,
    _places("start.xpcs.beam_center_column_px", "start.bcx", "start.beam_center_x", "config.{detector}_beam_center_x"),
)
FRAME_PERIOD = Field(
    "frame_period_s",
    0.0,
    1e5,
    _places(
        "start.xpcs.frame_period_s",
        "start.t1",
        "start.frame_time",
        "start.cam_acquire_period",
        "config.{detector}_cam_acquire_period",
        "config.{detector}-driver-acquire_period",
        "config.{detector}-acquire_period",
    ),
)
EXPOSURE = Field(
    "exposure_s",
    0.0,
    1e5,
    _places(
        "start.xpcs.exposure_s",
        "start.t0",
        "start.count_time",
        "start.cam_acquire_time",
        "config.{detector}_cam_acquire_time",
        "config.{detector}-driver-acquire_time",
        "config.{detector}-acquire_time",
    ),
)

GEOMETRY_FIELDS = (ENERGY, DISTANCE, PIXEL_SIZE, BEAM_ROW, BEAM_COLUMN)
FIELDS = (*GEOMETRY_FIELDS, FRAME_PERIOD, EXPOSURE)

Lookup = Callable[[str], object]
"""What stands at a dotted path of the documents; :data:`ABSENT` when nothing does."""

ABSENT = object()
"""Marks a path that the documents do not have, so that a recorded None is still something that was said."""


def beamline_places(metadata: MetadataSettings) -> dict[str, tuple[Place, ...]]:
    """The additional places that a profile names, by field.

    Raises
    ------
    SettingsError
        When the profile names a field that the analysis does not ask for, or a place outside the documents.
    """
    known = {field.name for field in FIELDS}
    unknown = sorted(set(metadata.places) - known)
    if unknown:
        raise SettingsError(
            f"[metadata.places] names {', '.join(unknown)}.", f"The analysis asks for {', '.join(sorted(known))}."
        )
    paths = [place.path for places in metadata.places.values() for place in places]
    wrong = [path for path in paths if not path.startswith(("start.", "config."))]
    if wrong:
        raise SettingsError(
            f"[metadata.places] leads to {', '.join(wrong)}.",
            "Begin each path with start. (start document) or config. (detector configuration).",
        )
    return {name: tuple(Place(place.path, place.scale) for place in places) for name, places in metadata.places.items()}

"""What a pattern fit must remember to go on with new frames: an information filter's state, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from beamline_ml.dynamics.stored import record_arrays, stored_fields
from beamline_ml.records import Float64Array, IntArray

VERSION = 5
RECENT_FRAMES = 16
"""That are kept for simple forecasts to go on from."""


@dataclass(frozen=True)
class PatternState:
    """Knowledge of the parameters and the particles at the last frame; its size does not depend on the run's length."""

    mean: Float64Array
    """(m + 1,) parameters of the law in their ``unit``, and the logarithm of the photons per unit of intensity over
    ``first_photons_per_intensity``."""
    information: Float64Array
    """(m + 1, m + 1) what all frames so far said, without the prior."""
    vector: Float64Array
    """(m + 1,) information times the parameters that these frames alone would like best."""
    prior_mean: Float64Array
    """(m + 1,) what was known of the parameters beforehand; 0 where nothing was."""
    smoothness: Float64Array
    """(n_splines,) weight of the smoothness prior of each spline."""
    unit: Float64Array
    """(m,) um/s, for a drift's gradient 1/s."""
    first_photons_per_intensity: float
    start_um: Float64Array
    """(n, 2) where the particles began, for the parameters ``mean``."""
    start_tangent: Float64Array
    """(n, 2, m + 1) its derivative to the parameters: how the start that fits best goes with the law; 0 if known."""
    end_s: float
    """Time of the last frame used."""
    end_um: Float64Array
    """(n, 2) particles then, for the parameters ``mean``."""
    end_tangent: Float64Array
    """(n, 2, m + 1) derivative of ``end_um`` to the parameters in their unit."""
    pixels: IntArray
    """(n_pixels,) flat indices of the pixels that are looked at."""
    n_frames: int
    recent_counts: NDArray[Any]
    """(n_recent, size, size) photons of the last frames, ``RECENT_FRAMES`` at most."""
    recent_s: Float64Array
    """(n_recent,) their times."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state as named arrays (a checkpoint); :meth:`from_arrays` goes on from there, bit for bit."""
        return record_arrays(self, VERSION)

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> PatternState:
        """Inverse of :meth:`to_arrays`.

        Raises
        ------
        ResultError
            When an array is missing or the version is another.
        """
        return cls(**stored_fields(cls, arrays, VERSION, "pattern state"))

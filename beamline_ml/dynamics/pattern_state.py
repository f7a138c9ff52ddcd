"""What a pattern fit must remember to go on with new frames: an information filter's state, as plain arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import ResultError
from beamline_ml.records import Float64Array, IntArray

VERSION = 1


@dataclass(frozen=True)
class PatternState:
    """Knowledge of the parameters and the particles at the last frame; its size does not depend on the run's length."""

    mean: Float64Array
    """(m + 1,) coefficients in units of ``velocity_um_per_s``; the last place (log D) stays empty."""
    information: Float64Array
    """(m + 1, m + 1) what all frames so far said, without the prior."""
    vector: Float64Array
    """(m + 1,) information times the parameters that these frames alone would like best."""
    smoothness: float
    velocity_um_per_s: float
    end_s: float
    """Time of the last frame used."""
    end_um: Float64Array
    """(n, 2) particles then, for the parameters ``mean``."""
    end_tangent: Float64Array
    """(n, 2, m + 1) derivative of ``end_um`` to the parameters in their unit."""
    pixels: IntArray
    """(n_pixels,) flat indices of the pixels that are looked at."""
    n_frames: int

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The whole state as named arrays (a checkpoint); :meth:`from_arrays` goes on from there, bit for bit."""
        return {"version": np.array(VERSION)} | {f.name: np.asarray(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> PatternState:
        """Inverse of :meth:`to_arrays`.

        Raises
        ------
        ResultError
            When an array is missing or the version is another.
        """
        missing = [f.name for f in fields(cls) if f.name not in arrays]
        if missing or int(arrays.get("version", np.array(-1))) != VERSION:
            raise ResultError(
                f"These arrays are no pattern state of version {VERSION}; missing: {', '.join(missing) or 'nothing'}.",
                "Fit the run again.",
            )
        values: dict[str, Any] = {f.name: np.asarray(arrays[f.name]) for f in fields(cls)}
        return cls(**{name: a.item() if a.ndim == 0 else a for name, a in values.items()})

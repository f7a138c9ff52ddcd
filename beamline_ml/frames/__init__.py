"""What the detector saw: frames from files or through tiled, movies, q-map and mask files.

Names are loaded on first use, because the RunEngine process plays movies back (``frames.movie``) and must not pay for
what reading q-maps needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beamline_ml.frames.aps_results import ApsResult, load_aps_result
    from beamline_ml.frames.formats import open_file
    from beamline_ml.frames.mask_files import load_mask
    from beamline_ml.frames.open import open_frames
    from beamline_ml.frames.qmap_files import load_qmap
    from beamline_ml.frames.reader import FrameReader

__all__ = ["ApsResult", "FrameReader", "load_aps_result", "load_mask", "load_qmap", "open_file", "open_frames"]

_HOMES = {
    "ApsResult": "aps_results",
    "FrameReader": "reader",
    "load_aps_result": "aps_results",
    "load_mask": "mask_files",
    "load_qmap": "qmap_files",
    "open_file": "formats",
    "open_frames": "open",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

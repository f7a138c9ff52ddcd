"""The RunEngine's side: play-back detector, burst plan, and documents on their way to tiled.

This room runs inside the process that takes the data. It imports neither prefect nor torch, and nothing in it waits
for a server: a scan takes its ideal time with every other service dead.

Names are loaded on first use: commands and pages that only look into the catalogue need no detector and no writer.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beamline_ml.acquisition.area_detector import connect_area_detector
    from beamline_ml.acquisition.detector import MovieDetector, movie_header
    from beamline_ml.acquisition.plans import xpcs_burst
    from beamline_ml.acquisition.publish import Publication, subscribe_tiled
    from beamline_ml.acquisition.recovery import recover_documents, recover_in_background

__all__ = [
    "MovieDetector",
    "Publication",
    "connect_area_detector",
    "movie_header",
    "recover_documents",
    "recover_in_background",
    "subscribe_tiled",
    "xpcs_burst",
]

_HOMES = {
    "MovieDetector": "detector",
    "Publication": "publish",
    "connect_area_detector": "area_detector",
    "movie_header": "detector",
    "recover_documents": "recovery",
    "recover_in_background": "recovery",
    "subscribe_tiled": "publish",
    "xpcs_burst": "plans",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

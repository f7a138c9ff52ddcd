"""Import and compile everything that a fit needs before the first scan ends."""

from __future__ import annotations

import importlib
from typing import Any

from beamline_ml.service.trigger import ENTRYPOINT, load_flow

_USED_BY_FITS = (
    "torch",
    "bluesky_tiled_plugins",
    "prefect.flow_engine",
    "beamline_ml.correlation",
    "beamline_ml.dynamics",
    "beamline_ml.documents",
    "beamline_ml.frames",
    "beamline_ml.results",
)


def warm_up() -> Any:
    """Import what fits use, and return the loaded flow ``xpcs-fit``."""
    for module in _USED_BY_FITS:
        importlib.import_module(module)
    return load_flow(ENTRYPOINT)

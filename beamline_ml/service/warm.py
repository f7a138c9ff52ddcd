"""Import and compile everything that a fit needs before the first scan ends."""

from __future__ import annotations

import importlib
import logging
import time
from typing import Any

import numpy as np

from beamline_ml.records import Geometry
from beamline_ml.service.trigger import ENTRYPOINT, load_flow

_USED_BY_FITS = (
    "torch",
    "bluesky_tiled_plugins",
    "prefect.flow_engine",
    "prefect.client.orchestration",
    "beamline_ml.dynamics.fit",
    "beamline_ml.dynamics.forecast",
    "beamline_ml.frames.open",
    "beamline_ml.results.assembly",
    "beamline_ml.service.analysis",
    "beamline_ml.service.reporting",
)
_FRAMES, _PIXELS = 48, 32

_log = logging.getLogger(__name__)


def warm_up() -> Any:
    """Import what fits use, rehearse a correlation, and return the loaded flow ``xpcs-fit``."""
    began = time.monotonic()
    for module in _USED_BY_FITS:
        importlib.import_module(module)
    rehearse()
    flow = load_flow(ENTRYPOINT)
    _log.info("warm after %.1f s", time.monotonic() - began)
    return flow


def rehearse() -> None:
    """Correlate and fit a few frames of nothing in particular, so that everything is compiled."""
    from beamline_ml.correlation import (
        QMap,
        UnusablePixels,
        fit_power_law,
        fit_relaxation,
        g2_from_two_time,
        two_time,
    )

    frames = np.random.default_rng(0).poisson(2.0, (_FRAMES, _PIXELS, _PIXELS)).astype(np.uint16)
    center_px = (_PIXELS - 1) / 2
    qmap = QMap.from_geometry(Geometry(8.0, 10.0, 75e-6, center_px, center_px), (_PIXELS, _PIXELS), n_q=3)
    correlated = two_time(frames, qmap.without(UnusablePixels.found_in(frames, qmap).all), "plain", 0.01)
    fit_power_law(fit_relaxation(g2_from_two_time(correlated), correlated))

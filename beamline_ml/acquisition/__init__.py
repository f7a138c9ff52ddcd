"""The RunEngine's side: play-back detector, burst plan, and documents on their way to tiled.

This room runs inside the process that takes the data. It imports neither prefect nor torch, and nothing in it waits
for a server: a scan takes its ideal time with every other service dead.
"""

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

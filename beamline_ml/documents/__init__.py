"""What the beamline said: find a run in the catalogue and turn its documents into a checked description."""

from __future__ import annotations

from beamline_ml.documents.describe import describe_run
from beamline_ml.documents.fields import beamline_places
from beamline_ml.documents.lookup import find_run

__all__ = ["beamline_places", "describe_run", "find_run"]

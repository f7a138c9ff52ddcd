"""RunEngine, and documents on their way to tiled."""

from bluesky import RunEngine

from beamline_ml.acquisition import recover_in_background, subscribe_tiled
from beamline_ml.settings import load_settings

settings = load_settings()

RE = RunEngine({"beamline": settings.profile_dir.name})
publication = subscribe_tiled(RE, settings)
recovery = recover_in_background(settings)

"""beamline-ml: from XPCS speckle frames to fitted, forecast dynamics in tiled.

The folders are the data flow: ``documents`` (what the beamline said), ``frames`` (what the detector saw),
``correlation`` (what the frames say), ``dynamics`` (what explains it), ``results`` (what people ask for).
Importing this package imports nothing else; take names from the rooms.
"""

__version__ = "0.1.0"

"""The answer while the sample is still in the beam: follow a run, correlate, fit and forecast as frames land.

A process of its own (``python -m beamline_ml.live.resident``), started by the watcher. Tiled's stream is a doorbell
here too: how far a run has got is read from the catalogue, and each run has its own frame cursor, so lost, late and
doubled notifications change nothing. Everything is published under ``live/`` in tiled; the live page reads only that.
"""

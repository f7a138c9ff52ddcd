"""Speckle movies with known answers: arrays in, arrays out.

Read ``movie`` for the record, ``speckle`` for the simulated sample, ``video`` for real films of particles.
"""

from beamline_ml.simulation.movie import Movie, MovieRecipe
from beamline_ml.simulation.speckle import simulate_movie
from beamline_ml.simulation.video import scattering_from_video

__all__ = ["Movie", "MovieRecipe", "scattering_from_video", "simulate_movie"]

"""Speckle movies with known answers: arrays in, arrays out.

Read ``movie`` for the record, ``speckle`` for the simulated sample, ``rings`` for large samples known only by their
correlations, ``video`` for real films of particles.
"""

from beamline_ml.simulation.movie import Movie, MovieRecipe
from beamline_ml.simulation.rings import RingSample, scatter_into_rings
from beamline_ml.simulation.speckle import simulate_movie
from beamline_ml.simulation.video import scattering_from_video

__all__ = ["Movie", "MovieRecipe", "RingSample", "scatter_into_rings", "scattering_from_video", "simulate_movie"]

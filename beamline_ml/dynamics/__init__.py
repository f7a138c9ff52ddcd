"""What explains the correlations: systems, scattering forward models, the graph vector field, fit and forecast.

Start with ``observations`` (what goes in), ``model`` (what may be chosen), ``fit`` and ``forecast``; the pair kernel is
in ``pair_kernel``, the integration in ``flow``, the reason for ensembles in ``statistical_gauss_newton``.
"""

from beamline_ml.dynamics.fit import fit
from beamline_ml.dynamics.forecast import forecast
from beamline_ml.dynamics.model import DynamicsModel
from beamline_ml.dynamics.observations import CorrelationObservations
from beamline_ml.dynamics.pattern_fit import PatternFit
from beamline_ml.dynamics.patterns import PatternObservations, PatternScattering
from beamline_ml.dynamics.result import DynamicsFit

__all__ = [
    "CorrelationObservations",
    "DynamicsFit",
    "DynamicsModel",
    "PatternFit",
    "PatternObservations",
    "PatternScattering",
    "fit",
    "forecast",
]

from .fit import fit as fit
from .forecast import forecast as forecast
from .model import DynamicsModel as DynamicsModel
from .observations import CorrelationObservations as CorrelationObservations
from .pattern_fit import PatternFit as PatternFit
from .patterns import PatternObservations as PatternObservations
from .patterns import PatternScattering as PatternScattering
from .result import DynamicsFit as DynamicsFit

from .area_detector import connect_area_detector as connect_area_detector
from .detector import MovieDetector as MovieDetector
from .detector import movie_header as movie_header
from .plans import xpcs_burst as xpcs_burst
from .publish import Publication as Publication
from .publish import subscribe_tiled as subscribe_tiled
from .recovery import recover_documents as recover_documents
from .recovery import recover_in_background as recover_in_background

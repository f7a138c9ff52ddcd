"""What the detector saw: frames from files or through tiled, movies, q-map and mask files.

Names are loaded on first use, because the RunEngine process plays movies back (``frames.movie``) and must not pay for
what reading q-maps needs.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

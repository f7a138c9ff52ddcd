"""What people ask for: results in tiled, how they are published, found, drawn and exported.

Nothing here imports torch, and importing this package loads little more than numpy and tiled's client: a visiting user
installs ``beamline-ml[client]``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

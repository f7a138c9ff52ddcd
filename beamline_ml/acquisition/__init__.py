"""The RunEngine's side: play-back detector, burst plan, and documents on their way to tiled.

This room runs inside the process that takes the data. It imports neither prefect nor torch, and nothing in it waits
for a server: a scan takes its ideal time with every other service dead.

Names are loaded on first use: commands and pages that only look into the catalogue need no detector and no writer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

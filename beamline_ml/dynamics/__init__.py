"""What explains the correlations: systems, scattering forward models, the graph vector field, fit and forecast.

Start with ``observations`` (what goes in), ``model`` (what may be chosen), ``fit`` and ``forecast``; the pair kernel is
in ``pair_kernel``, the integration in ``flow``, the reason for ensembles in ``statistical_gauss_newton``.

Names are loaded on first use: simulating a system needs no torch, fitting one does.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

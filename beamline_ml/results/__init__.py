"""What people ask for: results in tiled, how they are published, found, drawn and exported.

Nothing here imports torch, and importing this package loads little more than numpy and tiled's client: a visiting user
installs ``beamline-ml[client]``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beamline_ml.results.assembly import Analysis, assemble
    from beamline_ml.results.client import XPCSFit
    from beamline_ml.results.failures import publish_failure
    from beamline_ml.results.nxxpcs import export_nxxpcs
    from beamline_ml.results.publish import drafted, find_complete, publish_result
    from beamline_ml.results.search import Results, open_results

__all__ = [
    "Analysis",
    "Results",
    "XPCSFit",
    "assemble",
    "drafted",
    "export_nxxpcs",
    "find_complete",
    "open_results",
    "publish_failure",
    "publish_result",
]

_HOMES = {
    "Analysis": "assembly",
    "Results": "search",
    "XPCSFit": "client",
    "assemble": "assembly",
    "drafted": "publish",
    "export_nxxpcs": "nxxpcs",
    "find_complete": "publish",
    "open_results": "search",
    "publish_failure": "failures",
    "publish_result": "publish",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

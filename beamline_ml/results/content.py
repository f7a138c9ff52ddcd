"""What goes into ``results/`` for one run, before it is written: metadata, arrays with dimensions and units, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

SPEC = "XPCSFit"
"""tiled spec of a result; its client class is :class:`beamline_ml.results.client.XPCSFit`."""


@dataclass(frozen=True)
class ResultArray:
    """One array of a result."""

    name: str
    data: NDArray[Any]
    dims: tuple[str, ...]
    """A name for each axis."""
    units: str
    """Unit of the values; '1' where they have none."""
    description: str


@dataclass(frozen=True)
class ResultTable:
    """One table of a result: named columns of equal length."""

    name: str
    columns: dict[str, Sequence[Any] | NDArray[Any]]
    description: str


@dataclass(frozen=True)
class ResultContent:
    """Everything that is published for one run under one set of settings."""

    result_id: str
    key: str
    """Preferred key in ``results/``; a suffix is added when another result has it already."""
    metadata: dict[str, Any]
    """JSON-safe and searchable."""
    arrays: tuple[ResultArray, ...] = ()
    tables: tuple[ResultTable, ...] = field(default=())
    spec: str = SPEC
    """tiled spec, which decides the client class."""

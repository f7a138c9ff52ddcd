"""Records as named arrays, which is how a fit survives a round trip through files."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beamline_ml.errors import ResultError


def record_arrays(record: Any, version: int) -> dict[str, NDArray[Any]]:
    """Every field as an array: numbers as they are, words as JSON text in zero-dimensional arrays."""
    arrays = {"version": np.array(version)}
    for item in fields(record):
        value = getattr(record, item.name)
        arrays[item.name] = np.array(json.dumps(value)) if isinstance(value, (str, dict, tuple)) else np.asarray(value)
    return arrays


def stored_fields(kind: type, arrays: dict[str, NDArray[Any]], version: int, name: str) -> dict[str, Any]:
    """Fields of the dataclass ``kind`` from what :func:`record_arrays` made; tuples come back as lists.

    Raises
    ------
    ResultError
        When an array is missing or the version is another; ``name`` says of what.
    """
    missing = [item.name for item in fields(kind) if item.name not in arrays]
    if missing or int(arrays.get("version", np.array(-1))) != version:
        raise ResultError(
            f"These arrays are no {name} of version {version}; missing: {', '.join(missing) or 'nothing'}.",
            "Fit the run again.",
        )
    return {item.name: _plain(np.asarray(arrays[item.name])) for item in fields(kind)}


def _plain(array: NDArray[Any]) -> Any:
    if array.dtype.kind in "US":
        return json.loads(str(array))
    return array.item() if array.ndim == 0 else array

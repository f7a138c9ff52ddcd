"""What makes a result this result: its identity, its readable key, and numbers that JSON can hold."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ANALYSIS_VERSION = "1"
"""Raised whenever the same frames under the same settings would give other numbers than before."""

_ID_LENGTH = 16
_LONGEST_SAMPLE = 40


def result_id(run_uid: str, settings: Mapping[str, Any]) -> str:
    """Identity of a result: the run, the analysis version, and every setting that changes numbers.

    The same three give the same identity on every machine and on every day.
    """
    described = json.dumps(
        {"run": run_uid, "analysis": ANALYSIS_VERSION, "settings": json_safe(settings)}, sort_keys=True, allow_nan=False
    )
    return hashlib.sha256(described.encode()).hexdigest()[:_ID_LENGTH]


def request_id(run_uid: str, asked: Mapping[str, Any]) -> str:
    """Identity of what was asked for; known before anything about the run is."""
    return result_id(run_uid, {"asked": dict(asked)})


def file_digest(path: str | Path | None) -> str | None:
    """Short digest of a file that settings name: the same path with other bytes is another setting."""
    if path is None or not Path(path).is_file():
        return None
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_ID_LENGTH]


def result_key(scan_id: int | None, sample_name: str, run_uid: str) -> str:
    """Key that a person can read: ``<scan_id>_<sample>_<first 8 characters of the uid>``."""
    return f"{'run' if scan_id is None else scan_id}_{sample_in_key(sample_name)}_{run_uid[:8]}"


def sample_in_key(sample_name: str) -> str:
    """A sample's name as keys hold it: letters, digits, points and hyphens, at most 40; ``unnamed`` for nothing."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", sample_name).strip("-.")[:_LONGEST_SAMPLE] or "unnamed"


def json_safe(value: Any) -> Any:
    """The same value in what JSON knows: NaN and infinity become None, arrays lists, paths text."""
    if isinstance(value, Mapping):
        return {str(key): json_safe(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return json_safe(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [json_safe(entry) for entry in value]
    if isinstance(value, np.generic):
        return json_safe(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)

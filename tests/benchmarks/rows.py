"""A line of a benchmark's table."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from typing import Any

Row = dict[str, Any]


def row(name: str, value: float, unit: str, limit: float | None = None, reference: str = "limit") -> Row:
    """One line: a figure, and what it is held against, if anything.

    Parameters
    ----------
    limit
        What the figure is held against; a limit of 0 has no ratio.
    reference
        What kind of limit that is.
    """
    return {
        "name": name,
        "value": float(f"{value:.6g}"),
        "unit": unit,
        "reference": None if limit is None else reference,
        "reference_value": limit,
        "ratio": float(f"{value / limit:.4g}") if limit else None,
        "machine": f"{platform.machine()}, {platform.processor() or platform.system()}",
        "date": datetime.now(UTC).date().isoformat(),
    }

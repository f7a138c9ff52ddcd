"""The table of a result, ring by ring, as plain numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

INV_UM_PER_INV_ANGSTROM = 1e4


@dataclass(frozen=True)
class RingRow:
    """One q ring; NaN where the fit was refused."""

    q_inv_um: float
    relaxation_time_s: float
    relaxation_time_s_err: float
    contrast: float
    contrast_err: float
    stretching: float
    stretching_err: float
    refused: str | None = None
    """Why there is no fit."""

    def as_json(self) -> dict[str, Any]:
        """The row with None for what is not known, because JSON has no NaN."""
        return {name: json_number(getattr(self, name)) for name in self.__dataclass_fields__}


def json_number(value: Any) -> Any:
    """The value, or None where it is no finite number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def ring_rows(relaxation: pd.DataFrame) -> list[RingRow]:
    """Rows of a result's ``relaxation`` table."""
    names = ("relaxation_time_s", "contrast", "stretching")
    return [
        RingRow(
            q_inv_um=float(row["q_inv_angstrom"]) * INV_UM_PER_INV_ANGSTROM,
            **{f"{name}{part}": float(row[f"{name}{part}"]) for name in names for part in ("", "_err")},
            refused=str(row["refused"]) or None,
        )
        for row in relaxation.to_dict("records")
    ]

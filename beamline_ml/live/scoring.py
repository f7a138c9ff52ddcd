"""What a forecast made during a run said is kept, and scored against what then happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from beamline_ml.records import Forecast, TwoTime


@dataclass(frozen=True)
class KeptForecast:
    """What a forecast said about C2."""

    times_s: NDArray[np.float64]
    """(n,) age of each row."""
    q_inv_angstrom: NDArray[np.float64]
    """(n_q,)."""
    c2: NDArray[np.float32]
    """(n_q, n, n)."""
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    """Edges of the 95 % band."""
    observed_until_s: float
    """Age at the last frame that it knew."""
    method: str

    @classmethod
    def of(cls, forecast: Forecast) -> Self:
        """Keep a forecast."""
        return cls(
            forecast.times_s,
            forecast.q_inv_angstrom,
            forecast.c2,
            forecast.lower,
            forecast.upper,
            forecast.observed_until_s,
            forecast.method,
        )


@dataclass(frozen=True, slots=True)
class Score:
    """An earlier forecast against what then happened, on the part of it that has been observed since."""

    number: int
    made_at_s: float
    """Age of the sample at the last frame that the forecast knew."""
    method: str
    rmse: float
    """Root mean square of (C2 forecast - C2 observed) / contrast; NaN before anything has happened."""
    covered: float
    """Share of observed entries inside the 95 % band."""
    n_entries: int


def scores(forecasts: Sequence[KeptForecast], two_time: TwoTime) -> list[Score]:
    """Each forecast against C2 as observed since, averaged over the forecast's own blocks of age."""
    return [_score(number, forecast, two_time) for number, forecast in enumerate(forecasts, 1)]


def _score(number: int, forecast: KeptForecast, two_time: TwoTime) -> Score:
    observed = block_means(forecast, two_time)
    n = len(forecast.times_s)
    future = forecast.times_s > forecast.observed_until_s
    ahead = (future[:, None] | future[None, :]) & ~np.eye(n, dtype=bool)
    known = np.isfinite(observed) & ahead
    if not known.any():
        return Score(number, forecast.observed_until_s, forecast.method, float("nan"), float("nan"), 0)
    contrast = np.diagonal(forecast.c2, axis1=1, axis2=2).mean(axis=1) - 1.0
    off = ((forecast.c2 - observed) / contrast[:, None, None])[known]
    inside = ((observed >= forecast.lower) & (observed <= forecast.upper))[known]
    rmse = float(np.sqrt(np.mean(off.astype(np.float64) ** 2)))
    return Score(number, forecast.observed_until_s, forecast.method, rmse, float(inside.mean()), int(known.sum()))


def block_means(forecast: KeptForecast, two_time: TwoTime) -> NDArray[np.float64]:
    """(n_q, n, n) observed C2 on the forecast's rings and blocks of age; NaN where there is nothing yet."""
    rings = [int(np.argmin(np.abs(two_time.q_inv_angstrom - q))) for q in forecast.q_inv_angstrom]
    step = float(np.median(np.diff(forecast.times_s)))
    block = np.round((two_time.age_s - forecast.times_s[0]) / step).astype(int)
    n = len(forecast.times_s)
    c2 = two_time.c2[rings].astype(np.float64)
    diagonal = np.arange(c2.shape[1])
    c2[:, diagonal, diagonal] = np.nan
    weights = np.zeros((n, c2.shape[1]))
    inside = (block >= 0) & (block < n)
    weights[block[inside], np.flatnonzero(inside)] = 1.0
    # A block counts once it has been observed whole.
    whole = forecast.times_s + 0.5 * step <= two_time.age_s[-1] + 0.5 * two_time.frame_period_s
    weights[~whole] = 0.0
    finite = np.isfinite(c2)
    total = weights @ np.where(finite, c2, 0.0) @ weights.T
    count = weights @ finite.astype(np.float64) @ weights.T
    return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)

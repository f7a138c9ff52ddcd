"""What the demo prints: the fitted table, and how it compares with what the simulation alone knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.interpolate import RegularGridInterpolator

from beamline_ml.records import Forecast
from beamline_ml.service.demo_movie import Truth

_INV_ANGSTROM_TO_INV_UM = 1e4
_AGREES_WITHIN_SIGMA = 2.0


@dataclass(frozen=True)
class RingRow:
    """One q ring of the table; NaN where the fit was refused."""

    q_inv_um: float
    relaxation_time_s: float
    relaxation_time_s_err: float
    contrast: float
    contrast_err: float
    stretching: float
    stretching_err: float
    refused: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The row with None for what is not known, because JSON has no NaN."""
        return {name: _json_number(getattr(self, name)) for name in self.__dataclass_fields__}


def _json_number(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


@dataclass(frozen=True)
class Comparison:
    """Fitted values against the noise-free truth, in units of their quoted errors."""

    relaxation_time_z: NDArray[np.float64]
    """(n_q,) (fitted - true) / quoted error; NaN where the fit was refused."""
    contrast_z: NDArray[np.float64]
    stretching_z: NDArray[np.float64]
    diffusion_z: float | None
    """None where the dynamics fit quotes no diffusion coefficient."""
    forecast_rmse: float
    """RMSE of the forecast C2, in units of the contrast, over times that nobody measured."""
    persistence_rmse: float
    """The same for 'nothing changes any more', the forecast everybody can make without a model."""
    forecast_coverage: float
    """Share of the unmeasured truth inside the forecast's 95 % band."""

    def share_within(self, sigma: float = _AGREES_WITHIN_SIGMA) -> float:
        """Share of all compared values that lie within ``sigma`` quoted errors of the truth."""
        z = np.concatenate([self.relaxation_time_z, self.contrast_z, self.stretching_z])
        z = z[np.isfinite(z)]
        if self.diffusion_z is not None:
            z = np.append(z, self.diffusion_z)
        return float(np.mean(np.abs(z) <= sigma)) if z.size else float("nan")

    def as_json(self) -> dict[str, Any]:
        """Plain numbers."""
        fields = {
            "relaxation_time_z": [_json_number(float(z)) for z in self.relaxation_time_z],
            "contrast_z": [_json_number(float(z)) for z in self.contrast_z],
            "stretching_z": [_json_number(float(z)) for z in self.stretching_z],
        }
        numbers = {
            name: _json_number(getattr(self, name))
            for name in ("diffusion_z", "forecast_rmse", "persistence_rmse", "forecast_coverage")
        }
        return {**fields, **numbers, "share_within_2_sigma": _json_number(self.share_within())}


def compare(
    rows: list[RingRow],
    forecast: Forecast,
    diffusion: tuple[float, float] | None,
    truth: Truth,
) -> Comparison:
    """Hold a result against the truth of the same trajectory."""
    fitted = {name: np.array([getattr(row, name) for row in rows]) for name in RingRow.__dataclass_fields__}
    rmse, persistence, coverage = _forecast_scores(forecast, truth)
    return Comparison(
        relaxation_time_z=_z(fitted, "relaxation_time_s", truth.relaxation_time_s),
        contrast_z=_z(fitted, "contrast", truth.contrast),
        stretching_z=_z(fitted, "stretching", truth.stretching),
        diffusion_z=None if diffusion is None else (diffusion[0] - truth.diffusion_um2_per_s) / diffusion[1],
        forecast_rmse=rmse,
        persistence_rmse=persistence,
        forecast_coverage=coverage,
    )


def _z(fitted: dict[str, NDArray[Any]], name: str, true: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((fitted[name] - true) / fitted[f"{name}_err"], dtype=np.float64)


def _forecast_scores(forecast: Forecast, truth: Truth) -> tuple[float, float, float]:
    """RMSE, persistence's RMSE and band coverage over pairs of times of which the later one was not measured."""
    later, earlier = np.tril_indices(len(forecast.times_s), k=-1)
    future = forecast.times_s[later] > forecast.observed_until_s
    future &= forecast.times_s[later] <= truth.age_s[-1]
    later, earlier = later[future], earlier[future]
    true = _truth_at(truth, forecast.times_s[later], forecast.times_s[earlier])
    contrast = truth.contrast[:, None]
    predicted = forecast.c2[:, later, earlier]
    still = _persistence(forecast, later, earlier)
    inside = (forecast.lower[:, later, earlier] <= true) & (true <= forecast.upper[:, later, earlier])
    return (
        float(np.sqrt(np.nanmean(((predicted - true) / contrast) ** 2))),
        float(np.sqrt(np.nanmean(((still - true) / contrast) ** 2))),
        float(np.mean(inside[np.isfinite(true)])),
    )


def _truth_at(truth: Truth, later_s: NDArray[Any], earlier_s: NDArray[Any]) -> NDArray[np.float64]:
    """The noise-free C2 at pairs of ages, (n_q, n_pairs)."""
    points = np.clip(np.stack([later_s, earlier_s], axis=1), truth.age_s[0], truth.age_s[-1])
    grid = (truth.age_s, truth.age_s)
    return np.stack([RegularGridInterpolator(grid, ring.astype(np.float64))(points) for ring in truth.c2])


def _persistence(forecast: Forecast, later: NDArray[Any], earlier: NDArray[Any]) -> NDArray[np.float64]:
    """The correlation that the last observed age had at this lag; the longest known lag where none is as long."""
    observed = np.flatnonzero(forecast.times_s <= forecast.observed_until_s)
    lag = np.clip(later - earlier, 0, len(observed) - 1)
    return np.asarray(forecast.c2[:, observed[-1], observed[-1] - lag], dtype=np.float64)


def ring_table(rows: list[RingRow]) -> Table:
    """Per q: relaxation time, contrast, stretching, with errors."""
    table = Table(title="Relaxation per q ring", title_justify="left")
    for heading in ("q (1/µm)", "relaxation time (s)", "contrast", "stretching"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row.refused is not None:
            table.add_row(f"{row.q_inv_um:.3g}", f"refused: {row.refused}", "", "")
            continue
        table.add_row(
            f"{row.q_inv_um:.3g}",
            with_error(row.relaxation_time_s, row.relaxation_time_s_err),
            with_error(row.contrast, row.contrast_err),
            with_error(row.stretching, row.stretching_err),
        )
    return table


def with_error(value: float, error: float) -> str:
    """``0.123 ± 0.045``: two digits of the error, and as many decimals of the value."""
    if not (np.isfinite(value) and np.isfinite(error)) or error <= 0:
        return f"{value:.3g} ± ?"
    decimals = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def comparison_table(comparison: Comparison) -> Table:
    """The comparison with what the simulation alone knows."""
    table = Table(
        title="Against what the simulation alone knows (same trajectory, no photon noise)", title_justify="left"
    )
    table.add_column("quantity")
    table.add_column("fitted minus true, in quoted errors", justify="right")
    for name in ("relaxation_time", "contrast", "stretching"):
        z = getattr(comparison, f"{name}_z")
        table.add_row(f"{name.replace('_', ' ')}, per q", "  ".join(f"{value:+.1f}" for value in z))
    if comparison.diffusion_z is not None:
        table.add_row("diffusion coefficient", f"{comparison.diffusion_z:+.1f}")
    table.add_row(
        "forecast beyond the run",
        f"RMSE {comparison.forecast_rmse:.3f} of the contrast (persistence {comparison.persistence_rmse:.3f}), "
        f"{comparison.forecast_coverage:.0%} inside the 95 % band",
    )
    table.add_row("within 2 quoted errors", f"{comparison.share_within():.0%} of all values")
    return table

"""What the demo prints: the fitted table, and how it compares with what the simulation alone knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.interpolate import RegularGridInterpolator

from beamline_ml.records import Forecast
from beamline_ml.results.console import ring_table
from beamline_ml.results.rings import RingRow, json_number, ring_rows
from beamline_ml.service.demo_movie import Truth

if TYPE_CHECKING:
    from beamline_ml.service.demo import Demo

_AGREES_WITHIN_SIGMA = 2.0


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
            "relaxation_time_z": [json_number(float(z)) for z in self.relaxation_time_z],
            "contrast_z": [json_number(float(z)) for z in self.contrast_z],
            "stretching_z": [json_number(float(z)) for z in self.stretching_z],
        }
        numbers = {
            name: json_number(getattr(self, name))
            for name in ("diffusion_z", "forecast_rmse", "persistence_rmse", "forecast_coverage")
        }
        return {**fields, **numbers, "share_within_2_sigma": json_number(self.share_within())}


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
    rings = [int(np.argmin(np.abs(truth.q_inv_angstrom - q))) for q in forecast.q_inv_angstrom]
    true = _truth_at(truth, rings, forecast.times_s[later], forecast.times_s[earlier])
    contrast = truth.early_contrast[rings, None]
    predicted = forecast.c2[:, later, earlier]
    still = _persistence(forecast, later, earlier)
    inside = (forecast.lower[:, later, earlier] <= true) & (true <= forecast.upper[:, later, earlier])
    return (
        float(np.sqrt(np.nanmean(((predicted - true) / contrast) ** 2))),
        float(np.sqrt(np.nanmean(((still - true) / contrast) ** 2))),
        float(np.mean(inside[np.isfinite(true)])),
    )


def _truth_at(truth: Truth, rings: list[int], later_s: NDArray[Any], earlier_s: NDArray[Any]) -> NDArray[np.float64]:
    """The noise-free C2 of these rings at pairs of ages, (n_rings, n_pairs)."""
    points = np.clip(np.stack([later_s, earlier_s], axis=1), truth.age_s[0], truth.age_s[-1])
    grid = (truth.age_s, truth.age_s)
    maps = truth.c2[rings].astype(np.float64)
    return np.stack([RegularGridInterpolator(grid, ring)(points) for ring in maps])


def _persistence(forecast: Forecast, later: NDArray[Any], earlier: NDArray[Any]) -> NDArray[np.float64]:
    """The correlation that the last observed age had at this lag; the longest known lag where none is as long."""
    observed = np.flatnonzero(forecast.times_s <= forecast.observed_until_s)
    lag = np.clip(later - earlier, 0, len(observed) - 1)
    return np.asarray(forecast.c2[:, observed[-1], observed[-1] - lag], dtype=np.float64)


def comparison_table(comparison: Comparison) -> Table:
    """The comparison with what the simulation alone knows."""
    table = Table(
        title="Against what the simulation alone knows (same trajectory, no photon noise)", title_justify="left"
    )
    table.add_column("quantity")
    table.add_column("fitted minus true, in quoted errors", justify="right")
    for name in ("relaxation_time", "contrast", "stretching"):
        z = getattr(comparison, f"{name}_z")
        table.add_row(
            f"{name.replace('_', ' ')}, per q", "  ".join(f"{value:+.1f}" if np.isfinite(value) else "–" for value in z)
        )
    if comparison.diffusion_z is not None:
        table.add_row("diffusion coefficient", f"{comparison.diffusion_z:+.1f}")
    table.add_row(
        "forecast beyond the run",
        f"RMSE {comparison.forecast_rmse:.3f} of the contrast (persistence {comparison.persistence_rmse:.3f}), "
        f"{comparison.forecast_coverage:.0%} inside the 95 % band",
    )
    table.add_row("within 2 quoted errors", f"{comparison.share_within():.0%} of all values")
    return table


@dataclass(frozen=True)
class Report:
    """Everything that the demo prints."""

    rows: list[RingRow]
    numbers: dict[str, Any]
    """Run, result, headline numbers, times of the hops, picture."""
    comparison: Comparison | None
    """None where nobody knows the truth: real frames."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain numbers, None for what is not known."""
        return {
            **self.numbers,
            "rings": [row.as_json() for row in self.rows],
            "against_truth": None if self.comparison is None else self.comparison.as_json(),
        }


def report_of(demo: Demo) -> Report:
    """Read the result of a finished demo through tiled, draw it, and hold it against the truth where there is one."""
    result, burst = demo.result, demo.burst
    picture = demo.folder / "xpcs.png"
    result.plot(picture)
    rows = ring_rows(result.relaxation)
    return Report(rows, _numbers(demo, result, burst, picture), _against_truth(demo, rows))


def _numbers(demo: Demo, result: Any, burst: Any, picture: Path) -> dict[str, Any]:
    headline = result.headline
    return {
        "run_uid": burst.run_uid,
        "result": result.key,
        "sample": result.sample_name,
        "n_frames": burst.n_frames,
        "scan_time_s": burst.scan_time_s,
        "ideal_scan_time_s": burst.ideal_time_s,
        **headline,
        "scan_end_to_result_s": result.metadata["published_at"] - burst.ended_at,
        "timings_s": result.metadata["timings_s"],
        "hops_s": demo.hops_s,
        "warnings": result.warnings,
        "picture": str(picture),
        "tiled_uri": demo.stack.tiled_uri,
        "prefect_uri": demo.stack.prefect_api_url.removesuffix("/api"),
    }


def _against_truth(demo: Demo, rows: list[RingRow]) -> Comparison | None:
    truth_file = demo.folder / "movie" / "truth.npz"
    forecast = demo.result.forecast
    if not truth_file.exists() or forecast is None:
        return None
    model = [demo.result.headline.get(f"model_diffusion_um2_per_s{part}") for part in ("", "_err")]
    diffusion = None if None in model else (float(model[0]), float(model[1]))
    return compare(rows, forecast, diffusion, Truth.read(truth_file))


def show_report(console: Console, demo: Demo, report: Report) -> None:
    """Print table, words, comparison and the picture's path."""
    console.print()
    console.print(ring_table(report.rows))
    console.print(demo.result.summary(), markup=False, highlight=False)
    if report.comparison is not None:
        console.print()
        console.print(comparison_table(report.comparison))
    console.print(f"\nPicture: {report.numbers['picture']}", soft_wrap=True)

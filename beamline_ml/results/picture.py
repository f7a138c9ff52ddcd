"""From a published result to what is drawn of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from beamline_ml.records import G2, PowerLaw, RelaxationFits
from beamline_ml.results.figures import Picture

if TYPE_CHECKING:
    from beamline_ml.results.client import XPCSFit


def picture_of(result: XPCSFit) -> Picture:
    """Read a complete result from tiled for drawing.

    Raises
    ------
    ResultError
        When the result is not complete.
    """
    forecast, kernel = result.forecast, result.kernel
    when = "" if result.run_time is None else f", {result.run_time:%Y-%m-%d %H:%M}"
    return Picture(
        title=f"{result.sample_name}, scan {result.scan_id} ({result.scan_uid[:8]}){when}",
        headline="\n".join(result.metadata.get("summary", [])),
        age_s=result.age_s,
        c2=result.c2,
        g2=g2_of(result),
        fits=relaxation_of(result),
        power_law=_power_law(result.headline),
        forecast=forecast,
        kernel=None if kernel is None else (kernel.r_um, kernel.mean_um_per_s, kernel.std_um_per_s, kernel.resolved),
    )


def g2_of(result: XPCSFit) -> G2:
    """g2 with its errors, as published; the replicates behind them are not kept."""
    settings = result.metadata.get("definitions", {})
    period_s = float(result.metadata["experiment"]["frame_period_s"])
    return G2(
        delay_s=result.delay_s,
        delay_frames=np.rint(result.delay_s / period_s).astype(np.int64),
        g2=result.g2,
        g2_err=result.g2_err,
        q_inv_angstrom=result.q_inv_angstrom,
        definition=settings.get("g2", "ratio_of_sums"),
        error_method=settings.get("g2_err", "block_jackknife"),
    )


def relaxation_of(result: XPCSFit) -> RelaxationFits:
    """Relaxation fits of every q bin."""
    table = result.relaxation
    numbers: dict[str, Any] = {name: np.asarray(table[name], np.float64) for name in table.columns if name != "refused"}
    return RelaxationFits(**numbers, refused=tuple(reason or None for reason in table["refused"]))


def _power_law(headline: dict[str, Any]) -> PowerLaw:
    def number(name: str) -> float:
        value = headline.get(name)
        return float("nan") if value is None else float(value)

    return PowerLaw(
        exponent=number("exponent"),
        exponent_err=number("exponent_err"),
        diffusion_coefficient_um2_per_s=headline.get("diffusion_coefficient_um2_per_s"),
        diffusion_coefficient_um2_per_s_err=headline.get("diffusion_coefficient_um2_per_s_err"),
        diffusive=bool(headline.get("diffusive")),
        reason=headline.get("diffusive_reason") or "",
    )

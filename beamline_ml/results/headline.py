"""The few numbers that people ask for first, and the same in sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from beamline_ml.results.assembly import Analysis

METHOD_NAMES = {
    "neural_ode": "the neural ODE",
    "neural_ode_corrected": "the neural ODE, corrected by what it missed",
    "persistence": "persistence (nothing changes any more)",
    "ageing_kww": "an ageing stretched exponential",
    "homodyne": "a homodyne power law",
    "kww": "a stretched exponential",
    "dmd": "dynamic mode decomposition",
    "gp": "a Gaussian process",
}
"""How forecasters are called in sentences."""


def headline(analysis: Analysis) -> dict[str, Any]:
    """Headline numbers of an analysis; None where there is none."""
    times = analysis.relaxation.relaxation_time_s
    fitted = times[np.isfinite(times)]
    return {
        "relaxation_time_min_s": float(fitted.min()) if fitted.size else None,
        "relaxation_time_max_s": float(fitted.max()) if fitted.size else None,
        **_power_law(analysis),
        **_dynamics(analysis),
        **_forecast(analysis),
    }


def _power_law(analysis: Analysis) -> dict[str, Any]:
    law = analysis.power_law
    return {
        "exponent": None if law is None else law.exponent,
        "exponent_err": None if law is None else law.exponent_err,
        "diffusive": None if law is None else law.diffusive,
        "diffusive_reason": None if law is None else law.reason,
        "diffusion_coefficient_um2_per_s": None if law is None else law.diffusion_coefficient_um2_per_s,
        "diffusion_coefficient_um2_per_s_err": None if law is None else law.diffusion_coefficient_um2_per_s_err,
    }


def _dynamics(analysis: Analysis) -> dict[str, Any]:
    fit = analysis.dynamics
    return {
        "model_diffusion_um2_per_s": None if fit is None else float(fit.diffusion_um2_per_s),
        "model_diffusion_um2_per_s_err": None if fit is None else float(fit.diffusion_um2_per_s_err),
        "model_chi2": None if fit is None else float(fit.chi2),
        "model_describes_data": None if fit is None else bool(fit.describes_data),
        "model_mode": None if fit is None else fit.mode,
    }


def _forecast(analysis: Analysis) -> dict[str, Any]:
    forecast = analysis.forecast
    refused = analysis.refusal if forecast is None else forecast.refused
    if forecast is None:
        return {"forecast_method": None, "forecast_score": None, "forecast_until_s": None, "forecast_refused": refused}
    return {
        "forecast_method": forecast.method,
        "forecast_score": float(forecast.score),
        "forecast_persistence_score": forecast.contest.get("persistence"),
        "forecast_from_s": float(forecast.observed_until_s),
        "forecast_until_s": float(forecast.times_s[-1]),
        "forecast_refused": refused,
    }


def sentences(numbers: dict[str, Any]) -> list[str]:
    """The headline in words, for a page, a terminal or a figure."""
    said = [_relaxation_sentence(numbers), _transport_sentence(numbers), _model_sentence(numbers)]
    return [sentence for sentence in (*said, forecast_sentence(numbers)) if sentence]


def _relaxation_sentence(numbers: dict[str, Any]) -> str:
    if numbers["relaxation_time_min_s"] is None:
        return "No q bin shows a relaxation that can be fitted."
    low, high = numbers["relaxation_time_min_s"], numbers["relaxation_time_max_s"]
    return f"Relaxation times run from {low:.3g} s to {high:.3g} s over the q bins."


def _transport_sentence(numbers: dict[str, Any]) -> str:
    if numbers["exponent"] is None:
        return ""
    power = f"Relaxation times fall as 1/qⁿ with n = {value_with_error(numbers['exponent'], numbers['exponent_err'])}"
    diffusion = numbers["diffusion_coefficient_um2_per_s"]
    if diffusion is None:
        return f"{power}; not diffusive: {_uncapitalised(numbers['diffusive_reason'])}"
    error = numbers["diffusion_coefficient_um2_per_s_err"]
    return f"{power}: diffusive, D = {value_with_error(diffusion, error)} µm²/s."


def _model_sentence(numbers: dict[str, Any]) -> str:
    diffusion = numbers["model_diffusion_um2_per_s"]
    if diffusion is None or not math.isfinite(diffusion):
        return ""
    quality = "describes the data" if numbers["model_describes_data"] else "does not describe all of the data"
    amount = value_with_error(diffusion, numbers["model_diffusion_um2_per_s_err"])
    return f"The neural ODE gives D = {amount} µm²/s and {quality} (reduced χ² {numbers['model_chi2']:.2g})."


def forecast_sentence(numbers: dict[str, Any]) -> str:
    """Who forecasts, how well, how far, or why nobody does."""
    if numbers.get("forecast_refused"):
        return f"No forecast to rely on: {_uncapitalised(numbers['forecast_refused'])}"
    if numbers["forecast_method"] is None:
        return ""
    method = METHOD_NAMES.get(numbers["forecast_method"], numbers["forecast_method"].replace("_", " "))
    against = numbers.get("forecast_persistence_score")
    compared = f" (persistence {against:.3g})" if against is not None else ""
    return (
        f"Forecast from {numbers['forecast_from_s']:.3g} s to {numbers['forecast_until_s']:.3g} s by {method}: "
        f"RMSE {numbers['forecast_score']:.3g} of the contrast in rolling-origin tests{compared}."
    )


def _uncapitalised(text: str | None) -> str:
    text = (text or "no reason was given.").replace("+-", "±")
    return text[0].lower() + text[1:] if len(text) > 1 and text[1].islower() else text


def value_with_error(value: float, error: float | None) -> str:
    """``0.123 ± 0.045``: two digits of the error, as many decimals of the value."""
    if error is None or not math.isfinite(error) or error <= 0:
        return f"{value:.3g}"
    decimals = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"

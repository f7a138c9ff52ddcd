"""How the relaxation time depends on q, and whether that is diffusion."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from beamline_ml.correlation.relaxation import usable_bins
from beamline_ml.correlation.transit import diffusion_with_transit
from beamline_ml.records import Float64Array, PowerLaw, RelaxationFits

INV_UM_PER_INV_ANGSTROM = 1e4
MIN_BINS = 3
EXPONENT_TOLERANCE = 0.3
STRETCHING_TOLERANCE = 0.2
MAX_EXPONENT_ERROR = 0.5


def fit_power_law(fits: RelaxationFits) -> PowerLaw:
    """Fit relaxation_time ~ q^-exponent over the bins with a fit; D = 1 / (tau q^2) when that is diffusion.

    Errors include the scatter between bins: where bins disagree by more than their errors, the errors grow by the
    square root of the reduced chi-squared (they never shrink). The error of D also covers what the departure of the
    exponent from 2 and of the stretching from 1 would do to it. The dynamics count as diffusive when the exponent is 2
    within 15 % or two standard errors, known to 0.5 or better, and the mean stretching is 1 within 0.2 or two standard
    errors; or when, with exponential decays, the rates lie on offset + D q^2 (see
    :func:`~beamline_ml.correlation.transit.diffusion_with_transit`), where ``exponent`` still describes all bins.
    """
    held = usable_bins(fits)
    if held.sum() < MIN_BINS:
        return _nothing(f"only {int(held.sum())} q bins have a relaxation time and a known q; {MIN_BINS} are needed")
    q_um = fits.q_inv_angstrom[held] * INV_UM_PER_INV_ANGSTROM
    time, error = fits.relaxation_time_s[held], fits.relaxation_time_s_err[held]
    relative = np.maximum(error / time, 1e-4)
    exponent, exponent_err = _slope(np.log(q_um), np.log(time), relative)
    stretching, stretching_err = _mean(fits.stretching[held], np.maximum(fits.stretching_err[held], 1e-4))
    doubt = _doubt(exponent, exponent_err, stretching, stretching_err)
    if doubt is not None:
        exponential = abs(stretching - 1) <= max(STRETCHING_TOLERANCE, 2 * stretching_err)
        beside = _beside_transit(q_um, time, relative, exponent, exponent_err) if exponential else None
        return beside or PowerLaw(exponent, exponent_err, None, None, False, doubt)
    log_d, log_d_err = _mean(-np.log(time) - 2 * np.log(q_um), relative)
    log_d_err = float(np.hypot(log_d_err, _model_error(exponent, stretching, q_um)))
    diffusion = float(np.exp(log_d))
    reason = (
        f"The relaxation time falls as q^-{exponent:.2f} (+- {exponent_err:.2f}) and the decay is exponential "
        f"(stretching {stretching:.2f} +- {stretching_err:.2f}): diffusion."
    )
    return PowerLaw(exponent, exponent_err, diffusion, diffusion * log_d_err, True, reason)


def _beside_transit(
    q_um: Float64Array, time: Float64Array, relative: Float64Array, exponent: float, exponent_err: float
) -> PowerLaw | None:
    """Diffusion beside a rate that does not depend on q, where the bins show it."""
    order = np.argsort(q_um)
    q_um, rate = q_um[order], 1 / time[order]
    found = diffusion_with_transit(q_um, rate, rate * relative[order])
    if found is None:
        return None
    reason = (
        f"Between {q_um[found.first]:.3g} and {q_um[found.last - 1]:.3g} 1/um the rate is {found.offset_per_s:.2g} 1/s "
        f"+ D q^2: diffusion beside a decorrelation that does not depend on q (beam transit, depth of focus)."
    )
    return PowerLaw(exponent, exponent_err, found.diffusion_um2_per_s, found.diffusion_um2_per_s_err, True, reason)


def _slope(log_q: Float64Array, log_time: Float64Array, sigma: Float64Array) -> tuple[float, float]:
    """Exponent n of time ~ q^-n and its error, scatter included."""
    design = np.stack([np.ones_like(log_q), -log_q], axis=1) / sigma[:, None]
    coefficients, _, rank, _ = np.linalg.lstsq(design, log_time / sigma, rcond=None)
    if rank < 2:
        return np.nan, np.nan
    residual = log_time / sigma - design @ coefficients
    inflation = _inflation(float((residual**2).sum()), log_q.size - 2)
    variance = np.linalg.inv(design.T @ design)[1, 1]
    return float(coefficients[1]), float(np.sqrt(variance) * inflation)


def _mean(values: Float64Array, sigma: Float64Array) -> tuple[float, float]:
    weight = 1 / sigma**2
    mean = float((weight * values).sum() / weight.sum())
    chi2 = float((weight * (values - mean) ** 2).sum())
    return mean, float(np.sqrt(1 / weight.sum()) * _inflation(chi2, values.size - 1))


def _model_error(exponent: float, stretching: float, q_um: Float64Array) -> float:
    """Relative error of D because the decay is not quite exponential and the exponent not quite 2.

    First: relaxation time against mean relaxation time, Gamma(1/g)/g. Second: the spread of 1/(tau q^2) over the q
    range (standard deviation of a uniform distribution in log q).
    """
    shape = gammaln(1 / stretching) - np.log(stretching)
    slope = (exponent - 2) * np.log(q_um.max() / q_um.min()) / np.sqrt(12)
    return float(np.hypot(shape, slope))


def _inflation(chi2: float, degrees: int) -> float:
    return float(np.sqrt(max(1.0, chi2 / degrees))) if degrees > 0 else 1.0


def _doubt(exponent: float, exponent_err: float, stretching: float, stretching_err: float) -> str | None:
    if not np.isfinite(exponent):
        return "All q bins have the same q: the q-dependence cannot be told."
    if exponent_err > MAX_EXPONENT_ERROR:
        return (
            f"The exponent {exponent:.2f} +- {exponent_err:.2f} is too uncertain to tell diffusion from other motion."
        )
    if abs(exponent - 2) > max(EXPONENT_TOLERANCE, 2 * exponent_err):
        return f"The exponent {exponent:.2f} +- {exponent_err:.2f} is not the 2 of diffusion."
    if abs(stretching - 1) > max(STRETCHING_TOLERANCE, 2 * stretching_err):
        return f"The decay is not exponential (stretching {stretching:.2f} +- {stretching_err:.2f}), as diffusion is."
    return None


def _nothing(reason: str) -> PowerLaw:
    return PowerLaw(np.nan, np.nan, None, None, False, reason[0].upper() + reason[1:] + ".")

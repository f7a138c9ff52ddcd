"""Diffusion beside a decorrelation that does not depend on q: particles that cross the beam or leave the focus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.records import Float64Array

MIN_BINS = 4
RATE_FLOOR = 0.04
MAX_REDUCED_CHI2 = 2.0
MIN_SIGNIFICANCE = 5.0


@dataclass(frozen=True, slots=True)
class Transit:
    """The line rate = offset + D q^2 over the bins first..last (exclusive) that lie on it."""

    diffusion_um2_per_s: float
    diffusion_um2_per_s_err: float
    offset_per_s: float
    first: int
    last: int


def diffusion_with_transit(q_inv_um: Float64Array, rate_per_s: Float64Array, error: Float64Array) -> Transit | None:
    """Fit 1/tau = offset + D q^2 over the widest run of neighbouring bins that lies on such a line.

    A finite beam or depth of focus multiplies the correlation by a factor that does not depend on q, so that the
    relaxation rate has an offset (in dynamic light scattering the transit time, in microscopy the depth of field).
    At high q, exposure time and detector noise bend the line; bins that leave it are left out.

    Parameters
    ----------
    q_inv_um, rate_per_s, error
        (n_bins,) increasing q, 1/tau and its standard error.

    Returns
    -------
    Transit or None
        None when fewer than four neighbouring bins lie on a line with a positive slope and an offset between zero and
        half of the highest rate, better than on any power law q^n (both have two parameters). The error of D covers the
        scatter about the line (with a floor of 4 % a bin) and half of what leaving the offset out would change.
    """
    sigma = np.hypot(error, RATE_FLOOR * rate_per_s)
    for n_bins in range(q_inv_um.size, MIN_BINS - 1, -1):
        lines = [
            (chi2, line)
            for first in range(q_inv_um.size - n_bins + 1)
            for chi2, line in [_line(q_inv_um, rate_per_s, sigma, first, first + n_bins)]
            if line is not None
        ]
        if lines:
            return min(lines, key=lambda found: found[0])[1]
    return None


def _line(
    q_inv_um: Float64Array, rate_per_s: Float64Array, sigma: Float64Array, first: int, last: int
) -> tuple[float, Transit | None]:
    bins = slice(first, last)
    q2, rate, weight = q_inv_um[bins] ** 2, rate_per_s[bins], 1 / sigma[bins]
    design = np.stack([np.ones_like(q2), q2], axis=1) * weight[:, None]
    covariance = np.linalg.inv(design.T @ design)
    offset, slope = covariance @ design.T @ (rate * weight)
    chi2 = float((((offset + slope * q2 - rate) * weight) ** 2).sum()) / (q2.size - 2)
    offset_err, slope_err = np.sqrt(np.diagonal(covariance))
    plausible = -2 * offset_err < offset < 0.5 * rate.max()
    limit = min(MAX_REDUCED_CHI2, _power_law_chi2(q2, rate, weight))
    if chi2 > limit or slope < MIN_SIGNIFICANCE * slope_err or not plausible:
        return chi2, None
    without_offset = float((weight**2 * rate * q2).sum() / (weight**2 * q2**2).sum())
    scatter = slope_err * np.sqrt(max(1.0, chi2))
    error = float(np.hypot(scatter, 0.5 * (without_offset - slope)))
    return chi2, Transit(float(slope), error, float(offset), first, last)


def _power_law_chi2(q2: Float64Array, rate: Float64Array, weight: Float64Array) -> float:
    """Reduced chi-squared of the best amplitude q^n on the same bins."""
    relative = rate * weight
    design = np.stack([np.ones_like(q2), np.log(q2)], axis=1) * relative[:, None]
    coefficients = np.linalg.lstsq(design, np.log(rate) * relative, rcond=None)[0]
    return float(((design @ coefficients - np.log(rate) * relative) ** 2).sum()) / (q2.size - 2)

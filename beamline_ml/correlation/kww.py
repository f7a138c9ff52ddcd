"""The stretched-exponential model of g2 and its derivatives."""

from __future__ import annotations

import numpy as np

from beamline_ml.records import Float64Array

PARAMETERS = ("log_relaxation_time", "contrast", "stretching", "baseline")


def kww(delay_s: Float64Array, parameters: Float64Array) -> Float64Array:
    """baseline + contrast exp(-2 (delay / relaxation_time)^stretching); the parameters in the order of PARAMETERS."""
    log_time, contrast, stretching, baseline = parameters
    return baseline + contrast * np.exp(-2.0 * _power(delay_s, log_time, stretching))


def kww_jacobian(delay_s: Float64Array, parameters: Float64Array) -> Float64Array:
    """(n_tau, 4) derivatives of :func:`kww` with respect to the parameters."""
    log_time, contrast, stretching, _ = parameters
    power = _power(delay_s, log_time, stretching)
    decay = np.exp(-2.0 * power)
    slope = -2.0 * contrast * decay * power
    return np.stack([-slope * stretching, decay, slope * (np.log(delay_s) - log_time), np.ones_like(delay_s)], axis=1)


def _power(delay_s: Float64Array, log_time: float, stretching: float) -> Float64Array:
    # Beyond 700 the exponential is 0 anyway, and the power must not overflow.
    return np.exp(np.minimum(stretching * (np.log(delay_s) - log_time), 6.5))

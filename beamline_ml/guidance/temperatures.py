"""Temperatures at which something happens: equal steps of a quantity that grows with temperature."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.errors import GuidanceError
from beamline_ml.phonons import PhononDos
from beamline_ml.phonons.thermodynamics import displacement_kernel, heat_capacity_kernel
from beamline_ml.records import Float64Array

_GRID = 96


@dataclass(frozen=True, slots=True)
class TemperatureSteps:
    """Temperature points with the 90 % band of each."""

    temperature_k: Float64Array
    """(n,) ascending; first and last are the ends of the range."""
    lower_k: Float64Array
    upper_k: Float64Array


def equal_steps(
    edges_mev: Float64Array,
    shares: Float64Array,
    lowest_k: float,
    highest_k: float,
    n_points: int,
    quantity: str = "heat_capacity",
) -> Float64Array:
    """(n_points,) temperatures in K between which heat capacity, or mean-square displacement, grows by equal steps.

    Parameters
    ----------
    edges_mev, shares
        (n_w + 1,) and (n_w,) energy windows and the share of the modes in each.
    quantity
        ``"heat_capacity"`` or ``"displacement"`` (mass-weighted mean over sites).

    Raises
    ------
    GuidanceError
        The quantity does not grow over the range.
    """
    kernel = heat_capacity_kernel if quantity == "heat_capacity" else displacement_kernel
    grid = np.geomspace(lowest_k, highest_k, _GRID)
    value = np.array([shares @ kernel(edges_mev, float(t)) for t in grid])
    if not value[-1] > value[0]:
        raise GuidanceError(
            f"Nothing changes between {lowest_k:g} and {highest_k:g} K.", "Choose a wider range of temperatures."
        )
    points: Float64Array = np.interp(np.linspace(value[0], value[-1], n_points), value, grid)
    return points


def temperature_steps(
    dos: PhononDos, lowest_k: float, highest_k: float, n_points: int, quantity: str = "heat_capacity"
) -> TemperatureSteps:
    """Points of :func:`equal_steps` with bands from the members, calibrated like the quantity itself."""
    points = equal_steps(dos.edges_mev, dos.shares, lowest_k, highest_k, n_points, quantity)
    members = np.array(
        [equal_steps(dos.edges_mev, m, lowest_k, highest_k, n_points, quantity) for m in dos.member_shares]
    )
    calibrated = getattr(dos.calibration, quantity)
    bands = [calibrated.at(float(t)).band(float(t), members[:, i]) for i, t in enumerate(points)]
    lower, upper = np.array(bands).T
    # The ends are given, not predicted.
    lower[[0, -1]] = upper[[0, -1]] = points[[0, -1]]
    return TemperatureSteps(points, lower.clip(lowest_k, highest_k), upper.clip(lowest_k, highest_k))

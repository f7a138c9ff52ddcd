"""A Debye solid as the predictor would give it: everything about it is known in closed form."""

from __future__ import annotations

import numpy as np

from beamline_ml.phonons import NearestMaterial, PhononDos
from beamline_ml.phonons.conformal import Calibration, RelativeBand, TemperatureBand, WindowBand

DEBYE_MEV = 30.0
EDGES_MEV = np.linspace(0.0, 60.0, 601)
TEMPERATURES_K = np.array([5.0, 50.0, 300.0])


def debye_shares(debye_mev: float = DEBYE_MEV) -> np.ndarray:
    """Share of the modes in each window: density 3 E^2 / E_D^3 up to E_D."""
    return np.diff((np.minimum(EDGES_MEV, debye_mev) / debye_mev) ** 3)


def debye_solid(debye_mev: float = DEBYE_MEV, mass_u: float = 40.0, spread: float = 0.02) -> PhononDos:
    """One atom a cell; the members scatter around the Debye energy by ``spread``."""
    shares = debye_shares(debye_mev)
    members = np.array([debye_shares(debye_mev * (1.0 + spread * k)) for k in (-1, 0, 1)])
    flat = TemperatureBand(TEMPERATURES_K, np.full(3, 2.0))
    return PhononDos(
        numbers=np.array([20]),
        masses_u=np.array([mass_u]),
        edges_mev=EDGES_MEV,
        modes=3.0 * shares,
        modes_lower=2.7 * shares,
        modes_upper=3.3 * shares,
        dos_51=np.zeros(51),
        site_modes=3.0 * shares[None],
        member_shares=members,
        member_points=np.zeros((3, 51)),
        nearest=NearestMaterial("mp-0", "Ca", 0.1),
        warnings=("far from the training data",),
        calibration=Calibration(WindowBand(np.ones(5), np.ones(5)), RelativeBand(2.0), flat, flat),
    )

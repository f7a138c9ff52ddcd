"""Heating against closed forms: Debye's laws, Dulong and Petit, and the heat equation solved on a grid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import diags
from scipy.sparse.linalg import spsolve

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import heat
from tests.guidance.crystals import DEBYE_MEV, EDGES_MEV, debye_shares

N_PER_M3 = 5e28
THETA_K = DEBYE_MEV / 0.08617333262
SHARES = debye_shares()
SOLID = (EDGES_MEV, SHARES, N_PER_M3)


def test_conductivity_of_a_hot_debye_solid() -> None:
    # <omega> = 3/4 omega_D, and every mode carries k_B.
    expected = N_PER_M3 ** (1 / 3) * 1.380649e-23 / np.pi * 0.75 * DEBYE_MEV / 6.582119569e-13
    assert heat.conductivity_bound_w_per_m_k(*SOLID, 50.0 * THETA_K) == pytest.approx(expected, rel=1e-4)


def test_conductivity_lies_under_cahills_by_what_its_authors_say() -> None:
    # Agne et al. (2018) state 37 % below Cahill's minimum 1.21 n^(2/3) k_B v, with <omega> = 0.61 omega_D.
    debye_rate = DEBYE_MEV / 6.582119569e-13
    velocity = debye_rate / (6.0 * np.pi**2 * N_PER_M3) ** (1 / 3)
    cahill = 1.21 * N_PER_M3 ** (2 / 3) * 1.380649e-23 * velocity
    ours = heat.conductivity_bound_w_per_m_k(*SOLID, 50.0 * THETA_K) * 0.61 / 0.75
    assert ours / cahill == pytest.approx(0.63, abs=0.01)


def test_conductivity_falls_as_the_crystal_cools() -> None:
    values = [heat.conductivity_bound_w_per_m_k(*SOLID, t) for t in (5.0, 50.0, 300.0)]
    assert values == sorted(values)
    # Each mode's k_B freezes out, and what is left sits at low frequency: T^4 in a Debye solid.
    cold = heat.conductivity_bound_w_per_m_k(*SOLID, 10.0) / heat.conductivity_bound_w_per_m_k(*SOLID, 5.0)
    assert cold == pytest.approx(16.0, rel=0.02)


def test_volume_heat_capacity_of_dulong_and_petit() -> None:
    capacity = heat.volume_heat_capacity_j_per_m3_k(*SOLID, 100.0 * THETA_K)
    assert capacity == pytest.approx(3.0 * N_PER_M3 * 1.380649e-23, rel=1e-4)


def test_pulse_on_a_hot_crystal_follows_dulong_and_petit() -> None:
    absorbed = 3.0 * N_PER_M3 * 1.380649e-23 * 7.0
    assert heat.pulse_heating_k(*SOLID, 50.0 * THETA_K, absorbed) == pytest.approx(7.0, rel=1e-4)


@pytest.mark.parametrize("start_k", [2.0, 5.0, 10.0])
def test_pulse_on_a_cold_crystal_follows_debyes_law(start_k: float) -> None:
    # u = 3 pi^4 / 5 n k_B T^4 / Theta^3.
    factor = 3.0 * np.pi**4 / 5.0 * N_PER_M3 * 1.380649e-23 / THETA_K**3
    absorbed = factor * ((2.0 * start_k) ** 4 - start_k**4)
    assert heat.pulse_heating_k(*SOLID, start_k, absorbed) == pytest.approx(start_k, rel=5e-3)
    naive = absorbed / heat.volume_heat_capacity_j_per_m3_k(*SOLID, start_k)
    assert naive > 3.0 * start_k


def test_what_can_be_absorbed_undoes_pulse_heating() -> None:
    absorbed = heat.absorbable_j_per_m3(*SOLID, 20.0, 1.5)
    assert heat.pulse_heating_k(*SOLID, 20.0, absorbed) == pytest.approx(1.5, rel=1e-9)
    assert heat.pulse_heating_k(*SOLID, 20.0, 0.0) == 0.0


def test_pulse_that_ends_the_crystal_is_refused() -> None:
    with pytest.raises(GuidanceError, match=r"leaves no crystal.*Attenuate"):
        heat.pulse_heating_k(*SOLID, 300.0, 1e15)


def _hottest_on_a_grid(radius: float, thickness: float, sink: float, absorption_length: float | None) -> float:
    """Rise per (power / conductivity) at the centre of the front face: finite volumes in r and z, heat in at r < a."""
    r_faces = np.concatenate([np.linspace(0.0, 1.5 * radius, 31), np.geomspace(1.5 * radius, sink, 61)[1:]])
    z_faces = thickness * np.linspace(0.0, 1.0, 41) ** 1.5
    r, z = (0.5 * (f[1:] + f[:-1]) for f in (r_faces, z_faces))
    dz, ring = np.diff(z_faces), np.pi * np.diff(r_faces**2)
    inside = np.clip(np.pi * np.minimum(r_faces[1:], radius) ** 2 - np.pi * r_faces[:-1] ** 2, 0.0, None)
    depth = np.zeros(len(z))
    depth[0] = 1.0
    if absorption_length is not None:
        depth = -np.diff(np.exp(-z_faces / absorption_length))
        depth /= depth.sum()
    source = (inside[:, None] / (np.pi * radius**2) * depth).ravel()
    out = 2.0 * np.pi * r_faces[1:-1, None] * dz / np.diff(r)[:, None]
    down = ring[:, None] / np.diff(z)
    rim = np.zeros((len(r), len(z)))
    rim[-1] = 2.0 * np.pi * r_faces[-1] * dz / (sink - r[-1])
    diagonal = rim.copy()
    diagonal[:-1] += out
    diagonal[1:] += out
    diagonal[:, :-1] += down
    diagonal[:, 1:] += down
    beside = np.pad(down, ((0, 0), (0, 1))).ravel()[:-1]
    over = out.ravel()
    matrix = diags([diagonal.ravel(), -beside, -beside, -over, -over], [0, 1, -1, len(z), -len(z)], format="csc")
    return float(spsolve(matrix, source)[0])


@pytest.mark.parametrize("absorption_length", [None, 3e-6, 1e-3])
@pytest.mark.parametrize("thickness", [1e-6, 1e-5, 1e-4])
def test_steady_heating_bounds_the_heat_equation_and_not_by_much(
    thickness: float, absorption_length: float | None
) -> None:
    radius, sink = 1e-5, 1e-3
    exact = _hottest_on_a_grid(radius, thickness, sink, absorption_length)
    bound = heat.steady_heating_k(1.0, radius, thickness, sink, 1.0)
    assert bound >= exact
    if absorption_length is None or thickness <= radius:
        assert bound < 1.6 * exact


def test_steady_heating_of_a_thin_plate_is_the_closed_form() -> None:
    bound = heat.steady_heating_k(2e-4, 1e-5, 1e-8, 1e-3, 3.0)
    assert bound == pytest.approx(2e-4 / (2.0 * np.pi * 3.0 * 1e-8) * (np.log(100.0) + 0.5), rel=1e-3)


def test_sink_inside_the_beam_is_refused() -> None:
    with pytest.raises(GuidanceError, match="within the beam"):
        heat.steady_heating_k(1e-4, 1e-5, 1e-5, 5e-6, 1.0)


def test_thermal_time_is_when_a_gaussian_spot_has_halved() -> None:
    # A spot exp(-r^2/a^2) that diffuses in two dimensions has half its height when 4 D t = a^2.
    radius, conductivity, capacity = 1e-5, 0.4, 2e6
    time = heat.thermal_time_s(radius, conductivity, capacity)
    n, edge = 256, 16e-5
    x = (np.arange(n) - n // 2) * edge / n
    spot = np.exp(-(x[:, None] ** 2 + x[None, :] ** 2) / radius**2)
    k2 = (2.0 * np.pi * np.fft.fftfreq(n, edge / n)) ** 2
    decay = np.exp(-conductivity / capacity * time * (k2[:, None] + k2[None, :]))
    after = np.fft.ifft2(np.fft.fft2(spot) * decay).real
    assert after[n // 2, n // 2] == pytest.approx(0.5, rel=1e-3)

"""Thermodynamics against solids whose answers are known in closed form, and against the data set's own tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import quad

from beamline_ml.phonons import thermodynamics as th
from beamline_ml.phonons.windows import EDGES_INV_CM, MEV_PER_INV_CM

GAS = th.GAS_CONSTANT_J_PER_K_MOL
KB = th.BOLTZMANN_MEV_PER_K
FINE_EDGES = np.linspace(0.0, 60.0, 601)
DEBYE_MEV = 40.0


def debye_shares() -> np.ndarray:
    """A Debye solid: density 3 E^2 / E_D^3 up to E_D."""
    upper = np.minimum(FINE_EDGES, DEBYE_MEV) / DEBYE_MEV
    return np.diff(upper**3)


def einstein_shares(energy_mev: float) -> tuple[np.ndarray, np.ndarray]:
    """All modes in one window so narrow that they share one energy."""
    edges = np.array([0.0, energy_mev - 1e-4, energy_mev + 1e-4, 2.0 * energy_mev])
    return edges, np.array([0.0, 1.0, 0.0])


@pytest.mark.parametrize("temperature_k", [10.0, 77.0, 300.0, 1200.0])
def test_einstein_solid(temperature_k: float) -> None:
    energy = 25.0
    edges, shares = einstein_shares(energy)
    x = energy / (KB * temperature_k)
    capacity = 3.0 * GAS * x**2 * np.exp(-x) / (1.0 - np.exp(-x)) ** 2
    occupation = 1.0 / (np.exp(x) - 1.0)
    entropy = 3.0 * GAS * ((1.0 + occupation) * np.log1p(occupation) - occupation * np.log(occupation))
    assert th.heat_capacity(edges, shares, temperature_k) == pytest.approx(capacity, rel=1e-8)
    assert th.entropy(edges, shares, temperature_k) == pytest.approx(entropy, rel=1e-8)
    displacement = th.mean_square_displacement(edges, shares[None], np.array([28.0]), temperature_k)
    assert displacement[0] == pytest.approx(
        th.HBAR2_PER_U_MEV_ANGSTROM2 / (28.0 * energy) * (occupation + 0.5), rel=1e-8
    )


@pytest.mark.parametrize("temperature_k", [5.0, 20.0, 100.0, 300.0])
def test_debye_solid_heat_capacity_and_displacement(temperature_k: float) -> None:
    x_max = DEBYE_MEV / (KB * temperature_k)
    integral, _ = quad(lambda x: x**4 * np.exp(-x) / (1.0 - np.exp(-x)) ** 2, 1e-9, min(x_max, 200.0))
    capacity = 9.0 * GAS * integral / x_max**3
    assert th.heat_capacity(FINE_EDGES, debye_shares(), temperature_k) == pytest.approx(capacity, rel=3e-3)
    phi, _ = quad(lambda x: x / np.expm1(x), 1e-9, min(x_max, 200.0))
    exact = 3.0 * th.HBAR2_PER_U_MEV_ANGSTROM2 / (50.0 * DEBYE_MEV) * (0.25 + phi / x_max**2)
    predicted = th.mean_square_displacement(FINE_EDGES, debye_shares()[None], np.array([50.0]), temperature_k)
    assert predicted[0] == pytest.approx(exact, rel=3e-3)


@pytest.mark.parametrize("moment", [-2, -1, 0, 1, 2, 4])
def test_every_moment_gives_the_debye_temperature_of_a_debye_solid(moment: int) -> None:
    theta = DEBYE_MEV / KB
    assert th.debye_temperature(FINE_EDGES, debye_shares(), moment) == pytest.approx(theta, rel=2e-3)


def test_moment_that_diverges_is_refused() -> None:
    with pytest.raises(ValueError, match="-3"):
        th.debye_temperature(FINE_EDGES, debye_shares(), -3)


def test_limits_of_temperature() -> None:
    shares = debye_shares()
    assert th.heat_capacity(FINE_EDGES, shares, 0.0) == 0.0
    assert th.entropy(FINE_EDGES, shares, 0.0) == 0.0
    assert th.heat_capacity(FINE_EDGES, shares, 1e5) == pytest.approx(3.0 * GAS, rel=1e-5)
    zero_point = th.mean_square_displacement(FINE_EDGES, shares[None], np.array([50.0]), 0.0)
    cold = th.mean_square_displacement(FINE_EDGES, shares[None], np.array([50.0]), 1.0)
    assert cold[0] == pytest.approx(zero_point[0], rel=1e-3)


def test_debye_waller_and_b_factor_agree() -> None:
    displacement = np.array([0.005, 0.02])
    sin_theta_over_lambda = 0.4
    q = 4.0 * np.pi * sin_theta_over_lambda
    by_b = np.exp(-2.0 * th.b_factor(displacement) * sin_theta_over_lambda**2)
    np.testing.assert_allclose(th.debye_waller_factor(displacement, q), by_b, rtol=1e-12)


def test_windows_reproduce_the_tables_of_the_data_set(test_data: Path) -> None:
    from beamline_ml.phonons.dataset import materials_from_arrays
    from beamline_ml.service.phonon_data import load_arrays

    arrays = load_arrays(test_data / "phonon")
    chosen = np.flatnonzero(~arrays["has_neg_fr"] & ~arrays["large_asr"] & np.isfinite(arrays["Cv"]).all(axis=1))[::12]
    edges = EDGES_INV_CM * MEV_PER_INV_CM
    table = arrays["T"]
    capacity, entropy = [], []
    for index in chosen:
        atoms_per_formula = arrays["natoms"][index] / arrays["n_formula_units"][index]
        shares = materials_from_arrays({k: _row(arrays, k, index) for k in arrays})[0].shares
        at = int(np.argmin(abs(table - 300.0)))
        capacity.append(th.heat_capacity(edges, shares, table[at]) - arrays["Cv"][index, at] / atoms_per_formula)
        entropy.append(th.entropy(edges, shares, table[at]) - arrays["S"][index, at] / atoms_per_formula)
    # The medians: single rows of the table are off by much more (one by 22 J/(K mol)).
    assert np.median(np.abs(capacity)) < 0.1
    assert np.median(np.abs(entropy)) < 0.3


def _row(arrays: dict[str, np.ndarray], name: str, index: int) -> np.ndarray:
    """One material's part of a field of the data file."""
    bounds = {"numbers": "offset", "positions": "offset", "raw_dos": "raw_offset"}
    if name in bounds:
        start, stop = arrays[bounds[name]][index : index + 2]
        return arrays[name][start:stop]
    if name in ("offset", "raw_offset"):
        return arrays[name][index : index + 2] - arrays[name][index]
    return arrays[name] if name in ("T", "phfreq") else arrays[name][index : index + 1]

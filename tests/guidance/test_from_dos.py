"""Plans from a Debye solid, whose numbers are known, and from conditions that say too little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import Conditions, plan_from_dos, spectrum
from beamline_ml.guidance.temperatures import equal_steps
from tests.guidance.crystals import DEBYE_MEV, EDGES_MEV, debye_shares, debye_solid

FULL = Conditions(
    temperature_k=100.0,
    temperature_range_k=(10.0, 400.0),
    number_density_per_angstrom3=0.05,
    thickness_um=20.0,
    attenuation_length_um=50.0,
    sink_radius_um=500.0,
    photon_energy_kev=8.0,
    flux_photons_per_s=1e11,
    beam_width_um=10.0,
    beam_height_um=4.0,
    pulse_rate_hz=1e6,
    frame_period_s=0.01,
    q_inv_angstrom=2.5,
    spectrometer_q_max_inv_angstrom=7.2,
    spectrometer_resolution_mev=1.5,
    dose_budget_mgy=10.0,
)


HEAT_AND_DOSE = {"steady_heating", "pulse_heating", "attenuator_transmission", "thermal_time", "dose_time"}


def value(quantity: str, conditions: Conditions = FULL) -> float:
    line = plan_from_dos(debye_solid(), conditions).line(quantity)
    assert line is not None
    return line.value


def test_everything_known_gives_every_line_with_band_limit_and_reason() -> None:
    plan = plan_from_dos(debye_solid(), FULL)
    assert plan.missing == ()
    assert plan.warnings == ("far from the training data",)
    assert len({line.quantity for line in plan.lines}) == len(plan.lines) == 17
    for line in plan.lines:
        assert np.isfinite([line.value, line.lower, line.upper]).all(), line
        assert line.lower <= line.value * (1 + 1e-9), line
        assert line.value <= line.upper * (1 + 1e-9), line
        assert line.limit, line
        assert line.reason.endswith("."), line


def test_nothing_known_says_what_is_missing_and_why() -> None:
    plan = plan_from_dos(debye_solid())
    assert {line.quantity for line in plan.lines} == {
        "energy_loss_end", "energy_gain_end", "useful_resolution", "phonon_momentum_transfer",
    }  # fmt: skip
    missing = {line.quantity: line for line in plan.missing}
    assert "number_density_per_angstrom3" in missing["steady_heating"].needs
    assert "beam_width_um" in missing["thermal_time"].needs
    assert all(line.reason.endswith(".") for line in plan.missing)


@pytest.mark.parametrize(
    ("unknown", "lost"),
    [
        ({"number_density_per_angstrom3": None}, {"conductivity_bound", *HEAT_AND_DOSE}),
        ({"beam_width_um": None}, HEAT_AND_DOSE),
        ({"pulse_rate_hz": None}, {"pulse_heating"}),
        ({"attenuation_length_um": None}, {"pulse_heating", "dose_time"}),
        ({"sink_radius_um": None}, {"steady_heating", "attenuator_transmission"}),
    ],
)  # fmt: skip
def test_one_thing_missing_takes_only_what_rests_on_it(unknown: dict[str, None], lost: set[str]) -> None:
    plan = plan_from_dos(debye_solid(), replace(FULL, **unknown))
    assert {line.quantity for line in plan.missing} == lost
    assert all(line.needs == tuple(unknown) for line in plan.missing)


def test_without_attenuation_length_heating_counts_the_whole_beam() -> None:
    whole = value("steady_heating", replace(FULL, attenuation_length_um=None))
    assert whole == pytest.approx(value("steady_heating") / -np.expm1(-20.0 / 50.0), rel=1e-9)


def test_energy_window_of_a_debye_solid() -> None:
    assert value("energy_loss_end") == pytest.approx(1.1 * DEBYE_MEV * 0.975 ** (1 / 3), rel=1e-3)
    assert spectrum.upper_edge_mev(EDGES_MEV, debye_shares()) == pytest.approx(DEBYE_MEV * 0.995 ** (1 / 3), rel=1e-3)
    assert value("energy_gain_end") == pytest.approx(0.0861733 * 100.0 * np.log(21.0), rel=1e-5)
    assert spectrum.gain_side_mev(300.0) == pytest.approx(78.7, abs=0.05)
    hot = plan_from_dos(debye_solid(), replace(FULL, temperature_k=1000.0)).line("energy_gain_end")
    assert hot is not None
    assert hot.limit == "band edge"
    assert hot.value == pytest.approx(value("energy_loss_end"))


def test_modes_in_the_elastic_line_of_a_debye_solid() -> None:
    assert value("modes_in_elastic_line") == pytest.approx((3.0 / DEBYE_MEV) ** 3, rel=1e-6)


def test_resolution_follows_the_closest_peaks_and_never_beats_the_grid() -> None:
    centre = 0.5 * (EDGES_MEV[1:] + EDGES_MEV[:-1])

    def peaks(*energies_mev: float) -> np.ndarray:
        density = sum(np.exp(-0.5 * ((centre - e) / 0.6) ** 2) for e in energies_mev)
        return density / density.sum()

    for energies, expected in (((10.0, 22.0, 40.0), 6.0), ((11.16, 16.12, 40.0), 2.48)):
        shares = peaks(*energies)
        dos = replace(debye_solid(), modes=3.0 * shares, member_shares=np.array([shares, shares, shares]))
        line = plan_from_dos(dos, FULL).line("useful_resolution")
        assert line is not None
        assert line.value == pytest.approx(expected, abs=1.3)
        assert line.value >= 2.479
    assert line.limit == "energy grid of the prediction"


def test_momentum_transfer_is_capped_by_multiphonon_scattering_or_the_spectrometer() -> None:
    displacement = float(debye_solid().mean_square_displacement(100.0)[0])
    far = replace(FULL, spectrometer_q_max_inv_angstrom=20.0)
    assert value("phonon_momentum_transfer", far) == pytest.approx(np.sqrt(0.3 / displacement), rel=1e-9)
    assert spectrum.strongest_signal_q_inv_angstrom(displacement) == pytest.approx(displacement**-0.5)
    near = plan_from_dos(debye_solid(), replace(FULL, spectrometer_q_max_inv_angstrom=2.0)).line(
        "phonon_momentum_transfer"
    )
    assert near is not None
    assert (near.value, near.limit) == (2.0, "spectrometer")


def test_debye_waller_loss_matters_at_wide_angles_only() -> None:
    displacement = float(debye_solid().mean_square_displacement(100.0)[0])
    assert value("debye_waller_loss") == pytest.approx(1.0 - np.exp(-(2.5**2) * displacement), rel=1e-9)
    small = plan_from_dos(debye_solid(), replace(FULL, q_inv_angstrom=0.01)).line("debye_waller_loss")
    assert small is not None
    assert small.limit == "none"


@pytest.mark.parametrize("quantity", ["heat_capacity", "displacement"])
def test_temperature_points_are_equal_steps(quantity: str) -> None:
    from beamline_ml.phonons.thermodynamics import displacement_kernel, heat_capacity_kernel

    kernel = heat_capacity_kernel if quantity == "heat_capacity" else displacement_kernel
    points = equal_steps(EDGES_MEV, debye_shares(), 10.0, 400.0, 6, quantity)
    assert (points[0], points[-1]) == pytest.approx((10.0, 400.0))
    steps = np.diff([debye_shares() @ kernel(EDGES_MEV, float(t)) for t in points])
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.02)


def test_attenuator_leaves_exactly_the_allowed_heating() -> None:
    share = value("attenuator_transmission")
    assert 0.0 < share < 1.0
    dimmed = replace(FULL, flux_photons_per_s=FULL.known("flux_photons_per_s") * share)
    assert value("steady_heating", dimmed) + value("pulse_heating", dimmed) == pytest.approx(1.0, rel=1e-4)
    weak = plan_from_dos(debye_solid(), replace(FULL, flux_photons_per_s=1e6)).line("attenuator_transmission")
    assert weak is not None
    assert (weak.value, weak.limit) == (1.0, "flux")


def test_frames_closer_than_the_thermal_time_add_up() -> None:
    time = value("thermal_time")
    fast = plan_from_dos(debye_solid(), replace(FULL, frame_period_s=0.5 * time)).line("thermal_time")
    slow = plan_from_dos(debye_solid(), replace(FULL, frame_period_s=2.0 * time)).line("thermal_time")
    assert fast is not None
    assert slow is not None
    assert (fast.limit, slow.limit) == ("frame period", "none")


def test_dose_by_hand() -> None:
    power_w = 1e11 * 8e3 * 1.602176634e-19
    kg_per_m3 = 0.05e30 * 40.0 * 1.66053906892e-27
    area_m2 = np.pi * 10e-6 * 4e-6 / 4.0
    assert value("dose_time") == pytest.approx(10e6 * kg_per_m3 * area_m2 * 50e-6 / power_w, rel=1e-9)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"beam_width_um": 0.0}, "beam_width_um"),
        ({"flux_photons_per_s": float("nan")}, "flux_photons_per_s"),
        ({"temperature_k": -3.0}, "temperature_k"),
        ({"temperature_range_k": (300.0, 10.0)}, "temperature range"),
        ({"temperature_steps": "colour"}, "colour"),
        ({"n_temperatures": 1}, "no steps"),
    ],
)
def test_conditions_that_make_no_sense_are_refused_by_name(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(GuidanceError, match=named):
        replace(FULL, **wrong)  # type: ignore[arg-type]

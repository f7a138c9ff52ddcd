"""A second opinion: brought into our convention, weighed, and told apart from none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk

from beamline_ml.errors import DataError, OpinionRefused
from beamline_ml.phonons import PhononDos, load_predictor
from beamline_ml.phonons.dataset import Material
from beamline_ml.phonons.metrics import material_mse
from beamline_ml.phonons.opinion import SecondOpinion, published_points
from beamline_ml.phonons.stacking import Predicted, Stacking, fitted_to_margins, load_stacking
from beamline_ml.phonons.windows import POINTS_INV_CM, window_shares

FREQUENCY = np.arange(0.0, 900.0)
SOFTNESS = 0.94
"""The potential of these tests puts every frequency too low by this factor."""


def two_peaks(low: float, high: float, width: float) -> np.ndarray:
    peaks = sum(np.exp(-0.5 * ((FREQUENCY - centre) / width) ** 2) for centre in (low, high))
    return peaks * (FREQUENCY > 0.0)


def case(rng: np.random.Generator) -> tuple[Predicted, SecondOpinion, Material]:
    """A crystal with two narrow peaks; the network blurs them, the potential is soft."""
    low, high = rng.uniform(80.0, 250.0), rng.uniform(300.0, 600.0)
    true = two_peaks(low, high, 12.0)
    members = []
    for _ in range(4):
        off = rng.normal(1.0, 0.02)
        members.append(two_peaks(low * off, high * off, 40.0))
    predicted = Predicted(
        np.stack([window_shares(0.0, 1.0, dos) for dos in members]),
        np.stack([published_points(FREQUENCY, dos) for dos in members]),
    )
    softness = SOFTNESS * rng.normal(1.0, 0.01)
    opinion = SecondOpinion(1.0, two_peaks(low * softness, high * softness, 12.0), 0.0, 1.0, "a soft potential")
    material = Material(
        0, "x", "X", np.array([14]), np.zeros((1, 3)), 4.0 * np.eye(3), 0.0, 1.0, true,
        published_points(FREQUENCY, true), window_shares(0.0, 1.0, true), np.zeros(4), True,
    )  # fmt: skip
    return predicted, opinion, material


@pytest.fixture(scope="module")
def stacking() -> Stacking:
    cases = [case(np.random.default_rng(seed)) for seed in range(60)]
    return Stacking.fit(*map(list, zip(*cases, strict=True)), model="m")


def test_stretching_moves_every_frequency() -> None:
    opinion = SecondOpinion(1.0, two_peaks(150.0, 400.0, 10.0), 0.0, 1.0, "")
    assert opinion.mean_inv_cm == pytest.approx(275.0, abs=0.5)
    assert opinion.shares(1.2).sum() == pytest.approx(1.0)
    assert POINTS_INV_CM[np.argmax(opinion.points(1.0)[:15])] in (140.0, 160.0)
    assert POINTS_INV_CM[np.argmax(opinion.points(1.2)[:15])] == 180.0
    assert opinion.points(1.2).max() == 1.0


def test_points_of_an_opinion_are_the_published_ones(test_data: Path) -> None:
    from beamline_ml.service.phonon_data import load_materials

    for material in load_materials(test_data / "phonon")[::150]:
        frequency = material.first_inv_cm + material.step_inv_cm * np.arange(len(material.raw_dos))
        if frequency[0] < -10.0:
            continue
        dos = np.interp(np.arange(0.0, frequency[-1]), frequency, material.raw_dos)
        again = SecondOpinion(1.0, dos, 0.0, 0.0, "")
        assert np.mean((again.points() - material.points) ** 2) < 5e-4, material.formula


def test_the_softness_is_found(stacking: Stacking) -> None:
    assert stacking.stretch == pytest.approx(1.0 / SOFTNESS, abs=0.015)
    assert stacking.share_weights.sum() == pytest.approx(1.0)
    assert (stacking.point_weights >= 0.0).all()


def test_the_stack_beats_both_on_fresh_crystals(stacking: Stacking) -> None:
    cases = [case(np.random.default_rng(seed)) for seed in range(1000, 1060)]
    true = np.stack([material.points for _, _, material in cases])

    def error(points: list[np.ndarray]) -> float:
        return float(material_mse(np.stack(points), true).mean())

    stacked = error([stacking.points(p, o) for p, o, _ in cases])
    assert stacked < 0.8 * error([p.points.mean(axis=0) for p, _, _ in cases])
    assert stacked < 0.8 * error([o.points() for _, o, _ in cases])


def test_bands_of_the_stack_hold_on_fresh_crystals(stacking: Stacking) -> None:
    inside, occupied = [], []
    for seed in range(2000, 2100):
        predicted, opinion, material = case(np.random.default_rng(seed))
        shares = stacking.shares(predicted, opinion)
        members = np.vstack([predicted.shares, opinion.shares(stacking.stretch)])
        lower, upper = stacking.calibration.windows.band(shares, members.std(axis=0, ddof=1))
        within = (lower <= material.shares + 1e-12) & (material.shares <= upper + 1e-12)
        inside.append(within.mean())
        occupied.append(within[material.shares > 1e-3].mean())
    assert np.mean(inside) > 0.85
    assert np.mean(occupied) > 0.8


@pytest.fixture(scope="module")
def salt() -> PhononDos:
    return load_predictor()(bulk("NaCl", "rocksalt", a=5.64))


def test_a_stacked_record_keeps_its_promises(stacking: Stacking, salt: PhononDos) -> None:
    from dataclasses import replace

    opinion = SecondOpinion(1.0, two_peaks(140.0, 200.0, 15.0), 0.0, 3.2, "a potential")
    fitting = replace(stacking, model=salt.model)
    both = fitting(salt, opinion)
    assert both.modes.sum() == pytest.approx(6.0, abs=1e-9)
    np.testing.assert_allclose(both.site_modes.sum(axis=1), 3.0, atol=1e-6)
    np.testing.assert_allclose(both.site_modes.sum(axis=0), both.modes, atol=1e-6)
    assert ((both.modes_lower <= both.modes) & (both.modes <= both.modes_upper)).all()
    assert both.member_shares.shape == (len(salt.member_shares) + 1, 72)
    low, high = both.heat_capacity_band(100.0)
    assert low < both.heat_capacity(100.0) < high
    assert both.second_opinion == "a potential; 3 s"
    assert both.model == f"{salt.model}+{fitting.version}"
    assert salt.second_opinion == "not asked"


def test_weights_that_were_not_weighed_are_refused(stacking: Stacking, salt: PhononDos) -> None:
    with pytest.raises(OpinionRefused, match="phonons stack"):
        stacking(salt, SecondOpinion(1.0, two_peaks(140.0, 200.0, 15.0), 0.0, 3.2, ""))


def test_stacking_survives_being_written(stacking: Stacking) -> None:
    again = Stacking.from_arrays(stacking.to_arrays(), "m")
    assert again.version == stacking.version
    assert again.n_materials == 60
    assert Stacking.from_arrays({**stacking.to_arrays(), "stretch": np.array([1.2])}, "m").version != stacking.version


def test_an_absent_stacking_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="phonons stack"):
        load_stacking(tmp_path / "none.safetensors")


def test_margins_are_met_with_the_least_change() -> None:
    """Two sites, two windows: the division that keeps the odds ratio."""
    given = np.array([[2.0, 1.0], [1.0, 2.0]])
    fitted = fitted_to_margins(given, np.array([4.0, 2.0]))
    np.testing.assert_allclose(fitted.sum(axis=1), 3.0, atol=1e-9)
    np.testing.assert_allclose(fitted.sum(axis=0), [4.0, 2.0], atol=1e-9)
    assert fitted[0, 0] * fitted[1, 1] / (fitted[0, 1] * fitted[1, 0]) == pytest.approx(4.0)

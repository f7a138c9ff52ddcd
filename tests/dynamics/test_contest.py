"""Whose forecast is published: what the contest's scores decide, and what within chance decides."""

from __future__ import annotations

import pytest

from beamline_ml.dynamics.contest import NEURAL_ODE, published

CURVES = {"persistence": 0.2, "ageing_kww": 0.11, "homodyne": 0.105, "gp": 0.1, "dmd": 0.3}
MARGIN = 0.01


@pytest.mark.parametrize(("law", "wins"), [(0.109, NEURAL_ODE), (0.111, "homodyne")])
def test_the_force_may_be_behind_by_chance(law: float, wins: str) -> None:
    assert published(CURVES | {NEURAL_ODE: law}, MARGIN) == wins


@pytest.mark.parametrize("name", ["gp", "dmd"])
def test_a_curve_that_is_only_smooth_must_be_ahead_by_more_than_chance(name: str) -> None:
    behind = CURVES | {"gp": 0.3, NEURAL_ODE: 0.4}
    assert published(behind | {name: 0.096}, MARGIN) == "homodyne"
    assert published(behind | {name: 0.094}, MARGIN) == name
    assert published({name: 0.1}, MARGIN) == name


def test_without_curves_there_is_the_law() -> None:
    assert published({}) == published({NEURAL_ODE: 0.1}) == NEURAL_ODE

"""Do all parts of a run ask for the same law? Against linear models, whose chance is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics.growing_horizon import Evaluation
from beamline_ml.dynamics.steadiness import Steadiness, of_parts

N, M = 60, 5


def seen(slopes: np.ndarray, data: np.ndarray, at: np.ndarray) -> Evaluation:
    """What rows of unit noise say at some parameters."""
    return Evaluation(slopes.T @ slopes, slopes.T @ (data - slopes @ at), 0.0, 1.0)


def compared(rng: np.random.Generator, change: float, off: float = 0.0) -> Steadiness:
    """Of both halves at the answer of the whole, or near it."""
    slopes = rng.standard_normal((2, N, M)) * [3.0, 2.0, 1.0, 0.5, 1e-4]
    truth = rng.standard_normal(M)
    later = truth + change * np.array([1.0, -1.0, 0.0, 0.0, 0.0])
    first, second = (s @ p + rng.standard_normal(N) for s, p in zip(slopes, (truth, later), strict=True))
    both, data = slopes.reshape(-1, M), np.concatenate([first, second])
    answer = np.linalg.lstsq(both, data, rcond=None)[0] * [1.0, 1.0, 1.0, 1.0, 0.0] + off * rng.standard_normal(M)
    return of_parts(seen(slopes[0], first, answer), seen(slopes[1], second, answer))


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_one_law_is_within_chance_also_before_the_last_step(off: float) -> None:
    rng = np.random.default_rng(0)
    each = [compared(rng, 0.0, off) for _ in range(400)]
    assert {one.n for one in each} == {4}, "of the last parameter nothing is known"
    assert np.mean([one.chi2 for one in each]) == pytest.approx(4.0, abs=0.5)
    assert np.std([one.beyond_chance for one in each]) == pytest.approx(1.0, abs=0.25)


def test_a_law_that_changed_is_told() -> None:
    for seed in range(20):
        assert compared(np.random.default_rng(seed), 0.5).beyond_chance > 5.0


def test_laws_that_hardly_differ_are_one_however_much_is_known_of_them() -> None:
    slopes, rng = np.diag([1e6, 1e6]), np.random.default_rng(0)
    for difference, told in ((1e-3, False), (1e-1, True)):
        parts = [seen(slopes, slopes @ np.full(2, at) + rng.standard_normal(2), np.zeros(2)) for at in (0, difference)]
        assert (of_parts(*parts).beyond_chance > 5.0) == told


def test_blocks_add_up() -> None:
    together = Steadiness(10.0, 8).with_more(Steadiness(30.0, 8))
    assert together.beyond_chance == pytest.approx(24.0 / np.sqrt(32.0))
    assert Steadiness().beyond_chance == 0.0
    assert Steadiness().with_more(Steadiness(9.0, 8)) == Steadiness(9.0, 8)


def test_a_late_change_is_told_as_soon_as_an_early_one() -> None:
    quiet = Steadiness(0.0, 0)
    for _ in range(50):
        quiet = quiet.with_more(Steadiness(15.0, 23))
    assert quiet.with_more(Steadiness(60.0, 23)) == Steadiness(60.0, 23)

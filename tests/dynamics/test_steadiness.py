"""Do all parts of a run ask for the same law? Against linear models, whose chance is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.dynamics.growing_horizon import Evaluation
from beamline_ml.dynamics.steadiness import Steadiness, of_beginning, of_more

N, M = 60, 5
PRIOR = 0.3 * np.eye(M)


def seen(slopes: np.ndarray, data: np.ndarray, at: np.ndarray) -> Evaluation:
    """What rows of unit noise say at some parameters."""
    return Evaluation(slopes.T @ slopes, slopes.T @ (data - slopes @ at), 0.0, 1.0)


def compared(rng: np.random.Generator, change: float, unfinished: float = 0.0) -> tuple[Steadiness, Steadiness]:
    """Of both halves at the answer of the whole, and of the second half at the answer of the first."""
    slopes = rng.standard_normal((2, N, M)) * [3.0, 2.0, 1.0, 0.5, 1e-4]
    truth = rng.standard_normal(M) / np.sqrt(0.3)
    later = truth + change * np.array([1.0, -1.0, 0.0, 0.0, 0.0])
    first, second = (s @ p + rng.standard_normal(N) for s, p in zip(slopes, (truth, later), strict=True))
    both, data = slopes.reshape(-1, M), np.concatenate([first, second])
    covariance = np.linalg.inv(both.T @ both + PRIOR)
    answer = covariance @ both.T @ data + unfinished * rng.standard_normal(M)
    whole = seen(both, data, answer)
    halves = of_beginning(seen(slopes[0], first, answer), whole, covariance, answer, np.arange(M))
    known = np.linalg.inv(slopes[0].T @ slopes[0] + PRIOR)
    return halves, of_more(seen(slopes[1], second, known @ slopes[0].T @ first), known)


@pytest.mark.parametrize("unfinished", [0.0, 0.3])
def test_one_law_is_within_chance_also_before_the_last_step(unfinished: float) -> None:
    rng = np.random.default_rng(0)
    for each in zip(*(compared(rng, 0.0, unfinished) for _ in range(400)), strict=True):
        chi2, n = (np.array([getattr(one, name) for one in each]) for name in ("chi2", "n"))
        assert set(n) == {4}, "of the last parameter nothing is known"
        assert chi2.mean() == pytest.approx(4.0, abs=0.5)
        assert np.std([one.beyond_chance for one in each]) == pytest.approx(1.0, abs=0.25)


def test_a_law_that_changed_is_told() -> None:
    for halves, more in (compared(np.random.default_rng(seed), 0.5) for seed in range(20)):
        assert halves.beyond_chance > 5.0
        assert more.beyond_chance > 5.0


def test_blocks_add_up() -> None:
    together = Steadiness(10.0, 8).with_more(Steadiness(30.0, 8))
    assert together.beyond_chance == pytest.approx(24.0 / np.sqrt(32.0))
    assert Steadiness().beyond_chance == 0.0

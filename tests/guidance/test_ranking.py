"""Ranking against the textbook formula on the full covariance."""

from __future__ import annotations

import numpy as np
import pytest

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import expected_information_nats, greedy_ranking

NOISE = 0.1


@pytest.fixture
def members() -> np.ndarray:
    return np.random.default_rng(0).normal(0.0, 0.3, (6, 5, 4))


def joint_nats(members: np.ndarray, chosen: list[int]) -> float:
    """1/2 log det(1 + Sigma/sigma^2) of several samples at once, on all their points."""
    flat = members[:, chosen].reshape(len(members), -1)
    covariance = np.cov(flat, rowvar=False)
    return 0.5 * float(np.linalg.slogdet(np.eye(len(covariance)) + covariance / NOISE**2)[1])


def test_information_of_one_sample_is_the_textbooks(members: np.ndarray) -> None:
    expected = [joint_nats(members, [i]) for i in range(5)]
    np.testing.assert_allclose(expected_information_nats(members, NOISE), expected, rtol=1e-10)


def test_batch_is_greedy_in_the_joint_information(members: np.ndarray) -> None:
    hours = np.array([1.0, 2.0, 1.0, 0.5, 1.0])
    ranking = greedy_ranking(members, NOISE, hours, 5)
    chosen: list[int] = []
    for index, nats in zip(ranking.order, ranking.nats, strict=True):
        gains = {
            i: joint_nats(members, [*chosen, i]) - (joint_nats(members, chosen) if chosen else 0.0)
            for i in set(range(5)) - set(chosen)
        }
        assert int(index) == max(gains, key=lambda i: gains[i] / hours[i])
        assert nats == pytest.approx(gains[int(index)], rel=1e-8)
        chosen.append(int(index))
    np.testing.assert_allclose(ranking.nats_per_hour, ranking.nats / hours[ranking.order])


def test_the_same_sample_twice_tells_less_the_second_time(members: np.ndarray) -> None:
    twins = members[:, [0, 0, 1], :2]
    twins[:, 2] = members[:, 1, :2] * 0.5
    ranking = greedy_ranking(twins, NOISE, np.ones(3), 3)
    assert ranking.order[0] == 0
    assert ranking.order[1] == 2


def test_agreement_tells_nothing() -> None:
    assert expected_information_nats(np.ones((4, 2, 3)), NOISE) == pytest.approx([0.0, 0.0])


def test_nonsense_is_refused(members: np.ndarray) -> None:
    with pytest.raises(GuidanceError, match="no spread"):
        expected_information_nats(members[:1], NOISE)
    with pytest.raises(GuidanceError, match="noise"):
        expected_information_nats(members, 0.0)
    with pytest.raises(GuidanceError, match="positive time"):
        greedy_ranking(members, NOISE, np.zeros(5), 2)
    with pytest.raises(GuidanceError, match="cannot be chosen"):
        greedy_ranking(members, NOISE, np.ones(5), 6)

"""Advice on simulated runs, and what comes of following it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import Goal, RunSoFar, advise, expected_relative_error, nats_per_minute
from tests.guidance import campaign
from tests.guidance.campaign import PERIOD_S, Sample, movie, run_of

GOAL = Goal(relative_error=0.05, longest_s=160.0)


@pytest.fixture(scope="module")
def started() -> RunSoFar:
    return run_of(movie(Sample(20.0, 0.3), 200, 1))


def test_run_that_has_what_was_wanted_stops(started: RunSoFar) -> None:
    advice = advise(started, replace(GOAL, relative_error=0.5))
    assert (advice.action, advice.go_on_s, advice.limit) == ("stop", 0.0, "goal")


def test_run_that_goes_on_as_told_gets_what_was_wanted(started: RunSoFar) -> None:
    advice = advise(started, GOAL)
    assert advice.action == "go on"
    assert advice.relative_error_then == pytest.approx(0.05, rel=0.05)
    assert advice.relative_error_now > 0.05
    n_then = started.n_frames + round(advice.go_on_s / PERIOD_S)
    ended = [run_of(movie(Sample(20.0, 0.3), n_then, seed)).relative_error[0] for seed in range(4)]
    assert np.median(ended) == pytest.approx(0.05, rel=0.35)


def test_expected_errors_start_where_the_fit_is_and_fall(started: RunSoFar) -> None:
    errors = [expected_relative_error(started, further)[0] for further in (0.0, 10.0, 60.0, 600.0)]
    assert errors[0] == pytest.approx(started.relative_error[0])
    assert errors == sorted(errors, reverse=True)
    assert nats_per_minute(started) == pytest.approx(np.log(errors[0] / errors[2]))


def test_goal_out_of_reach_uses_the_beam_time_and_says_what_it_brings(started: RunSoFar) -> None:
    advice = advise(started, Goal(relative_error=0.001, longest_s=60.0))
    assert (advice.action, advice.limit) == ("go on", "beam time")
    assert advice.go_on_s == pytest.approx(50.0)
    assert "out of reach" in advice.reason


def test_used_up_beam_time_stops(started: RunSoFar) -> None:
    advice = advise(started, Goal(relative_error=0.001, longest_s=5.0))
    assert (advice.action, advice.limit) == ("stop", "beam time")


def test_sample_that_stands_still_is_given_up_before_the_beam_time_is_gone() -> None:
    frames = movie(Sample(1e6, 0.5), 1600, 3)
    early, late = advise(run_of(frames[:100]), GOAL), advise(run_of(frames), GOAL)
    assert early.action == "go on"
    assert (late.action, late.limit) == ("stop", "slow dynamics")


def test_decay_before_the_first_lag_asks_for_faster_frames_where_the_detector_can() -> None:
    run = run_of(movie(Sample(0.25, 0.5), 1600, 3))
    assert advise(run, GOAL).action == "stop"
    advice = advise(run, replace(GOAL, shortest_frame_period_s=0.002))
    assert (advice.action, advice.frame_period_s, advice.limit) == ("change frame period", 0.002, "frame period")


def added(frames: np.ndarray, n: int) -> np.ndarray:
    """What a slower detector sees of the same photons: the decay goes on within its frames."""
    return frames.reshape(-1, n, *frames.shape[1:]).sum(axis=1)


@pytest.mark.parametrize("relaxation_frames", [5.0, 8.0])
def test_coarse_frames_are_to_be_split_and_that_pays(relaxation_frames: float) -> None:
    sample = Sample(relaxation_frames, 0.3)
    run = run_of(added(movie(sample, 4000, 0), 5))
    advice = advise(run, Goal(0.002, 1e4, shortest_frame_period_s=0.1 * PERIOD_S))
    assert advice.action == "change frame period"
    assert 0.1 * PERIOD_S <= advice.frame_period_s < 0.7 * PERIOD_S
    movies = [movie(sample, 4000, seed) for seed in range(1, 4)]
    coarse, fine = ([run_of(added(m, n)).relative_error[0] for m in movies] for n in (5, 1))
    # No fit at all is as bad as it gets.
    assert np.median(fine) < 0.8 * np.median(np.nan_to_num(coarse, nan=np.inf))
    assert np.median(fine) < 0.1


def test_following_the_advice_loses_little_and_saves_much() -> None:
    goal, lengths = Goal(0.05, 1600 * PERIOD_S), np.array([100, 400, 1600])
    known = ideal = taken = 0.0
    samples = [Sample(12.0, 1.0), Sample(12.0, 0.2), Sample(40.0, 1.0)]
    for sample in samples:
        errors = campaign.true_errors(sample, lengths, 5)
        ended = campaign.followed(sample, goal, seed=5)
        oracle = campaign.oracle_frames(lengths, errors, goal.relative_error)
        known += campaign.information(lengths, errors, ended, goal.relative_error)
        ideal += campaign.information(lengths, errors, oracle, goal.relative_error)
        taken += ended / lengths[-1]
    assert ideal > 6.0
    assert known > 0.85 * ideal
    assert taken < 0.75 * len(samples)


def test_bins_that_do_not_fit_together_are_refused(started: RunSoFar) -> None:
    with pytest.raises(GuidanceError, match="same q-map"):
        replace(started, counts=np.ones(3))
    with pytest.raises(GuidanceError, match="no run"):
        replace(started, n_frames=1)
    with pytest.raises(GuidanceError, match="longest_s"):
        Goal(longest_s=-1.0)

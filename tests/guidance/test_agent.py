"""The loop on a simulated sample: it measures, learns, proposes, and measures again until the goal is reached."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from beamline_ml.acquisition.plans import xpcs_burst
from beamline_ml.errors import GuidanceError
from beamline_ml.guidance import BurstAgent, Goal, RunSoFar
from tests.guidance.campaign import PERIOD_S, Sample, movie, run_of

GOAL = Goal(relative_error=0.06, longest_s=100.0)


def measure(sample: Sample, point: tuple[int, float], seed: int) -> RunSoFar:
    n_frames, period_s = point
    assert period_s == pytest.approx(PERIOD_S)
    return run_of(movie(sample, n_frames, seed))


def test_loop_ends_at_the_goal() -> None:
    agent = BurstAgent(GOAL, (100, PERIOD_S))
    taken: list[RunSoFar] = []
    documents, points = agent.ask()
    assert documents[0]["reason"] == "Nothing is known yet."
    while points:
        taken.append(measure(Sample(20.0, 0.3), points[0], len(taken)))
        agent.tell(points[0], taken[-1])
        documents, points = agent.ask()
        assert all(document["reason"].endswith(".") for document in documents)
    assert 2 <= len(taken) <= 8
    assert taken[-1].relative_error[0] <= GOAL.relative_error
    assert np.all(np.diff([run.n_frames for run in taken]) > 0)
    assert agent.report()["action"] == "stop"


def test_proposals_stay_within_what_is_allowed() -> None:
    agent = BurstAgent(Goal(relative_error=0.001, longest_s=12.0), (100_000, PERIOD_S))
    assert agent.ask()[1] == [(240, PERIOD_S)]
    agent.tell((240, PERIOD_S), measure(Sample(20.0, 0.3), (240, PERIOD_S), 0))
    # Nothing longer may be taken, and the same again would tell the same.
    assert agent.ask() == ([], [])
    assert agent.suggest() == []
    assert agent.should_stop()[0]


def test_it_gives_up_after_so_many_bursts() -> None:
    agent = BurstAgent(GOAL, (100, PERIOD_S), most_bursts=1)
    agent.tell((100, PERIOD_S), measure(Sample(20.0, 0.1), (100, PERIOD_S), 0))
    assert agent.ask() == ([], [])
    assert agent.report()["bursts"] == 1


def test_faster_frames_are_proposed_and_no_faster_than_the_detector() -> None:
    agent = BurstAgent(Goal(0.05, 160.0, shortest_frame_period_s=0.002), (1600, PERIOD_S))
    agent.tell((1600, PERIOD_S), run_of(movie(Sample(0.25, 0.5), 1600, 3)))
    (n_frames, period_s) = agent.ask()[1][0]
    assert period_s == 0.002
    assert n_frames * period_s <= 160.0


def test_measurement_plan_is_one_that_the_beamline_has() -> None:
    name, positional, named = BurstAgent(GOAL, (100, PERIOD_S), exposed_share=0.9).measurement_plan((300, 0.05))
    assert name == xpcs_burst.__name__
    assert positional == []
    assert set(named) <= set(inspect.signature(xpcs_burst).parameters)
    assert named["exposure_s"] == pytest.approx(0.045)


def test_exposure_longer_than_the_period_is_refused() -> None:
    with pytest.raises(GuidanceError, match="exposed share"):
        BurstAgent(GOAL, (100, PERIOD_S), exposed_share=1.5)


def test_bluesky_adaptive_runs_the_loop() -> None:
    """Its plan, its protocols, a RunEngine, and bursts of a simulated sample."""
    reason = "no bluesky-adaptive 1.0 here: pip install 'bluesky-adaptive>=1,<2', then run again"
    protocols = pytest.importorskip("bluesky_adaptive.protocols", reason=reason)
    from bluesky import RunEngine
    from bluesky import plan_stubs as bps
    from bluesky_adaptive.plans import optimize

    agent = BurstAgent(GOAL, (100, PERIOD_S))
    assert isinstance(agent, protocols.Optimizer)
    assert isinstance(agent, protocols.SupportsStoppingCriteria)
    taken: list[RunSoFar] = []

    def acquire(suggestions, actuators, sensors=None, md=None):
        yield from bps.null()
        (point,) = suggestions
        taken.append(measure(Sample(20.0, 0.3), (point["n_frames"], point["frame_period_s"]), len(taken)))
        return len(taken) - 1

    def evaluate(uid, suggestions):
        return [{"_id": point["_id"], **agent.outcome(taken[uid])} for point in suggestions]

    documents: list[str] = []
    problem = protocols.OptimizationProblem(agent, [], [], evaluate, acquire)
    RunEngine({})(optimize(problem, iterations=None), lambda name, _: documents.append(name))
    assert agent.should_stop()[0]
    assert 2 <= len(taken) <= 8
    assert documents.count("event") == len(taken) - 1, "the last step ends the plan before it is read"
    ((_, burst, outcome),) = agent.get_best_points()
    assert outcome["relative_error_now"] <= GOAL.relative_error
    assert burst["n_frames"] == max(run.n_frames for run in taken)

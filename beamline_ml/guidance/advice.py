"""Stop, go on, or change the frame period: what more beam time would buy.

The errors that the fit has now are the anchor; only how they will shrink is foreseen (``expected_errors``). The goal is
a relative error of the relaxation time, reached when half of the bins with a fit have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance.expected_errors import Bin, relative_time_error
from beamline_ml.guidance.run_so_far import RunSoFar
from beamline_ml.records import Float64Array

STOP, GO_ON, CHANGE = "stop", "go on", "change frame period"
MINUTE_S = 60.0
SIGNIFICANT = 3.0
FRAMES_PER_TIME = 5.0
"""Frames per relaxation time that see the decay well."""
WORTH_CHANGING = 0.7
"""A frame period is changed when the error would fall to this part."""
COARSE = 3.5
"""A decay without a fit that is over after three frames is sampled too coarsely."""
PATIENCE = 2.0
"""Without a fit the run is looked at again when it is this many times as long."""
_LEAST_STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Goal:
    """What the run is for, and what it may cost.

    Raises
    ------
    GuidanceError
        A number is not positive.
    """

    relative_error: float = 0.05
    """Wanted of the relaxation time."""
    longest_s: float = 3600.0
    """Beam time that the run may take in all."""
    shortest_frame_period_s: float | None = None
    """What the detector can do; None rules out faster frames."""

    def __post_init__(self) -> None:
        for name in ("relative_error", "longest_s", "shortest_frame_period_s"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise GuidanceError(f"{name} is {value}.", "Give a positive number.")


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do with the run, and why."""

    action: str
    """'stop', 'go on' or 'change frame period'."""
    go_on_s: float
    """Further beam time that is worth taking; 0 for stop."""
    frame_period_s: float
    """To use from now on."""
    relative_error_now: float
    """Median over bins with a fit; NaN without one."""
    relative_error_then: float
    """Expected after ``go_on_s``."""
    nats_per_minute: float
    """Expected information about the relaxation times from the next minute, all bins together."""
    limit: str
    """What binds: 'goal', 'beam time', 'photons', 'frame period', 'slow dynamics'."""
    reason: str
    """One sentence."""


def advise(run: RunSoFar, goal: Goal | None = None) -> Advice:
    """Advice for a run as far as it has come.

    Returns
    -------
    Advice
        When not even twice the allowed beam time would show a decay, the advice is to stop or to change the frames.
    """
    goal = goal or Goal()
    return _with_fit(run, goal) if run.fitted.any() else _without_fit(run, goal)


def expected_relative_error(run: RunSoFar, further_s: float) -> Float64Array:
    """(n_q,) relative errors of the relaxation times after further beam time; NaN for bins without a fit.

    Each error shrinks from where the fit has it, by the ratio that its noise foresees.
    """
    found = np.full(len(run.counts), np.nan)
    n_then = run.n_frames + round(further_s / run.frame_period_s)
    for q in np.flatnonzero(run.fitted):
        q_bin = run.bin(int(q))
        shrinks = relative_time_error(q_bin, n_then) / relative_time_error(q_bin, run.n_frames)
        found[q] = run.relative_error[q] * min(shrinks, 1.0)
    return found


def nats_per_minute(run: RunSoFar) -> float:
    """Information about the relaxation times that the next minute adds, sum over bins of ln(error now / error then)."""
    then = expected_relative_error(run, MINUTE_S)
    return float(np.nansum(np.log(run.relative_error / then)))


def _with_fit(run: RunSoFar, goal: Goal) -> Advice:
    now = float(np.median(run.relative_error[run.fitted]))
    left_s = goal.longest_s - run.duration_s
    if now <= goal.relative_error:
        return _advice(run, STOP, 0.0, "goal", f"The relaxation time is known to {100 * now:.1f} %, as was wanted.")
    if left_s <= 0.0:
        reason = f"The allowed beam time is used up; the relaxation time is known to {100 * now:.1f} %."
        return _advice(run, STOP, 0.0, "beam time", reason)
    better = _better_frame_period(run, goal)
    if better is not None:
        return better
    needed_s = _time_to_goal_s(run, goal.relative_error, left_s)
    if needed_s is None:
        then = float(np.nanmedian(expected_relative_error(run, left_s)))
        reason = (
            f"{100 * goal.relative_error:.3g} % is out of reach, but the beam time that is left brings the error from "
            f"{100 * now:.1f} to {100 * then:.1f} %."
        )
        return _advice(run, GO_ON, left_s, "beam time", reason)
    reason = f"After that the error of the relaxation time has fallen from {100 * now:.1f} to the wanted " \
             f"{100 * goal.relative_error:.3g} %."  # fmt: skip
    return _advice(run, GO_ON, needed_s, "goal", reason)


def _time_to_goal_s(run: RunSoFar, wanted: float, left_s: float) -> float | None:
    """Further beam time after which the median error is what is wanted; None when what is left does not suffice."""

    def reached(further_s: float) -> bool:
        return float(np.nanmedian(expected_relative_error(run, further_s))) <= wanted

    if not reached(left_s):
        return None
    low, high = 0.0, left_s
    while high - low > max(0.01 * (run.duration_s + high), run.frame_period_s):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def _better_frame_period(run: RunSoFar, goal: Goal) -> Advice | None:
    """Advice to take faster frames where the present ones see too little of the decay."""
    shortest = goal.shortest_frame_period_s
    if shortest is None or shortest >= run.frame_period_s:
        return None
    bins = [run.bin(int(q)) for q in np.flatnonzero(run.fitted)]
    time_s = float(np.median([q_bin.relaxation_time_s for q_bin in bins]))
    period_s = max(shortest, time_s / FRAMES_PER_TIME)
    if period_s >= run.frame_period_s:
        return None
    gain = float(np.median([_error_ratio(q_bin, period_s, run.duration_s) for q_bin in bins]))
    if gain > WORTH_CHANGING:
        return None
    reason = (
        f"Frames of {run.frame_period_s:.3g} s see too little of a decay of {time_s:.3g} s: shorter ones bring the "
        f"error to {100 * gain:.0f} % of what the same beam time brings now."
    )
    return _advice(run, CHANGE, run.duration_s, "frame period", reason, period_s)


def _error_ratio(q_bin: Bin, frame_period_s: float, duration_s: float) -> float:
    """Error with other frames over the error with these, in the same beam and beam time."""
    here = relative_time_error(q_bin, round(duration_s / q_bin.frame_period_s))
    there = relative_time_error(q_bin.with_frame_period(frame_period_s), round(duration_s / frame_period_s))
    return there / here


def _without_fit(run: RunSoFar, goal: Goal) -> Advice:
    left_s = goal.longest_s - run.duration_s
    if left_s <= 0.0:
        return _advice(run, STOP, 0.0, "beam time", "The allowed beam time is used up and no decay stands out.")
    excess = [run.excess(q) for q in range(len(run.counts))]
    strongest = max(value / error for value, error in excess)
    if strongest < SIGNIFICANT:
        return _nothing_stands_out(run, goal, max(strongest, 0.0), left_s)
    decays = [value / error for value, error in map(run.decay_seen, range(len(run.counts)))]
    clearest = int(np.argmax(decays))
    shortest = goal.shortest_frame_period_s
    rough_s = run.rough_time_s(clearest)
    if decays[clearest] >= SIGNIFICANT and rough_s < COARSE * run.frame_period_s:
        if shortest is not None and shortest < run.frame_period_s:
            period_s = max(shortest, rough_s / FRAMES_PER_TIME)
            reason = f"The decay is over after about {rough_s:.3g} s, within too few frames to be fitted."
            return _advice(run, CHANGE, run.duration_s, "frame period", reason, period_s)
    elif decays[clearest] < SIGNIFICANT and run.duration_s * PATIENCE > goal.longest_s / PATIENCE:
        reason = "Speckle is there but does not fade, and what is left of the beam time is too short to see it fade."
        return _advice(run, STOP, 0.0, "slow dynamics", reason)
    step_s = min((PATIENCE - 1.0) * run.duration_s, left_s)
    reason = "Speckle is there, but its decay is not seen to its end yet; look again when the run is twice as long."
    return _advice(run, GO_ON, step_s, "slow dynamics", reason)


def _nothing_stands_out(run: RunSoFar, goal: Goal, strongest: float, left_s: float) -> Advice:
    """No speckle contrast at the shortest lag: too few photons, or the decay is over before it."""
    # Significance grows with the square root of beam time; one unit is what noise alone may feign.
    could_s = run.duration_s * (SIGNIFICANT / (strongest + 1.0)) ** 2
    if could_s <= goal.longest_s:
        step_s = min(max(could_s - run.duration_s, _LEAST_STEP_S), left_s)
        reason = f"Nothing stands out of the noise yet; contrast could after {could_s:.3g} s in all."
        return _advice(run, GO_ON, step_s, "photons", reason)
    shortest = goal.shortest_frame_period_s
    if shortest is not None and shortest < run.frame_period_s:
        reason = (
            f"No contrast at {run.frame_period_s:.3g} s, nor could the beam time bring it out: the decay may be faster."
        )
        return _advice(run, CHANGE, left_s, "frame period", reason, shortest)
    reason = "No contrast stands out, nor could it within the beam time: more photons or faster frames are needed."
    return _advice(run, STOP, 0.0, "photons", reason)


def _advice(
    run: RunSoFar, action: str, go_on_s: float, limit: str, reason: str, frame_period_s: float | None = None
) -> Advice:
    fitted = run.fitted
    now = float(np.median(run.relative_error[fitted])) if fitted.any() else np.nan
    then = now
    if fitted.any() and action == GO_ON:
        then = float(np.nanmedian(expected_relative_error(run, go_on_s)))
    return Advice(
        action=action,
        go_on_s=go_on_s,
        frame_period_s=run.frame_period_s if frame_period_s is None else frame_period_s,
        relative_error_now=now,
        relative_error_then=then,
        nats_per_minute=nats_per_minute(run) if fitted.any() else np.nan,
        limit=limit,
        reason=reason,
    )

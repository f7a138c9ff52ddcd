"""The advice as an agent that is told of bursts and asked for the next one; it proposes and submits nothing.

Two conventions of bluesky-adaptive are met by form, without its base classes: ``tell``, ``ask``, ``measurement_plan``
and ``report`` of the agents up to 0.4; and of 1.0 the protocols ``Optimizer`` (``suggest``, ``ingest``,
``get_best_points``) and ``SupportsStoppingCriteria`` (``should_stop``), whose plan ``optimize`` runs the loop in a
RunEngine. What carries proposals to a queue, and whether it may, is the business of whoever runs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance.advice import CHANGE, STOP, Goal, advise
from beamline_ml.guidance.run_so_far import RunSoFar

Point = tuple[int, float]
"""Frames of a burst and the time between them in s."""

PLAN = "xpcs_burst"


class BurstAgent:
    """Looks for the burst that reaches the goal on one sample.

    Bursts are not merged, so each proposal is a whole burst as long as the advice on the last one asks for in all.

    Parameters
    ----------
    goal
        What bursts are for, and how long one may be; ``shortest_frame_period_s`` rules what can be proposed.
    first
        Burst to propose before anything is known.
    exposed_share
        Part of the frame period that is exposed.
    most_bursts
        After so many the agent proposes no more.
    """

    def __init__(self, goal: Goal, first: Point, exposed_share: float = 1.0, most_bursts: int = 8) -> None:
        if not 0.0 < exposed_share <= 1.0:
            raise GuidanceError(f"An exposed share of {exposed_share} is none.", "Give more than 0, at most 1.")
        self.goal, self.exposed_share, self.most_bursts = goal, exposed_share, most_bursts
        self._next: Point | None = self._within(*first)
        self._told: list[dict[str, Any]] = []

    def outcome(self, run: RunSoFar) -> dict[str, Any]:
        """What a burst showed, in the numbers and words that :meth:`ingest` takes and a document can hold.

        Returns
        -------
        dict
            The fields of the advice on it, and its ``n_frames`` and ``measured_period_s``.
        """
        return {**asdict(advise(run, self.goal)), "n_frames": run.n_frames, "measured_period_s": run.frame_period_s}

    def tell(self, x: Point, y: RunSoFar) -> dict[str, Any]:
        """Learn from a burst: where it was taken (frames, period) and what came out."""
        outcome = self.outcome(y)
        self.ingest([outcome])
        return {"x": list(x), "action": outcome["action"], "relative_error": outcome["relative_error_now"]}

    def ingest(self, points: Sequence[Mapping[str, Any]]) -> None:
        """Learn from outcomes of bursts, each as :meth:`outcome` gives it."""
        for point in points:
            self._told.append(dict(point))
            self._next = self._after(point)

    def _after(self, told: Mapping[str, Any]) -> Point | None:
        """The burst to take next; None when there is none."""
        if told["action"] == STOP or len(self._told) >= self.most_bursts:
            return None
        # A burst with other frames starts over; one with the same frames must be longer than the last.
        duration_s = told["n_frames"] * told["measured_period_s"]
        total_s = told["go_on_s"] if told["action"] == CHANGE else duration_s + told["go_on_s"]
        proposed = self._within(round(total_s / told["frame_period_s"]), told["frame_period_s"])
        return proposed if proposed != (told["n_frames"], told["measured_period_s"]) else None

    def ask(self, batch_size: int = 1) -> tuple[Sequence[dict[str, Any]], Sequence[Point]]:
        """The next burst with its reason; nothing when the goal is reached or there is no more to try.

        One burst at most comes back, whatever the batch size: the one after it depends on what it shows.
        """
        if self._next is None or batch_size < 1:
            return [], []
        reason = self.report()["reason"]
        return [{"reason": reason, "n_frames": self._next[0], "frame_period_s": self._next[1]}], [self._next]

    def suggest(self, num_points: int | None = None) -> list[dict[str, Any]]:
        """:meth:`ask`, as ``Optimizer`` of bluesky-adaptive 1.0 has it: points with an ``_id``."""
        documents, _ = self.ask(1 if num_points is None else num_points)
        return [{"_id": len(self._told), **document} for document in documents]

    def get_best_points(self) -> list[tuple[Any, dict[str, Any], dict[str, Any]]]:
        """The burst with the smallest error of the relaxation time: its ``_id``, parameters and outcome."""
        known = [told for told in self._told if told["relative_error_now"] == told["relative_error_now"]]
        if not known:
            return []
        best = min(known, key=lambda told: float(told["relative_error_now"]))
        taken = {"n_frames": best["n_frames"], "frame_period_s": best["measured_period_s"]}
        return [(best.get("_id"), taken, best)]

    def should_stop(self) -> tuple[bool, str | None]:
        """Whether there is no burst to take, and why."""
        return (True, self.report()["reason"]) if self._next is None else (False, None)

    def measurement_plan(self, point: Point) -> tuple[str, list[Any], dict[str, Any]]:
        """Name, positional and keyword arguments of the plan that takes a burst."""
        n_frames, period_s = point
        exposure_s = self.exposed_share * period_s
        return PLAN, [], {"n_frames": n_frames, "exposure_s": exposure_s, "period_s": period_s}

    def report(self) -> dict[str, Any]:
        """What the agent thinks of the last burst."""
        if not self._told:
            return {"bursts": 0, "action": "ask", "reason": "Nothing is known yet."}
        last = self._told[-1]
        return {"bursts": len(self._told), "action": last["action"], "reason": last["reason"]}

    def _within(self, n_frames: int, period_s: float) -> Point:
        """The burst, no longer and no faster than allowed."""
        period_s = max(period_s, self.goal.shortest_frame_period_s or 0.0)
        return max(2, min(n_frames, int(self.goal.longest_s / period_s + 1e-9))), period_s

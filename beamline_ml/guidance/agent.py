"""The advice as an agent that is told of bursts and asked for the next one; it proposes and submits nothing.

The methods are those of bluesky-adaptive's agents (``tell`` and ``ask``, in its later versions ``ingest`` and
``suggest``; ``measurement_plan``; ``report``), so that an agent of a beamline can inherit from its base class and from
this one. What carries proposals to a queue, and whether it may, is the business of whoever runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from beamline_ml.errors import GuidanceError
from beamline_ml.guidance.advice import CHANGE, STOP, Advice, Goal, advise
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
        self._advice: Advice | None = None
        self._n_told = 0

    def tell(self, x: Point, y: RunSoFar) -> dict[str, Any]:
        """Learn from a burst: where it was taken (frames, period) and what came out."""
        advice = advise(y, self.goal)
        self._advice, self._n_told = advice, self._n_told + 1
        self._next = None
        if advice.action != STOP and self._n_told < self.most_bursts:
            # A burst with other frames starts over; one with the same frames must be longer than the last.
            total_s = advice.go_on_s if advice.action == CHANGE else y.duration_s + advice.go_on_s
            proposed = self._within(round(total_s / advice.frame_period_s), advice.frame_period_s)
            self._next = proposed if proposed != (y.n_frames, y.frame_period_s) else None
        return {"x": list(x), "action": advice.action, "relative_error": advice.relative_error_now}

    def ask(self, batch_size: int = 1) -> tuple[Sequence[dict[str, Any]], Sequence[Point]]:
        """The next burst with its reason; nothing when the goal is reached or there is no more to try.

        One burst at most comes back, whatever the batch size: the one after it depends on what it shows.
        """
        if self._next is None or batch_size < 1:
            return [], []
        reason = "Nothing is known yet." if self._advice is None else self._advice.reason
        return [{"reason": reason, "n_frames": self._next[0], "frame_period_s": self._next[1]}], [self._next]

    def ingest(self, x: Point, y: RunSoFar) -> dict[str, Any]:
        """:meth:`tell`, by its later name."""
        return self.tell(x, y)

    def suggest(self, batch_size: int = 1) -> tuple[Sequence[dict[str, Any]], Sequence[Point]]:
        """:meth:`ask`, by its later name."""
        return self.ask(batch_size)

    def measurement_plan(self, point: Point) -> tuple[str, list[Any], dict[str, Any]]:
        """Name, positional and keyword arguments of the plan that takes a burst."""
        n_frames, period_s = point
        exposure_s = self.exposed_share * period_s
        return PLAN, [], {"n_frames": n_frames, "exposure_s": exposure_s, "period_s": period_s}

    def report(self) -> dict[str, Any]:
        """What the agent thinks of the last burst."""
        if self._advice is None:
            return {"bursts": 0, "action": "ask", "reason": "Nothing is known yet."}
        return {"bursts": self._n_told, "action": self._advice.action, "reason": self._advice.reason}

    def _within(self, n_frames: int, period_s: float) -> Point:
        """The burst, no longer and no faster than allowed."""
        period_s = max(period_s, self.goal.shortest_frame_period_s or 0.0)
        return max(2, min(n_frames, int(self.goal.longest_s / period_s + 1e-9))), period_s

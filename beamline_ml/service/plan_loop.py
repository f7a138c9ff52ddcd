"""The closed loop: a burst is proposed, queued, measured and fitted, the agent learns, until it has no more to ask.

The loop only adds items to the queue, one at a time; a person starts the queue and can stop it. Where the profile does
not opt in, nothing is added.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from beamline_ml.errors import GuidanceError, ServiceError
from beamline_ml.guidance import BurstAgent
from beamline_ml.results import Results
from beamline_ml.results.identity import json_safe
from beamline_ml.service.plan_conditions import run_of
from beamline_ml.service.queue_proposals import Proposal, ask_manager, check_limits, submit
from beamline_ml.settings import GuidanceSettings

_LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a loop may spend in all, beside the profile's limits for one item.

    Raises
    ------
    GuidanceError
        There is no beam time, or dose is limited and its rate is not known.
    """

    beam_time_s: float
    dose_rate_mgy_per_s: float | None = None
    """Absorbed by the sample; None when it is not known."""
    dose_mgy: float | None = None
    """None does not limit it."""

    def __post_init__(self) -> None:
        if not self.beam_time_s > 0.0:
            raise GuidanceError(f"{self.beam_time_s:g} s of beam time are none.", "Allow some.")
        if self.dose_mgy is not None and self.dose_rate_mgy_per_s is None:
            raise GuidanceError("The dose is limited, and its rate is not known.", "Give dose_rate_mgy_per_s.")


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of the loop."""

    item_uid: str
    """Of the queue's item."""
    run_uid: str
    n_frames: int
    frame_period_s: float
    because: str
    """Why it was proposed."""
    action: str
    """What the advice on it is."""
    relative_error: float
    """Of the relaxation time, median over rings with a fit; NaN without one."""


class MeasurementLoop:
    """Bursts on the sample in the beam, one after the other; iterate over it to have them taken.

    Parameters
    ----------
    settings
        The profile's opt-in, limits and queue server.
    results
        Where fits appear; somebody else makes them.
    agent
        Proposes and learns.
    allowance
        What may be spent.
    journal
        File that gets a line (JSON) for each submission with its reason, and one for each outcome.
    patience_s
        How long the queue may take to begin a burst, and the analysis to fit it.
    """

    def __init__(
        self,
        settings: GuidanceSettings,
        results: Results,
        agent: BurstAgent,
        allowance: Allowance,
        journal: Path,
        patience_s: float = 600.0,
    ) -> None:
        self._settings, self._results, self._agent = settings, results, agent
        self._allowance, self._journal, self._patience_s = allowance, journal, patience_s
        self._spent_s = 0.0
        self.ended = ""
        """Why the loop took no further burst, once it is over."""

    def __iter__(self) -> Iterator[Measured]:
        """Take bursts until the agent has no more to ask, or the allowance is spent.

        Raises
        ------
        GuidanceError
            The profile does not opt in or does not allow a proposal, or a run has no fit to learn from.
        ServiceError
            The queue server refuses or does not answer, a burst failed, or nothing happened for too long.
        """
        while (proposal := self._proposal()) is not None:
            yield self._measured(proposal)

    def _proposal(self) -> Proposal | None:
        """The next burst; None when there is none, or not enough left for it."""
        documents, points = self._agent.ask()
        if not points:
            self.ended = str(self._agent.report()["reason"])
            return None
        plan, _, arguments = self._agent.measurement_plan(points[0])
        duration_s = points[0][0] * points[0][1]
        proposal = Proposal(plan, arguments, duration_s, documents[0]["reason"], dose_mgy=self._dose_mgy(duration_s))
        self.ended = self._overspent(proposal)
        return None if self.ended else proposal

    def _dose_mgy(self, duration_s: float) -> float | None:
        rate = self._allowance.dose_rate_mgy_per_s
        return None if rate is None else rate * duration_s

    def _overspent(self, proposal: Proposal) -> str:
        """Which part of the allowance the proposal would exceed; nothing when none."""
        total_s, allowed = self._spent_s + proposal.duration_s, self._allowance
        if total_s > allowed.beam_time_s:
            return f"The next burst would bring the beam time to {total_s:g} s of {allowed.beam_time_s:g} s."
        dose_mgy = self._dose_mgy(total_s)
        if dose_mgy is not None and allowed.dose_mgy is not None and dose_mgy > allowed.dose_mgy:
            return f"The next burst would bring the dose to {dose_mgy:g} MGy of {allowed.dose_mgy:g} MGy."
        return ""

    def _measured(self, proposal: Proposal) -> Measured:
        check_limits(proposal, self._settings)
        item_uid = submit(proposal, self._settings)
        self._spent_s += proposal.duration_s
        self._write("submitted", item_uid=item_uid, **asdict(proposal))
        run_uid = self._taken(item_uid, proposal)
        run = run_of(self._fit(run_uid))
        point = (int(proposal.arguments["n_frames"]), float(proposal.arguments["period_s"]))
        told = self._agent.tell(point, run)
        action, error = str(told["action"]), float(told["relative_error"])
        measured = Measured(item_uid, run_uid, *point, proposal.reason, action, error)
        self._write("measured", **asdict(measured))
        return measured

    def _taken(self, item_uid: str, proposal: Proposal) -> str:
        """Uid of the run that the queue made of an item, once it is over."""
        address = self._settings.queue_control_address

        def look() -> dict[str, Any] | None:
            items = ask_manager(address, "history_get")["items"]
            return next((item["result"] for item in items if item["item_uid"] == item_uid), None)

        what = f"The queue did not take {proposal.plan}; whoever runs it has to start it."
        result = self._wait(look, self._patience_s + proposal.duration_s, what)
        if result["exit_status"] != "completed" or not result["run_uids"]:
            raise ServiceError(
                f"The proposed burst ended as {result['exit_status']}: {result.get('msg', '')}",
                "Look at the queue server's log; the loop goes no further.",
            )
        return str(result["run_uids"][0])

    def _fit(self, run_uid: str) -> Any:
        """The finished result of a run."""

        def look() -> Any:
            found = self._results.search(scan=run_uid, status=None)
            return next((result for result in found if result.status in ("complete", "failed")), None)

        result = self._wait(look, self._patience_s, f"Run {run_uid[:8]} was not fitted; is beamline-ml watch up?")
        if result.status == "failed":
            raise GuidanceError(
                f"Run {run_uid[:8]} cannot be learned from: {result.error['culprit']}", result.error["remedy"]
            )
        return result

    @staticmethod
    def _wait(look: Callable[[], Any], patience_s: float, in_vain: str) -> Any:
        deadline = time.monotonic() + patience_s
        while (found := look()) is None:
            if time.monotonic() > deadline:
                raise ServiceError(in_vain, f"The loop waited {patience_s:.0f} s and goes no further.")
            time.sleep(_LOOK_EVERY_S)
        return found

    def _write(self, what: str, **told: Any) -> None:
        self._journal.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(json_safe({"at": time.time(), "what": what, **told}))
        with self._journal.open("a") as journal:
            journal.write(f"{line}\n")
        _log.info("%s %s", what, line)

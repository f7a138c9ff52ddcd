"""Execute automatic fits in this warm process: one flow run a finished scan, whatever dies in between."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from beamline_ml.errors import BeamlineMLError, ServiceError
from beamline_ml.service.prefect_api import FlowRunInfo, PrefectApi
from beamline_ml.service.trigger import scan_tag
from beamline_ml.settings import PrefectSettings

AUTOMATIC = "automatic"
EXECUTED_BY_WATCHER = "executor:watcher"
MOST_ATTEMPTS = 4
"""After so many attempts that crashed or failed for a passing reason, a run is given up."""

_log = logging.getLogger(__name__)


class GivenUp(BeamlineMLError):
    """A fit crashed or failed so often that it is not tried again by itself."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of the flow for one scan."""

    flow_run_id: str
    number: int
    """1 for the first."""
    error: BaseException | None
    """What the flow raised."""


class AutomaticFit:
    """Runs the flow for finished scans under ``xpcs-fit/beamline``, in this process.

    Parameters
    ----------
    settings
        Where Prefect is.
    flow
        The flow, loaded and warm.
    """

    def __init__(self, settings: PrefectSettings, flow: Any) -> None:
        self._settings = settings
        self._flow = flow
        self._api = PrefectApi(settings)

    def close(self) -> None:
        """Close the connection."""
        self._api.close()

    def attempt(self, uid: str) -> Attempt | None:
        """Make one attempt at a scan's fit; None when a worker is at it.

        Raises
        ------
        GivenUp
            When there were too many attempts.
        ServiceError
            When Prefect does not answer; nothing is lost, try again.
        """
        earlier = self._api.flow_runs(AUTOMATIC, scan_tag(uid))
        if not all(self._is_over(run) for run in earlier):
            return None
        self._require_hope(earlier, uid)
        number = len(earlier) + 1
        run = self._api.create_flow_run(
            self._settings.deployment,
            {"run_uid": uid},
            state="PENDING",
            tags=(AUTOMATIC, EXECUTED_BY_WATCHER, scan_tag(uid)),
            idempotency_key=attempt_key(uid, number),
        )
        _log.info("fitting run %s as %s", uid, run.name)
        return Attempt(run.id, number, self._execute(run.id, uid))

    def bury_orphans(self) -> None:
        """Mark the flow runs that a watcher was executing when it died; call it once, before the first attempt.

        Raises
        ------
        ServiceError
            When Prefect does not answer.
        """
        for run in self._api.flow_runs(EXECUTED_BY_WATCHER, states=("PENDING", "RUNNING", "CANCELLING")):
            self._is_over(run)

    def _require_hope(self, earlier: list[FlowRunInfo], uid: str) -> None:
        if not earlier:
            return
        last = earlier[-1]
        again = f"Read its log ({self._api.page(last.id)}), then ask again with beamline-ml fit {uid[:8]}."
        if last.state == "CANCELLED":
            raise GivenUp("The fit of this run was cancelled in Prefect.", again)
        if len(earlier) >= MOST_ATTEMPTS:
            raise GivenUp(
                f"{len(earlier)} attempts to fit this run failed, the last one with: {last.state} {last.message}.",
                again,
            )

    def _is_over(self, run: FlowRunInfo) -> bool:
        if run.is_over:
            return True
        if EXECUTED_BY_WATCHER not in run.tags:
            return False
        # There is one watcher, and it is not executing this one: the process that did has died.
        self._api.set_state(run.id, "CRASHED", "The process that executed this run died.")
        return True

    def _execute(self, flow_run_id: str, uid: str) -> BaseException | None:
        """Run the flow and return what it raised."""
        from prefect.context import SyncClientContext
        from prefect.exceptions import PrefectException
        from prefect.flow_engine import run_flow

        try:
            # One client for reading and running: each one reads all certificates of the system.
            with prefect_context(self._settings), SyncClientContext.get_or_create() as prefect:
                flow_run = prefect.client.read_flow_run(UUID(flow_run_id))
                state: Any = run_flow(self._flow, flow_run=flow_run, parameters={"run_uid": uid}, return_type="state")
                return state.result(raise_on_failure=False) if not state.is_completed() else None
        except (httpx.HTTPError, PrefectException) as error:
            raise ServiceError(
                f"Prefect went away while run {uid[:8]} was being fitted ({error!r}).", "It is fitted again."
            ) from error


def attempt_key(uid: str, number: int) -> str:
    """Idempotency key of an attempt: asking twice for the same attempt gives the same flow run."""
    return f"xpcs-fit-{uid}" if number == 1 else f"xpcs-fit-{uid}-{number}"


@contextmanager
def prefect_context(settings: PrefectSettings) -> Iterator[None]:
    """Talk to this Prefect server, without the heartbeat thread that would add a second to each flow run."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: settings.api_url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield

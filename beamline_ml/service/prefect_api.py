"""The few calls of Prefect's REST interface that the chain makes, without importing Prefect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import stamina

from beamline_ml.errors import ServiceError
from beamline_ml.settings import PrefectSettings

# A server that is not there is found out at once; one that is there may wait long for its SQLite database.
_TIMEOUTS_S = httpx.Timeout(30.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class FlowRunInfo:
    """A flow run, as Prefect knows it."""

    id: str
    name: str
    state: str
    """Type of its state: SCHEDULED, PENDING, RUNNING, COMPLETED, FAILED, CRASHED, CANCELLED, ..."""
    message: str
    tags: tuple[str, ...]

    @property
    def is_over(self) -> bool:
        """Whether it will not change any more."""
        return self.state in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class PrefectApi:
    """Client of one Prefect server.

    Every method raises :class:`~beamline_ml.errors.ServiceError` when the server does not answer or refuses.
    """

    def __init__(self, settings: PrefectSettings) -> None:
        self.settings = settings
        self._http = httpx.Client(base_url=settings.api_url, timeout=_TIMEOUTS_S)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def check(self) -> None:
        """Ask whether the server is there."""
        self._call("GET", "/health")

    def page(self, flow_run_id: str) -> str:
        """Address of a flow run's page for people."""
        return f"{self.settings.api_url.removesuffix('/api')}/runs/flow-run/{flow_run_id}"

    def deployment_id(self, name: str) -> str:
        """Id of the deployment ``flow/deployment``."""
        return str(self._call("GET", f"/deployments/name/{name}")["id"])

    def create_flow_run(
        self,
        deployment: str,
        parameters: dict[str, Any],
        state: str = "SCHEDULED",
        tags: tuple[str, ...] = (),
        idempotency_key: str | None = None,
    ) -> FlowRunInfo:
        """Create a flow run of a deployment, or get the one that was created with the same key.

        A run created as PENDING is taken by no worker: the caller executes it.
        """
        body: dict[str, Any] = {"parameters": parameters, "state": {"type": state}, "tags": list(tags)}
        if idempotency_key is not None:
            body["idempotency_key"] = idempotency_key
        return _info(self._call("POST", f"/deployments/{self.deployment_id(deployment)}/create_flow_run", body))

    def flow_run(self, flow_run_id: str) -> FlowRunInfo:
        """One flow run."""
        return _info(self._call("GET", f"/flow_runs/{flow_run_id}"))

    def flow_runs(self, *tags: str, states: tuple[str, ...] = ()) -> list[FlowRunInfo]:
        """Flow runs that carry all the tags and are in one of the states (default: any), oldest first, at most 200."""
        wanted: dict[str, Any] = {"tags": {"all_": list(tags)}}
        if states:
            wanted["state"] = {"type": {"any_": list(states)}}
        body = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_ASC"}
        return [_info(run) for run in self._call("POST", "/flow_runs/filter", body)]

    def artifact_descriptions(self, flow_run_id: str) -> list[str]:
        """Descriptions of what a flow run left for people to read, oldest first."""
        body = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
        found = self._call("POST", "/artifacts/filter", body)
        return [told["description"] for told in sorted(found, key=lambda told: str(told["created"]))]

    def set_state(self, flow_run_id: str, state: str, message: str) -> None:
        """Put a flow run into a state, whatever Prefect's rules say."""
        body = {"state": {"type": state, "message": message}, "force": True}
        self._call("POST", f"/flow_runs/{flow_run_id}/set_state", body)

    def worker_is_online(self) -> bool:
        """Whether the work pool has a worker that reported lately."""
        workers = self._call("POST", f"/work_pools/{self.settings.work_pool}/workers/filter", {})
        return any(worker.get("status") == "ONLINE" for worker in workers)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        try:
            for attempt in stamina.retry_context(on=_is_busy, attempts=5, timeout=10.0, wait_initial=0.2):
                with attempt:
                    response = self._http.request(method, path, json=body)
                    response.raise_for_status()
        except httpx.HTTPStatusError as error:
            raise ServiceError(
                f"Prefect at {self.settings.api_url} refused {method} {path}: {error.response.status_code} "
                f"{error.response.text[:200]}.",
                "Run beamline-ml doctor; if a deployment is missing, beamline-ml up or prefect deploy makes it.",
            ) from error
        except httpx.HTTPError as error:
            raise ServiceError(
                f"Prefect at {self.settings.api_url} does not answer ({error or type(error).__name__}).",
                "Start it with beamline-ml up, or correct prefect.api_url.",
            ) from error
        return response.json() if response.content else None


def _is_busy(error: Exception) -> bool:
    """Whether the server is there and asks to be asked again: its database was locked for a moment."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in {429, 502, 503, 504}


def _info(run: dict[str, Any]) -> FlowRunInfo:
    state = run.get("state") or {}
    return FlowRunInfo(
        id=str(run["id"]),
        name=str(run["name"]),
        state=str(state.get("type", "SCHEDULED")),
        message=str(state.get("message") or ""),
        tags=tuple(run.get("tags") or ()),
    )

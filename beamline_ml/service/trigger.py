"""Ask for a fit: through Prefect, where a worker takes it, or in this process."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beamline_ml.errors import ServiceError
from beamline_ml.service.prefect_api import FlowRunInfo, PrefectApi
from beamline_ml.settings import Settings, shipped_root

ENTRYPOINT = "flows/xpcs_fit.py:xpcs_fit"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A fit that was asked for."""

    flow_run_id: str
    name: str
    page: str
    """Address of its page in Prefect."""


def scan_tag(run_uid: str) -> str:
    """Tag that all flow runs of one scan carry."""
    return f"scan:{run_uid}"


def submit_fit(settings: Settings, run_uid: str, parameters: dict[str, Any] | None = None) -> Submitted:
    """Create a flow run of ``xpcs-fit/beamline`` for a worker.

    Parameters
    ----------
    settings
        Where Prefect is.
    run_uid
        Uid, beginning of a uid, or scan id.
    parameters
        Flow parameters beside the run: q-map, mask, frame range, model.

    Raises
    ------
    ServiceError
        When Prefect does not answer or does not know the deployment.
    """
    with closing(PrefectApi(settings.prefect)) as api:
        run = api.create_flow_run(
            settings.prefect.deployment, {"run_uid": run_uid, **(parameters or {})}, tags=(scan_tag(run_uid),)
        )
        return Submitted(run.id, run.name, api.page(run.id))


def wait_for_flow_run(settings: Settings, flow_run_id: str, timeout_s: float, poll_s: float = 0.5) -> FlowRunInfo:
    """Wait until a flow run is over and return it.

    Raises
    ------
    ServiceError
        When it is not over after ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    with closing(PrefectApi(settings.prefect)) as api:
        while not (run := api.flow_run(flow_run_id)).is_over:
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"Flow run {run.name} is still {run.state} after {timeout_s:.0f} s.",
                    f"Look at {api.page(flow_run_id)}; beamline-ml doctor says whether a worker is alive.",
                )
            time.sleep(poll_s)
    return run


def result_keys(settings: Settings, flow_run_id: str) -> list[str]:
    """Keys of the results that a flow run made, or found made already.

    Raises
    ------
    ServiceError
        When Prefect does not answer.
    """
    with closing(PrefectApi(settings.prefect)) as api:
        return api.artifact_descriptions(flow_run_id)


def fit_here(settings: Settings, run_uid: str, parameters: dict[str, Any] | None = None) -> Any:
    """Run the flow ``xpcs-fit`` in this process and return what it returns; Prefect records it.

    The flow reads its settings from profile and environment itself, so ``settings`` must come from there too.

    Raises
    ------
    ServiceError
        When Prefect does not answer.
    BeamlineMLError
        Whatever the flow refuses.
    """
    # Without a server at the given address Prefect would start one of its own, and leave it behind.
    with closing(PrefectApi(settings.prefect)) as api:
        api.check()
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: settings.prefect.api_url}):
        return load_flow(ENTRYPOINT)(run_uid=run_uid, **(parameters or {}))


def load_flow(entrypoint: str) -> Any:
    """Flow ``file.py:function`` of the shipped flows."""
    from prefect.flows import load_flow_from_entrypoint

    file, function = entrypoint.split(":")
    return load_flow_from_entrypoint(f"{Path(shipped_root(), file)}:{function}")

"""A fit that a person asks for: by a worker or in this process, waited for, and reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from beamline_ml.errors import ServiceError
from beamline_ml.results import open_results
from beamline_ml.results.console import as_rows
from beamline_ml.service.trigger import fit_here, result_keys, submit_fit, wait_for_flow_run
from beamline_ml.settings import Settings


@dataclass(frozen=True)
class FitRequest:
    """Which run, under which settings, where, and how long to wait."""

    run: str
    parameters: dict[str, Any]
    here: bool = False
    wait_s: float = 300.0


def fit_and_report(settings: Settings, request: FitRequest) -> dict[str, Any]:
    """Ask for the fit and return what became of it as plain data.

    Raises
    ------
    ServiceError
        When Prefect does not answer, the worker does not come in time, or the flow run failed; the message says why.
    BeamlineMLError
        Whatever the flow refuses, when it runs in this process.
    """
    if request.here:
        return _report(settings, str(fit_here(settings, request.run, request.parameters)))
    submitted = submit_fit(settings, request.run, request.parameters)
    if request.wait_s <= 0:
        return {"flow_run": submitted.name, "page": submitted.page}
    finished = wait_for_flow_run(settings, submitted.flow_run_id, request.wait_s)
    if finished.state != "COMPLETED":
        raise ServiceError(
            f"Flow run {finished.name} of run {request.run} is {finished.state}: {finished.message}",
            f"beamline-ml show {request.run} says more; the log is at {submitted.page}.",
        )
    return {
        "flow_run": submitted.name,
        "page": submitted.page,
        **_report(settings, *result_keys(settings, submitted.flow_run_id)),
    }


def _report(settings: Settings, *keys: str) -> dict[str, Any]:
    api_key = settings.tiled.api_key
    uri, path = settings.tiled.uri, settings.tiled.results
    with open_results(uri, api_key.get_secret_value() if api_key else None, path) as results:
        return {"results": as_rows([results[key] for key in keys])}

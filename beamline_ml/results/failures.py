"""A failed analysis leaves a small record, so that people find the reason where they look for the result."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tiled.client.container import Container
from tiled.client.utils import ClientError
from tiled.queries import Key

from beamline_ml.errors import BeamlineMLError
from beamline_ml.results.assembly import run_metadata
from beamline_ml.results.content import SPEC
from beamline_ml.results.identity import json_safe, request_id, result_key

_CONFLICT = 409


def publish_failure(
    results: Container,
    start: Mapping[str, Any],
    error: BeamlineMLError,
    settings: Mapping[str, Any],
    flow_run_id: str | None = None,
) -> Any:
    """Say in ``results/`` why a run has no result; a later success removes the record.

    The same request failing again counts up ``attempts`` instead of leaving a second record.

    Parameters
    ----------
    results
        Container ``results/``.
    start
        The run's start document.
    error
        What refused; its culprit and remedy are kept.
    settings
        The settings that were asked for.
    flow_run_id
        Flow run that failed.
    """
    request = request_id(start["uid"], settings)
    told = {"type": type(error).__name__, "culprit": error.culprit, "remedy": error.remedy}
    for node in results.search(Key("request_id") == request).search(Key("status") == "failed").values():
        attempts = int(node.metadata.get("attempts", 1)) + 1
        news = {"error": told, "attempts": attempts, "published_at": time.time(), "flow_run_id": flow_run_id}
        node.update_metadata(news, drop_revision=True)
        return node
    return _create(results, start, told, settings, flow_run_id)


def _create(
    results: Container,
    start: Mapping[str, Any],
    told: dict[str, str],
    settings: Mapping[str, Any],
    flow_run_id: str | None,
) -> Any:
    sample = start.get("sample") if isinstance(start.get("sample"), Mapping) else {"name": str(start.get("sample"))}
    assert isinstance(sample, Mapping)
    request = request_id(start["uid"], settings)
    metadata = {
        **run_metadata(start, start["uid"], start.get("scan_id"), sample),
        "request_id": request,
        "status": "failed",
        "error": told,
        "attempts": 1,
        "settings": dict(settings),
        "flow_run_id": flow_run_id,
        "published_at": time.time(),
    }
    key = f"{result_key(start.get('scan_id'), str(sample.get('name', 'unnamed')), start['uid'])}_failed_{request[:6]}"
    try:
        return results.create_container(key=key, metadata=json_safe(metadata), specs=[SPEC])
    except ClientError as error:
        if error.response.status_code != _CONFLICT:
            raise
        return results[key]

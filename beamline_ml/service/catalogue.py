"""What the watcher asks of tiled: which XPCS runs are finished, and which of them have their result."""

from __future__ import annotations

from typing import Any, Literal

from tiled.client import from_uri
from tiled.client.container import Container
from tiled.queries import Key

from beamline_ml.acquisition.containers import RUNS_SPEC, open_container
from beamline_ml.errors import BeamlineMLError
from beamline_ml.settings import Settings

TECHNIQUE = "xpcs"
FAILURE_SPEC = "AnalysisFailure"

Outcome = Literal["complete", "failed"]


class Catalogue:
    """Runs and results of one tiled server.

    Parameters
    ----------
    settings
        Address, key and container names.
    """

    def __init__(self, settings: Settings) -> None:
        key = settings.tiled.api_key
        root = from_uri(settings.tiled.uri, api_key=key.get_secret_value() if key else None)
        self._context = root.context
        self.raw: Container = open_container(root, settings.tiled.raw, RUNS_SPEC)
        self.results: Container = open_container(root, settings.tiled.results)

    def close(self) -> None:
        """Close the connection."""
        self._context.close()

    def finished_runs(self, since: float) -> list[str]:
        """Uids of XPCS runs begun after ``since`` (seconds since the epoch) that have a stop document, oldest first."""
        runs = self.raw.search(Key("start.technique") == TECHNIQUE).search(Key("start.time") > since)
        finished = [(run.metadata["start"]["time"], uid) for uid, run in runs.items() if run.metadata.get("stop")]
        return [uid for _, uid in sorted(finished)]

    def is_finished_xpcs(self, uid: str) -> bool:
        """Whether this is an XPCS run with a stop document."""
        if uid not in self.raw:
            return False
        metadata = self.raw[uid].metadata
        return metadata["start"].get("technique") == TECHNIQUE and bool(metadata.get("stop"))

    def outcomes(self) -> dict[str, Outcome]:
        """What became of each run that has been analysed; complete where any of its results is."""
        found: dict[str, Outcome] = {}
        for status in ("failed", "complete"):
            for node in self.results.search(Key("status") == status).values():
                found[node.metadata["scan_uid"]] = status
        return found

    def results_of(self, uid: str) -> list[Container]:
        """All that ``results/`` holds for a run: complete, failed and unfinished."""
        return list(self.results.search(Key("scan_uid") == uid).values())

    def outcome(self, uid: str) -> Outcome | None:
        """What became of one run; None while it has neither a complete result nor a recorded failure."""
        states = {node.metadata.get("status") for node in self.results_of(uid)}
        return "complete" if "complete" in states else "failed" if "failed" in states else None

    def record_failure(self, uid: str, error: BaseException, flow_run_id: str, attempts: int) -> None:
        """Say in ``results/`` that a run will not be analysed, and why, for ``beamline-ml show``."""
        start = self.raw[uid].metadata["start"] if uid in self.raw else {"uid": uid}
        key = f"{start.get('scan_id', 0)}_{uid[:8]}_failed"
        if key not in self.results:
            metadata = failure_metadata(start, error, flow_run_id, attempts)
            self.results.create_container(key=key, metadata=metadata, specs=[FAILURE_SPEC])


def failure_metadata(start: dict[str, Any], error: BaseException, flow_run_id: str, attempts: int) -> dict[str, Any]:
    """Searchable description of an analysis that failed."""
    told = (
        {"culprit": error.culprit, "remedy": error.remedy}
        if isinstance(error, BeamlineMLError)
        else {"culprit": str(error), "remedy": "Read the flow run's log in Prefect."}
    )
    return {
        "scan_uid": start["uid"],
        "scan_id": start.get("scan_id"),
        "sample": start.get("sample", {}),
        "technique": TECHNIQUE,
        "status": "failed",
        "error": {"type": type(error).__name__, **told},
        "flow_run_id": flow_run_id,
        "attempts": attempts,
    }

"""What the watcher asks of tiled: which XPCS runs are finished, and which of them have their result."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from tiled.client import from_uri
from tiled.client.container import Container
from tiled.queries import Key

from beamline_ml.acquisition.containers import RUNS_SPEC, open_container
from beamline_ml.errors import BeamlineMLError
from beamline_ml.results import publish_failure
from beamline_ml.settings import Settings

TECHNIQUE = "xpcs"

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
        self._root, self._live_path = root, settings.tiled.live

    @cached_property
    def live(self) -> Container:
        """What is known of runs that are not over."""
        return open_container(self._root, self._live_path)

    def close(self) -> None:
        """Close the connection."""
        self._context.close()

    def finished_runs(self, since: float) -> list[str]:
        """Uids of XPCS runs begun after ``since`` (seconds since the epoch) that have a stop document, oldest first."""
        runs = self.raw.search(Key("start.technique") == TECHNIQUE).search(Key("start.time") > since)
        finished = [(run.metadata["start"]["time"], uid) for uid, run in runs.items() if run.metadata.get("stop")]
        return [uid for _, uid in sorted(finished)]

    def open_runs(self, since: float) -> list[str]:
        """Uids of XPCS runs begun after ``since`` (seconds since the epoch) that have no stop document."""
        runs = self.raw.search(Key("start.technique") == TECHNIQUE).search(Key("start.time") > since)
        return [uid for uid, run in runs.items() if not run.metadata.get("stop")]

    def is_finished_xpcs(self, uid: str) -> bool:
        """Whether this is an XPCS run with a stop document."""
        try:
            metadata = self.raw[uid].metadata
        except KeyError:  # for a moment, when its documents are being replayed
            return False
        return metadata["start"].get("technique") == TECHNIQUE and bool(metadata.get("stop"))

    def outcomes(self) -> dict[str, Outcome]:
        """What became of each run that has been analysed; complete where any of its results is."""
        found: dict[str, Outcome] = {}
        for status in ("failed", "complete"):
            for node in self.results.search(Key("status") == status).values():
                if (outcome := _outcome_of(node)) is not None:
                    found[node.metadata["scan_uid"]] = outcome
        return found

    def results_of(self, uid: str) -> list[Container]:
        """All that ``results/`` holds for a run: complete, failed and unfinished."""
        return list(self.results.search(Key("scan_uid") == uid).values())

    def outcome(self, uid: str) -> Outcome | None:
        """What became of one run; None while it has neither a complete result nor a recorded failure."""
        outcomes = {_outcome_of(node) for node in self.results_of(uid)}
        return "complete" if "complete" in outcomes else "failed" if "failed" in outcomes else None

    def record_failure(self, uid: str, error: BeamlineMLError, flow_run_id: str | None) -> None:
        """Say in ``results/`` that a run will not be analysed, and why, for ``beamline-ml show``."""
        start = self.raw[uid].metadata["start"]
        publish_failure(self.results, start, error, settings={}, flow_run_id=flow_run_id)


def _outcome_of(node: Container) -> Outcome | None:
    """What a node of ``results/`` says about its run; a failure under settings of its own says nothing about it."""
    if node.metadata.get("status") == "complete":
        return "complete"
    automatic = not node.metadata.get("settings")
    return "failed" if automatic and node.metadata.get("status") == "failed" else None

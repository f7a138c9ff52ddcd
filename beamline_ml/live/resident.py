"""The resident process that follows runs while they go on: ``python -m beamline_ml.live.resident``.

One thread a run, so that interleaved runs do not wait for each other. When tiled, Prefect or this process go away and
come back, runs are taken up where their checkpoint left them.
"""

from __future__ import annotations

import fcntl
import importlib
import logging
import os
import sys
import threading
import time
from concurrent.futures import wait
from contextlib import closing
from typing import IO, Any, NoReturn

import httpx
from tiled.queries import Key

from beamline_ml.errors import BeamlineMLError, ServiceError
from beamline_ml.live.follower import Follower
from beamline_ml.live.forecaster import FitProcess
from beamline_ml.live.record import is_old
from beamline_ml.service.background import begun
from beamline_ml.service.catalogue import TECHNIQUE, Catalogue
from beamline_ml.service.doorbell import Doorbell
from beamline_ml.service.executor import prefect_context
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.state import StateDir
from beamline_ml.service.trigger import load_flow, submit_fit
from beamline_ml.service.warm import rehearse
from beamline_ml.settings import Settings, load_settings

ENTRYPOINT = "flows/xpcs_stream.py:xpcs_stream"
TICK_S = 0.5
LOOK_EVERY_S = 10.0
"""How often the catalogue is searched for runs that go on."""
_RECENT_S = 24 * 3600.0
_LOST_PAUSE_S = 1.0
_RESULT_POLL_S = 2.0
_RESULT_PATIENCE_S = 3600.0

_USED_BY_FOLLOWING = ("torch", "bluesky_tiled_plugins", "prefect.flow_engine", "prefect.client.orchestration", "pandas")

_log = logging.getLogger(__name__)


class Resident:
    """Notices runs that go on, and has each of them followed.

    Parameters
    ----------
    settings
        Where everything is.
    parent
        Id of the process that it belongs to, which may end while this one still gets ready.
    """

    def __init__(self, settings: Settings, parent: int) -> None:
        self._settings = settings
        self._parent = parent
        self._doorbell = Doorbell()
        self._catalogue: Catalogue | None = None
        self._known: set[str] = set()
        self._unfinished: set[str] = set()
        """Runs whose live record was left in the middle; they are followed to their end, also when they are over."""
        self._looked_at = -LOOK_EVERY_S
        self._process = FitProcess()
        self._warm_fits()
        self._flow = _warm_flow()

    def step(self) -> None:
        """Wait for the bell for a moment, then follow what is new."""
        rung = self._doorbell.wait(TICK_S)
        try:
            catalogue = self._connected()
            for uid in [*rung, *self._found(catalogue), *self._unfinished]:
                self._take_up(catalogue, uid)
        except (ServiceError, httpx.HTTPError) as error:
            _log.warning("trying again: %s", error)
            self._let_go()
            time.sleep(TICK_S)

    def _warm_fits(self) -> None:
        if self._settings.analysis.model != "none":
            self._process.warm_up()

    def _connected(self) -> Catalogue:
        if self._catalogue is None:
            self._catalogue = Catalogue(self._settings)
            self._clear_away(self._catalogue)
        if not self._doorbell.is_listening:
            self._doorbell.listen(self._catalogue.raw)
            self._looked_at = -LOOK_EVERY_S
        return self._catalogue

    def _let_go(self) -> None:
        self._doorbell.close()
        if self._catalogue is not None:
            self._catalogue.close()
            self._catalogue = None

    def _found(self, catalogue: Catalogue) -> list[str]:
        if time.monotonic() - self._looked_at < LOOK_EVERY_S:
            return []
        self._looked_at = time.monotonic()
        return catalogue.open_runs(time.time() - _RECENT_S)

    def _take_up(self, catalogue: Catalogue, uid: str) -> None:
        if uid in self._known or not (uid in self._unfinished or _goes_on(catalogue, uid)):
            return
        self._known.add(uid)
        self._unfinished.discard(uid)
        _log.info("following run %s", uid)
        threading.Thread(target=self._follow, args=(uid,), name=f"follow-{uid[:8]}", daemon=True).start()

    def _follow(self, uid: str) -> None:
        """One run from beginning to end, in a thread of its own; what goes wrong with it concerns no other run."""
        try:
            with closing(Catalogue(self._settings)) as catalogue:
                self._follow_or_refuse(catalogue, uid)
        except (ServiceError, httpx.HTTPError) as error:
            _log.warning("run %s was lost and is taken up again: %r", uid, error)
            time.sleep(_LOST_PAUSE_S)
            self._unfinished.add(uid)
            self._known.discard(uid)

    def _follow_or_refuse(self, catalogue: Catalogue, uid: str) -> None:
        follower = Follower(self._settings, catalogue, uid, self._process)
        try:
            with closing(follower):
                self._through(catalogue, follower)
        except ServiceError:
            raise
        except BeamlineMLError as refusal:
            _log.error("run %s cannot be followed: %s", uid, refusal)  # the final analysis says so where people look
            for node in catalogue.live.search(Key("scan_uid") == uid).values():
                self._point_to_result(catalogue, node)

    def _through(self, catalogue: Catalogue, follower: Follower) -> None:
        ended = self._recorded(follower)
        _log.info("run %s is over (%s); median lag %s", follower.uid, ended, _median(follower.lags_s))
        if ended == "empty":
            return
        if ended == "idle":
            follower.tell("idle")
            submit_fit(self._settings, follower.uid)
        self._supersede(catalogue, follower)
        self._warm_fits()  # the last one may have been given up, and its process with it

    def _recorded(self, follower: Follower) -> str:
        """Follow the run, shown as a flow run where Prefect is there; following waits for Prefect in no case."""
        following = begun(follower.follow, f"follow-{follower.uid[:8]}")
        try:
            if self._prefect_answers(follower.uid):
                with prefect_context(self._settings.prefect):
                    return str(self._flow(run_uid=follower.uid, following=following))
        finally:
            wait([following])
        return following.result()

    def _prefect_answers(self, uid: str) -> bool:
        try:
            with closing(PrefectApi(self._settings.prefect)) as api:
                api.check()
        except ServiceError as error:
            _log.warning("run %s is followed without Prefect: %s", uid, error)
            return False
        return True

    def _supersede(self, catalogue: Catalogue, follower: Follower) -> None:
        """Complete the live record, and once the final result is complete, point to it."""
        deadline = time.monotonic() + _RESULT_PATIENCE_S
        while time.monotonic() < deadline:
            time.sleep(_RESULT_POLL_S)
            is_published = follower.is_published()
            done = [node for node in catalogue.results_of(follower.uid) if node.metadata.get("status") == "complete"]
            if done and is_published:
                follower.tell("superseded", result_key=done[0].item["id"])
                follower.forget()
                return
            if catalogue.outcome(follower.uid) == "failed":
                follower.tell("failed")
                return

    def _clear_away(self, catalogue: Catalogue) -> None:
        """Settle what an earlier process left: finish its records, and remove those that are over for long."""
        now, keep_s = time.time(), self._settings.live.keep_days * 86400
        for node in list(catalogue.live.values()):
            if is_old(node.metadata, keep_s, now):
                node.delete(recursive=True, external_only=False)
            elif node.metadata["status"] == "live":
                self._unfinished.add(node.metadata["scan_uid"])
            elif node.metadata["status"] == "idle":
                self._point_to_result(catalogue, node)

    @staticmethod
    def _point_to_result(catalogue: Catalogue, node: Any) -> None:
        results = catalogue.results_of(node.metadata["scan_uid"])
        if done := [result for result in results if result.metadata.get("status") == "complete"]:
            node.update_metadata({"status": "superseded", "result_key": done[0].item["id"]}, drop_revision=True)

    def run(self) -> NoReturn:
        """Follow runs until the process ends, or the process that started it."""
        while os.getppid() == self._parent:
            self.step()
        self._process.close()
        sys.exit(0)


def _warm_flow() -> Any:
    """Import and compile what following needs, before the first run begins, and return the flow."""
    began = time.monotonic()
    for module in _USED_BY_FOLLOWING:
        importlib.import_module(module)
    rehearse()
    flow = load_flow(ENTRYPOINT)
    _log.info("process %d is ready to follow runs after %.1f s", os.getpid(), time.monotonic() - began)
    return flow


def _goes_on(catalogue: Catalogue, uid: str) -> bool:
    try:
        metadata = catalogue.raw[uid].metadata
    except KeyError:
        return False
    return metadata["start"].get("technique") == TECHNIQUE and not metadata.get("stop")


def _median(values: list[float]) -> str:
    return f"{sorted(values)[len(values) // 2]:.2f} s" if values else "unknown"


def only_resident(state: StateDir) -> IO[str]:
    """Claim to be the one process that follows runs in a state directory, for the life of the returned file.

    Raises
    ------
    ServiceError
        When there is another.
    """
    state.create()
    file = (state.root / "live.lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ServiceError(
            f"Another process follows runs for {state.root}.", "One is enough: two would publish the same run twice."
        ) from None
    return file


def main() -> int:
    """Entry point of ``python -m beamline_ml.live.resident [PROCESS]``, which ends when that process does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parent = int(sys.argv[1]) if len(sys.argv) > 1 else os.getppid()
    try:
        settings = load_settings()
        with only_resident(StateDir(settings.state_dir)):
            Resident(settings, parent).run()
    except BeamlineMLError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""The resident process that fits each XPCS run as soon as it is finished: ``python -m beamline_ml.service.watcher``.

Tiled's stream only wakes it up. What there is to do it reads from the catalogue, at start and every few seconds, so a
lost, doubled or late notification changes nothing, and neither does the death of any process at any time: a run is
done when ``results/`` holds a complete result or the reason why there is none.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from typing import IO, NoReturn

import httpx

from beamline_ml.acquisition.journal import waiting_journals
from beamline_ml.acquisition.recovery import recover_documents
from beamline_ml.errors import BeamlineMLError, ServiceError
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.service.companion import Companion
from beamline_ml.service.doorbell import Doorbell
from beamline_ml.service.executor import Attempt, AutomaticFit, GivenUp
from beamline_ml.service.reaper import VARIABLE
from beamline_ml.service.state import StateDir, write_private
from beamline_ml.service.warm import warm_up
from beamline_ml.settings import Settings, load_settings

_log = logging.getLogger(__name__)

TICK_S = 1.0
LOOK_EVERY_S = 15.0
"""How often the catalogue's last hours are looked through."""
LOOK_FAR_EVERY_S = 300.0
"""How often the last week is."""
_RECENT_S = 4 * 3600.0
_FAR_S = 7 * 24 * 3600.0
_FIRST_RETRY_S = 2.0
_LONGEST_RETRY_S = 60.0


@dataclass(slots=True)
class _Retry:
    """A run whose last attempt failed for a passing reason."""

    not_before: float
    wait_s: float


class Watcher:
    """Fits finished runs one after the other.

    Parameters
    ----------
    settings
        Where everything is.
    fit
        Executes a fit in this process.
    companion
        The process that follows runs while they go on; None where nobody does.
    """

    def __init__(self, settings: Settings, fit: AutomaticFit, companion: Companion | None = None) -> None:
        self._settings = settings
        self._fit = fit
        self._companion = companion
        self._doorbell = Doorbell()
        self._catalogue: Catalogue | None = None
        self._orphans_buried = False
        self._settled: set[str] = set()
        self._retries: dict[str, _Retry] = {}
        self._looked_at = self._looked_far_at = -LOOK_FAR_EVERY_S

    def step(self) -> None:
        """Wait for the bell for a moment, then do all that there is to do.

        Services that are down are tried again at the next step; everything else that is raised means a defect, and
        ends the process, which is then started again and finds its work in the catalogue.
        """
        if self._companion is not None:
            self._companion.keep()
        rung = self._doorbell.wait(TICK_S)
        try:
            catalogue = self._connected()
            self._recover()
            self._bury_orphans()
            for uid in [*rung, *self._found(catalogue)]:
                self._handle(catalogue, uid)
        except (ServiceError, httpx.HTTPError) as error:
            _log.warning("trying again: %s", error)
            self._let_go()
            self._looked_at = self._looked_far_at = -LOOK_FAR_EVERY_S
            time.sleep(TICK_S)

    def _connected(self) -> Catalogue:
        if self._catalogue is None:
            self._catalogue = Catalogue(self._settings)
        if not self._doorbell.is_listening:
            self._doorbell.listen(self._catalogue.raw)
        return self._catalogue

    def _let_go(self) -> None:
        self._doorbell.close()
        if self._catalogue is not None:
            self._catalogue.close()
            self._catalogue = None

    def _recover(self) -> None:
        if waiting_journals(self._settings.backup_dir):
            for uid in recover_documents(self._settings):
                _log.info("recovered the documents of run %s", uid)

    def _found(self, catalogue: Catalogue) -> list[str]:
        """Finished runs without an outcome, and those whose retry is due."""
        now = time.monotonic()
        due = [uid for uid, retry in self._retries.items() if retry.not_before <= now]
        far = now - self._looked_far_at >= LOOK_FAR_EVERY_S
        if not far and now - self._looked_at < LOOK_EVERY_S:
            return due
        finished = catalogue.finished_runs(time.time() - (_FAR_S if far else _RECENT_S))
        if new := [uid for uid in finished if uid not in self._settled and uid not in self._retries]:
            self._settled.update(catalogue.outcomes())
        self._looked_at, self._looked_far_at = now, now if far else self._looked_far_at
        return [*due, *(uid for uid in new if uid not in self._settled)]

    def _handle(self, catalogue: Catalogue, uid: str) -> None:
        """Bring one run nearer to its outcome."""
        retry = self._retries.get(uid)
        waiting = retry is not None and retry.not_before > time.monotonic()
        if uid in self._settled or waiting or not catalogue.is_finished_xpcs(uid):
            return
        if catalogue.outcome(uid) is None:
            self._try(catalogue, uid)
        if catalogue.outcome(uid) is not None:
            self._settled.add(uid)
            self._retries.pop(uid, None)
        else:
            wait_s = min(2 * retry.wait_s, _LONGEST_RETRY_S) if retry else _FIRST_RETRY_S
            self._retries[uid] = _Retry(time.monotonic() + wait_s, wait_s)

    def _bury_orphans(self) -> None:
        """Once: what an earlier watcher was executing when it died is not shown as running for ever."""
        if not self._orphans_buried:
            self._fit.bury_orphans()
            self._orphans_buried = True

    def _try(self, catalogue: Catalogue, uid: str) -> None:
        self._say(uid)
        try:
            attempt = self._fit.attempt(uid)
        except GivenUp as error:
            catalogue.record_failure(uid, error, flow_run_id=None)
        except ServiceError as error:
            _log.warning("run %s has to wait: %s", uid, error)
        else:
            self._note_refusal(catalogue, uid, attempt)
        finally:
            self._say(None)

    def _note_refusal(self, catalogue: Catalogue, uid: str, attempt: Attempt | None) -> None:
        """Record why a run cannot be analysed, unless the flow has done so itself."""
        if attempt is None or attempt.error is None:
            return
        _log.error("run %s was not analysed: %r", uid, attempt.error)
        if isinstance(attempt.error, ServiceError) or catalogue.outcome(uid) is not None:
            return
        if isinstance(attempt.error, BeamlineMLError):
            catalogue.record_failure(uid, attempt.error, attempt.flow_run_id)

    def _say(self, run_uid: str | None) -> None:
        """Tell the supervisor and ``doctor`` that this process is ready, and what it is doing."""
        status = {"pid": os.getpid(), "stack": os.environ.get(VARIABLE), "run_uid": run_uid, "since": time.time()}
        write_private(StateDir(self._settings.state_dir).watcher_file, json.dumps(status))

    def run(self) -> NoReturn:
        """Watch until the process ends."""
        self._say(None)
        while True:
            self.step()


def only_watcher(state: StateDir) -> IO[str]:
    """Claim to be the one watcher of a state directory, for the life of the returned file.

    Raises
    ------
    ServiceError
        When there is another.
    """
    state.create()
    file = (state.root / "watcher.lock").open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ServiceError(
            f"Another watcher works for {state.root}.", "One is enough: two would fit the same run twice."
        ) from None
    return file


def watch(settings: Settings) -> NoReturn:
    """Warm up, then fit runs as they finish, until the process ends.

    Raises
    ------
    ServiceError
        When another watcher works with this state directory.
    """
    with only_watcher(StateDir(settings.state_dir)):
        companion = Companion() if settings.live.follow else None
        if companion is not None:
            companion.keep()
        flow = warm_up()
        Watcher(settings, AutomaticFit(settings.prefect, flow), companion).run()


def main() -> int:
    """Entry point of ``python -m beamline_ml.service.watcher``."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        watch(load_settings())
    except BeamlineMLError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())

"""One thread that reads tiled for all open pages, so that ten pages cost tiled no more than one."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

import httpx
from tiled.client.utils import ClientError

from beamline_ml.errors import BeamlineMLError
from beamline_ml.live.page.snapshot import RingMatrix, RunLine, Snapshot, read_live, read_result, run_lines
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.settings import Settings

TICK_S = 0.5
LIST_EVERY_S = 2.0
FORGET_AFTER_S = 20.0
"""A run and ring that no page asked for in this time are read no more."""
NEWEST = "newest"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a page shows."""

    key: str = NEWEST
    """Key of a run, or the newest one."""
    ring: int | None = None
    """None: a ring in the middle."""


@dataclass
class _Read:
    """What was read for some page, and how."""

    matrix: RingMatrix = field(default_factory=RingMatrix)
    snapshot: Snapshot | None = None
    asked_at: float = 0.0
    seen: object = None


class Poller:
    """Keeps snapshots up to date for whoever asks.

    Parameters
    ----------
    settings
        Where tiled is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._reads: dict[Wanted, _Read] = {}
        self._awake = threading.Event()
        self._ended = False
        self._listed_at = -LIST_EVERY_S
        self.lines: list[RunLine] = []
        """Runs that can be chosen, the newest first."""
        self.trouble: str | None = None
        """Why nothing new can be read, in words."""
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        self._ended = True
        self._awake.set()
        self._thread.join()

    def snapshot(self, wanted: Wanted) -> Snapshot | None:
        """The latest snapshot; None before there is one, which then comes soon."""
        with self._lock:
            read = self._reads.setdefault(wanted, _Read())
            fresh, read.asked_at = read.snapshot is None, time.monotonic()
            found = read.snapshot
        if fresh:
            self._awake.set()
        return found

    def _run(self) -> None:
        catalogue: Catalogue | None = None
        while not self._ended:
            try:
                catalogue = catalogue or Catalogue(self._settings)
                self._read_all(catalogue)
                self.trouble = None
            except (httpx.HTTPError, ClientError, KeyError, BeamlineMLError) as error:
                _log.warning("tiled cannot be read: %r", error)
                self.trouble = f"tiled at {self._settings.tiled.uri} does not answer; what you see may be old."
                catalogue = None if isinstance(error, httpx.HTTPError) else catalogue
            self._awake.wait(TICK_S)
            self._awake.clear()
        if catalogue is not None:
            catalogue.close()

    def _read_all(self, catalogue: Catalogue) -> None:
        if time.monotonic() - self._listed_at >= LIST_EVERY_S:
            self.lines = run_lines(catalogue.live, catalogue.results)
            self._listed_at = time.monotonic()
        now = time.monotonic()
        with self._lock:
            self._reads.setdefault(Wanted(), _Read(asked_at=now))
            self._reads = {
                wanted: read
                for wanted, read in self._reads.items()
                if now - read.asked_at < FORGET_AFTER_S or wanted == Wanted()
            }
            reads = list(self._reads.items())
        for wanted, read in reads:
            line = self._line(wanted)
            if line is not None:
                self._read(catalogue, line, wanted, read)

    def _line(self, wanted: Wanted) -> RunLine | None:
        chosen = [line for line in self.lines if wanted.key in (line.key, NEWEST)]
        return chosen[0] if chosen else None

    def _read(self, catalogue: Catalogue, line: RunLine, wanted: Wanted, read: _Read) -> None:
        live = line.place == "live"
        node = (catalogue.live if live else catalogue.results)[line.key]
        seen = (line.key, line.place, line.status, node.metadata.get("updated_at") if live else None)
        if not live and seen == read.seen:
            return
        ring = _default_ring(read.snapshot) if wanted.ring is None else wanted.ring
        reader = read_live if live else read_result
        read.snapshot = reader(node, line, ring, read.matrix)
        read.seen = seen


def _default_ring(before: Snapshot | None) -> int:
    """A ring in the middle, once it is known how many there are."""
    n_q = 0 if before is None else len(before.q_inv_angstrom)
    return n_q // 2 if n_q else 4

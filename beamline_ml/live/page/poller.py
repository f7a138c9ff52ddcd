"""One thread that reads tiled for all open pages, so that ten pages cost tiled no more than one.

C2 comes first: its new rows arrive by tiled's stream, without a request. The catalogue is asked for the rest when the
stream says that something changed, and from time to time in case it kept silent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from tiled.client.utils import ClientError

from beamline_ml.errors import BeamlineMLError
from beamline_ml.live.page.ears import Ears
from beamline_ml.live.page.matrix import RingMatrix
from beamline_ml.live.page.reading import read_result, read_rows, read_tables, with_rows
from beamline_ml.live.page.snapshot import RunLine, Snapshot, live_lines, merged_lines, result_lines
from beamline_ml.service.catalogue import Catalogue
from beamline_ml.settings import Settings

TICK_S = 0.25
LIVE_EVERY_S = 3.0
"""How often the runs that go on are asked for, whether the stream said something or not."""
RESULTS_EVERY_S = 6.0
ROWS_EVERY_S = 0.5
"""The same for C2 of a run whose stream cannot be heard, or that has no C2 yet."""
FORGET_AFTER_S = 20.0
"""A run and ring that no page asked for in this time are read no more."""
NEWEST = "newest"
_AT_ONCE = 4
"""Requests that are made at the same time."""

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
    looked_at: float = 0.0


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
        self._readers: list[Callable[[], object]] = []
        self._ears = Ears()
        self._ended = False
        self._live_at = self._results_at = -RESULTS_EVERY_S
        self._nodes: dict[str, Any] = {}
        self._live: list[RunLine] = []
        self._results: list[RunLine] = []
        self.lines: list[RunLine] = []
        """Runs that can be chosen, the newest first."""
        self.trouble: str | None = None
        """Why nothing new can be read, in words."""
        self.n_requests = 0
        """Made of tiled so far."""
        self._pool = ThreadPoolExecutor(_AT_ONCE, "page-tables")
        self._thread = threading.Thread(target=self._run, name="poller", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Read no more."""
        self._ended = True
        self._ears.ring()
        self._thread.join()
        self._pool.shutdown()

    def tell(self, reader: Callable[[], object]) -> None:
        """Call ``reader``, from the poller's thread, whenever something new has been read."""
        with self._lock:
            self._readers.append(reader)

    def forget(self, reader: Callable[[], object]) -> None:
        """Call ``reader`` no more."""
        with self._lock:
            if reader in self._readers:
                self._readers.remove(reader)

    def snapshot(self, wanted: Wanted) -> Snapshot | None:
        """The latest snapshot; None before there is one, which then comes soon."""
        with self._lock:
            read = self._reads.setdefault(wanted, _Read())
            fresh, read.asked_at = read.snapshot is None, time.monotonic()
            found = read.snapshot
        if fresh:
            self._ears.ring()
        return found

    def _run(self) -> None:
        catalogue: Catalogue | None = None
        while not self._ended:
            try:
                catalogue = catalogue or self._opened()
                self._look(catalogue)
                self._say_trouble(None)
            except (httpx.HTTPError, ClientError, KeyError, BeamlineMLError) as error:
                _log.warning("tiled cannot be read: %r", error)
                self._say_trouble(f"tiled at {self._settings.tiled.uri} does not answer; what you see may be old.")
                catalogue = None if isinstance(error, httpx.HTTPError) else catalogue
            self._ears.wait(TICK_S)
        self._ears.close()
        if catalogue is not None:
            catalogue.close()

    def _opened(self) -> Catalogue:
        catalogue = Catalogue(self._settings)
        self._ears.close()  # what was heard through the last connection
        catalogue.live.context.http_client.event_hooks["request"].append(self._count)
        return catalogue

    def _count(self, _: httpx.Request) -> None:
        self.n_requests += 1

    def _say_trouble(self, trouble: str | None) -> None:
        changed, self.trouble = trouble != self.trouble, trouble
        if changed:
            self._news()

    def _news(self) -> None:
        with self._lock:
            readers = list(self._readers)
        for reader in readers:
            reader()

    def _look(self, catalogue: Catalogue) -> None:
        self._take_rows()
        self._ears.hear_changes(catalogue.live)
        self._list(catalogue)
        for wanted, read in self._wanted_now():
            line = self._line(wanted)
            if line is None:
                continue
            if line.place == "live":
                self._read_live(line, wanted, read)
            elif read.seen != (line.key, line.status):
                self._show(read, read_result(catalogue.results[line.key], line, wanted.ring, read.matrix))
                read.seen = (line.key, line.status)

    def _take_rows(self) -> None:
        """Show rows that the stream brought."""
        heard = self._ears.rows()
        if not heard:
            return
        with self._lock:
            reads = [read for read in self._reads.values() if read.snapshot is not None]
        for read in reads:
            grown = [c2 for news in heard if (c2 := read.matrix.streamed(news)) is not None]
            if grown and read.snapshot is not None:
                self._show(read, with_rows(read.snapshot, grown[-1]))

    def _show(self, read: _Read, snapshot: Snapshot) -> None:
        read.snapshot = snapshot
        self._news()

    def _list(self, catalogue: Catalogue) -> None:
        """Bring the list of runs up to date where it may have changed."""
        now = time.monotonic()
        statuses = [(line.key, line.status) for line in self._live]
        if self._ears.changed() or now - self._live_at >= LIVE_EVERY_S:
            self._nodes, self._live = live_lines(catalogue.live)
            self._live_at = now
        ended = statuses != [(line.key, line.status) for line in self._live]
        if ended or now - self._results_at >= RESULTS_EVERY_S:
            self._results = result_lines(catalogue.results)
            self._results_at = now
        lines = merged_lines(self._live, self._results)
        changed, self.lines = lines != self.lines, lines
        if changed:
            self._news()

    def _wanted_now(self) -> list[tuple[Wanted, _Read]]:
        """What pages ask for; the newest run always, so that a page that is opened has it at once."""
        now = time.monotonic()
        with self._lock:
            self._reads.setdefault(Wanted(), _Read(asked_at=now))
            self._reads = {
                wanted: read
                for wanted, read in self._reads.items()
                if now - read.asked_at < FORGET_AFTER_S or wanted == Wanted()
            }
            wanted_now = list(self._reads.items())
        self._ears.only({line.key for wanted, _ in wanted_now if (line := self._line(wanted)) is not None})
        return wanted_now

    def _line(self, wanted: Wanted) -> RunLine | None:
        chosen = [line for line in self.lines if wanted.key in (line.key, NEWEST)]
        return chosen[0] if chosen else None

    def _read_live(self, line: RunLine, wanted: Wanted, read: _Read) -> None:
        """C2 first, then the tables where they changed."""
        node = self._nodes[line.key]
        seen = (line.key, line.status, node.metadata.get("updated_at"))
        is_fed = self._ears.hears(line.key) and read.snapshot is not None and len(read.snapshot.c2) > 0
        every_s = LIVE_EVERY_S if is_fed else ROWS_EVERY_S
        if seen == read.seen and time.monotonic() - read.looked_at < every_s:
            return
        children = dict(node.items())
        before = read.snapshot
        snapshot = read_rows(children, node.metadata, line, wanted.ring, read.matrix, before)
        self._show(read, snapshot)
        if "c2" in children and line.status == "live":
            self._ears.hear_rows(line.key, children["c2"])
        if seen != read.seen:
            self._show(read, read_tables(children, node.metadata, snapshot, before, self._pool))
        read.seen, read.looked_at = seen, time.monotonic()

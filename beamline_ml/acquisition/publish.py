"""Send the RunEngine's documents to tiled without the RunEngine ever waiting for it.

A document passes two threads. The first writes it to the run's journal; the second gives it to tiled. When tiled has
the whole run the journal is removed; when tiled refuses one document of a run, is down or too slow, the journal stays
and :mod:`beamline_ml.acquisition.recovery` replays it. Connecting happens in the second thread too.
"""

from __future__ import annotations

import atexit
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from bluesky import RunEngine
from bluesky_tiled_plugins import TiledWriter
from event_model import RunRouter

from beamline_ml.acquisition.journal import Document, Journal
from beamline_ml.acquisition.merging import merge_stream_datums
from beamline_ml.acquisition.pump import Pump
from beamline_ml.acquisition.raw_container import Connection, run_writer
from beamline_ml.settings import Settings

PATIENCE_S = 8.0
"""A process that ends lets tiled take the rest as long as it takes a document in this time; else the journal does."""

_log = logging.getLogger(__name__)
_Writer = Callable[[str, Document], None]


class _Shipment:
    """One run on its way: written to its journal in one thread, to tiled in the other."""

    def __init__(self, connection: Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal
        self._waiting: deque[tuple[str, Document]] = deque()
        self._writer: TiledWriter | None = None
        self._refused = False

    def write_down(self, to_tiled: Pump, name: str, doc: Document) -> None:
        """First thread: journal, then pass on, even when the journal's disk is full."""
        try:
            self._journal.append(name, doc)
        finally:
            self._waiting.append((name, doc))
            to_tiled.put(self.ship)

    def ship(self) -> None:
        """Second thread: all documents that wait go to tiled, unless it has refused an earlier one of this run."""
        documents = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            for name, doc in merge_stream_datums(documents):
                if not self._refused:
                    self._give(name, doc)
        finally:
            if documents and documents[-1][0] == "stop":
                self._settle()

    def _give(self, name: str, doc: Document) -> None:
        self._refused = True  # until proven otherwise, whatever is raised below
        if self._writer is None:
            self._writer = run_writer(self._connection.container(), batch_size=1)
        self._writer(name, doc)
        self._refused = False

    def _settle(self) -> None:
        if self._refused:
            _log.warning("tiled did not take all of run %s; it waits in %s", self._journal.uid, self._journal.path)
            self._journal.leave()
            self._connection.close()  # tiled may have been replaced
        else:
            self._journal.discard()


class Publication:
    """Callback for ``RE.subscribe``: journals each document and passes it to tiled, in threads of its own.

    Parameters
    ----------
    settings
        Address of tiled, and the folder for documents that it did not take.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = settings.backup_dir
        self._connection = Connection(settings)
        self._to_tiled = Pump(_call, name="documents-to-tiled")
        self._to_tiled.put(self._connection.container)  # before the first run needs it
        self._router = RunRouter([self._begin])
        self._to_journal = Pump(self._route, name="documents-to-journal")
        atexit.register(self.close)

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document; returns at once."""
        self._to_journal.put(name, doc)

    def close(self, patience_s: float = PATIENCE_S) -> bool:
        """Take no more documents, and say whether tiled was given all of them.

        Waiting ends when tiled took none for ``patience_s`` seconds.
        """
        atexit.unregister(self.close)
        self._to_journal.close()
        self._to_tiled.put(self._connection.close)
        return self._to_tiled.close(patience_s)

    def _route(self, name: str, doc: Document) -> None:
        self._router(name, doc)

    def _begin(self, name: str, doc: Document) -> tuple[list[_Writer], list[Any]]:
        shipment = _Shipment(self._connection, Journal(self._folder, doc["uid"]))
        return [partial(shipment.write_down, self._to_tiled)], []


def _call(function: Callable[..., None], *arguments: Any) -> None:
    function(*arguments)


def subscribe_tiled(run_engine: RunEngine, settings: Settings) -> Publication:
    """Send all documents of ``run_engine`` to tiled, safely.

    Returns
    -------
    Publication
        Keep it where you want to wait for the last documents (``close``); a process that ends does so by itself.
    """
    publication = Publication(settings)
    run_engine.subscribe(publication)
    return publication

"""Send the RunEngine's documents to a broker without the RunEngine ever waiting for it.

As with :mod:`beamline_ml.acquisition.publish` a document passes two threads. The first writes it to the run's journal;
the second gives it to the broker, and tries again as long as the broker is away. The journal is removed when the broker
has all of the run; what a process leaves behind is sent by the next one. The writer takes what comes twice once.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from event_model import RunRouter

from beamline_ml.acquisition.journal import Document, Journal, claim, read_documents, waiting_journals
from beamline_ml.acquisition.publish import PATIENCE_S
from beamline_ml.acquisition.pump import Pump
from beamline_ml.acquisition.recovery import file_away, with_stop
from beamline_ml.brokers.connect import check_sink, open_sink, too_large
from beamline_ml.brokers.protocol import BATCH, Sink
from beamline_ml.brokers.serializer import encode
from beamline_ml.errors import DocumentRefused, ServiceError
from beamline_ml.settings import DocumentsSettings, Settings

_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 10.0
_SETTLE_S = 2.0
"""What is under way when all ends may take so long to give up, and to leave its journal to the next."""

_log = logging.getLogger(__name__)


def outbox_folder(settings: Settings) -> Path:
    """Where documents wait for the broker; not where those lie that wait for tiled."""
    return settings.backup_dir / "to-broker"


class _Sender:
    """The broker, connected when it is first needed, and again whenever it fails."""

    def __init__(self, settings: DocumentsSettings) -> None:
        self._settings = settings
        self._sink: Sink | None = None
        self._retry_s = _FIRST_RETRY_S
        self.ending = threading.Event()

    def send(self, uid: str, documents: list[tuple[str, Document]]) -> bool:
        """Whether the broker has all of these, however long that takes; False when this process ends before."""
        messages = [encode(name, doc, self._settings.serializer) for name, doc in documents]
        largest = max(map(len, messages))
        if largest > self._settings.max_message_mib * 2**20:
            raise too_large("the writer", largest, "documents.max_message_mib")
        for first in range(0, len(messages), BATCH):
            while not self._try(uid, messages[first : first + BATCH]):
                if self.ending.wait(self._retry_s):
                    return False
                self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        self._retry_s = _FIRST_RETRY_S
        return True

    def close(self) -> None:
        if self._sink is not None:
            sink, self._sink = self._sink, None
            sink.close()

    def _try(self, uid: str, messages: list[bytes]) -> bool:
        try:
            if self._sink is None:
                self._sink = open_sink(self._settings)
            self._sink.send(uid, messages)
        except ServiceError as error:
            _log.warning("%s", error)
            self._let_go()
            return False
        return True

    def _let_go(self) -> None:
        try:
            self.close()
        except ServiceError as error:
            _log.info("a connection that failed could not be closed in order: %s", error)


class _Parcel:
    """One run on its way: written to its journal in one thread, to the broker in the other."""

    def __init__(self, sender: _Sender, journal: Journal) -> None:
        self._sender = sender
        self._journal = journal
        self._waiting: deque[tuple[str, Document]] = deque()
        self._left_behind = False

    def write_down(self, to_broker: Pump, name: str, doc: Document) -> None:
        """First thread: journal, then pass on, even when the journal's disk is full."""
        try:
            self._journal.append(name, doc)
        finally:
            self._waiting.append((name, doc))
            to_broker.put(self.send)

    def send(self) -> None:
        """Second thread: all documents that wait go to the broker."""
        documents = [self._waiting.popleft() for _ in range(len(self._waiting))]
        try:
            if documents and not self._left_behind:  # what follows a gap would be refused as senseless
                self._left_behind = True  # until proven otherwise, whatever is raised below
                self._left_behind = not self._sender.send(self._journal.uid, documents)
        finally:
            if documents and documents[-1][0] == "stop":
                self._settle()

    def _settle(self) -> None:
        if self._left_behind:
            self._journal.leave()
        else:
            self._journal.discard()


class BrokerPublication:
    """Callback for ``RE.subscribe``: journals each document and passes it to the broker, in threads of its own.

    Runs that an earlier process could not send are sent first.

    Parameters
    ----------
    settings
        Which broker (``documents``), and the folder for documents that it has not taken.
    """

    def __init__(self, settings: Settings) -> None:
        self._folder = outbox_folder(settings)
        self._sender = _Sender(settings.documents)
        self._to_broker = Pump(_call, name="documents-to-broker")
        self._to_broker.put(self._send_left_behind)
        self._router = RunRouter([self._begin])
        self._to_journal = Pump(self._route, name="documents-to-journal")
        atexit.register(self.close)

    def __call__(self, name: str, doc: Document) -> None:
        """Take one document; returns at once."""
        self._to_journal.put(name, doc)

    def close(self, patience_s: float = PATIENCE_S) -> bool:
        """Take no more documents, and say whether the broker has all of them.

        Waiting ends when it took none for ``patience_s`` seconds; the rest stays in the journals for the next process.
        """
        atexit.unregister(self.close)
        self._to_journal.close()
        self._to_broker.put(self._sender.close)
        self._to_broker.close(patience_s)
        self._sender.ending.set()
        self._to_broker.close(_SETTLE_S)
        return not waiting_journals(self._folder)

    def _route(self, name: str, doc: Document) -> None:
        self._router(name, doc)

    def _begin(self, name: str, doc: Document) -> tuple[list[Callable[[str, Document], None]], list[Any]]:
        parcel = _Parcel(self._sender, Journal(self._folder, doc["uid"]))
        return [partial(parcel.write_down, self._to_broker)], []

    def _send_left_behind(self) -> None:
        for path in waiting_journals(self._folder):
            with claim(path) as file:
                if file is None:
                    continue  # of a run that is going on
                self._send_again(path, read_documents(file))

    def _send_again(self, path: Path, documents: list[tuple[str, Document]]) -> None:
        if not documents or documents[0][0] != "start":
            _log.error("%s does not begin with a start document", path)
            file_away(path, "unreadable")
            return
        try:
            if self._sender.send(path.stem, with_stop(documents)):
                path.unlink()
        except DocumentRefused as error:
            _log.error("%s is put aside: %s", path, error)
            file_away(path, "refused")


def _call(function: Callable[..., None], *arguments: Any) -> None:
    function(*arguments)


def subscribe_broker(run_engine: RunEngine, settings: Settings) -> BrokerPublication:
    """Send all documents of ``run_engine`` to the broker, safely; instead of ``subscribe_tiled``, not beside it.

    Returns
    -------
    BrokerPublication
        Keep it where you want to wait for the last documents (``close``); a process that ends does so by itself.

    Raises
    ------
    SettingsError
        When documents cannot be sent that way, or the broker's client library is not installed.
    """
    check_sink(settings.documents)
    publication = BrokerPublication(settings)
    run_engine.subscribe(publication)
    return publication

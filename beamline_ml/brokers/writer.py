"""The process that writes documents from a broker to tiled: ``beamline-ml write-documents``."""

from __future__ import annotations

import fcntl
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from beamline_ml.brokers.connect import open_source
from beamline_ml.brokers.dead_letters import DeadLetters
from beamline_ml.brokers.delivery import Delivery
from beamline_ml.brokers.inbox import Inbox
from beamline_ml.brokers.protocol import Message, Source
from beamline_ml.brokers.serializer import decode
from beamline_ml.errors import BeamlineMLError, DocumentRefused, ServiceError
from beamline_ml.settings import Settings, load_settings

_log = logging.getLogger(__name__)
_LISTEN_S = 0.5
QUIET_S = 3.0
"""A stream that gives nothing for so long has been read to its end."""
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 10.0
_PATIENCE_S = 10.0
_BYTES_PER_MIB = 2**20


def inbox_folder(settings: Settings) -> Path:
    """Where documents from a broker wait for tiled."""
    return settings.backup_dir / "from-broker"


class DocumentWriter:
    """Takes messages from a broker, keeps them in journals, acknowledges them, and has them given to tiled.

    Parameters
    ----------
    settings
        Broker, tiled, and the folder for documents.
    first
        Position to read from (see :func:`beamline_ml.brokers.connect.open_source`).
    """

    def __init__(self, settings: Settings, first: str | None = None) -> None:
        folder = inbox_folder(settings)
        self._settings = settings.documents
        self._max_bytes = int(settings.documents.max_message_mib * _BYTES_PER_MIB)
        self._first = first
        self._dead_letters = DeadLetters(folder / "dead-letters")
        self._inbox = Inbox(folder)
        self._delivery = Delivery(settings, self._dead_letters)
        for uid, path in self._inbox.paths.items():
            self._delivery.add(uid, path)

    def run(self, stopping: threading.Event, until_quiet: bool = False) -> None:
        """Write documents until ``stopping`` is set, or, with ``until_quiet``, until all that waits is written."""
        retry_s = _FIRST_RETRY_S
        while not stopping.is_set():
            try:
                source = open_source(self._settings, self._first)
                self._first = None  # afterwards the broker knows how far this has come
                retry_s = _FIRST_RETRY_S
                self._listen(source, stopping, until_quiet)
                return
            except ServiceError as error:
                _log.warning("%s", error)
                stopping.wait(retry_s)
                retry_s = min(2 * retry_s, _LONGEST_RETRY_S)

    def close(self) -> None:
        """Give tiled what it takes at once and leave the rest in the journals."""
        self._delivery.close(_PATIENCE_S)
        self._settle()
        self._inbox.close()

    def _listen(self, source: Source, stopping: threading.Event, until_quiet: bool) -> None:
        _log.info("documents come from %s", self._settings.kind)
        last_heard = time.monotonic()
        try:
            while not stopping.is_set():
                if messages := source.receive(_LISTEN_S):
                    self._take(messages)
                    source.acknowledge(messages)
                    last_heard = time.monotonic()
                self._settle()
                if until_quiet and not self._inbox.paths and time.monotonic() - last_heard > QUIET_S:
                    return
        finally:
            source.close()

    def _take(self, messages: Sequence[Message]) -> None:
        known = self._inbox.paths.keys()
        for message in messages:
            try:
                name, doc = decode(message.data, self._max_bytes)
                self._inbox.take(name, doc)
            except DocumentRefused as reason:
                self._dead_letters.keep(message.data, reason, message.position)
        self._inbox.sync()
        for uid, path in self._inbox.paths.items():
            if uid not in known:
                self._delivery.add(uid, path)
        self._delivery.ring()

    def _settle(self) -> None:
        for uid, whole in self._delivery.finished():
            self._inbox.finish(uid, whole)


def write_documents(
    settings: Settings, first: str | None = None, until_quiet: bool = False, stopping: threading.Event | None = None
) -> None:
    """Write documents from the broker to tiled, each at least once received and exactly once written.

    Parameters
    ----------
    settings
        Broker, tiled, and the folder for documents; one process at a time works on it.
    first
        Position to read from: ``first``, or a position in the broker's words. None goes on where the last one ended.
    until_quiet
        Return when the stream is read to its end and tiled has all of it.
    stopping
        Set it to end.

    Raises
    ------
    ServiceError
        When another process works on this folder, or the disk takes no more.
    SettingsError
        When the client library of the broker is not installed, or the position is none of it.
    """
    with _alone(inbox_folder(settings)):
        try:
            writer = DocumentWriter(settings, first)
            try:
                writer.run(stopping or threading.Event(), until_quiet)
            finally:
                writer.close()
        except OSError as error:
            raise ServiceError(
                f"Documents could not be written to {inbox_folder(settings)}: {error}.",
                "Make room on that disk; the broker keeps what was not acknowledged.",
            ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / "writer.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ServiceError(
                f"Another process writes documents from {folder}.", "Stop it, or use another state directory."
            ) from error
        yield


def serve(settings: Settings, first: str | None = None, until_quiet: bool = False) -> None:
    """:func:`write_documents` as a program: logs to stderr, ends in order at SIGTERM and Ctrl-C."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    write_documents(settings, first, until_quiet, stopping)


if __name__ == "__main__":
    try:
        serve(load_settings(), sys.argv[1] if len(sys.argv) > 1 else None)
    except BeamlineMLError as refusal:
        sys.exit(str(refusal))

"""Give tiled what lies in the journals, as soon as it takes it."""

from __future__ import annotations

import json
import logging
import queue
import threading
from contextlib import closing
from pathlib import Path

import httpx
from bluesky_tiled_plugins import TiledWriter
from tiled.client.utils import ClientError

from beamline_ml.acquisition.journal import Document
from beamline_ml.acquisition.merging import merge_stream_datums
from beamline_ml.acquisition.raw_container import Connection, run_writer
from beamline_ml.acquisition.recovery import forget_run, is_complete
from beamline_ml.brokers.dead_letters import DeadLetters
from beamline_ml.brokers.serializer import encode
from beamline_ml.errors import DocumentRefused, ServiceError
from beamline_ml.settings import Settings

_log = logging.getLogger(__name__)
_LINES_AT_ONCE = 2_000
_FIRST_RETRY_S = 0.5
_LONGEST_RETRY_S = 10.0
# Answers that say something about the server, the key or the moment, not about the document.
_PASSING = {401, 403, 404, 408, 425, 429}


class _Run:
    """One run on its way from its journal to tiled.

    Whenever something is in doubt, because tiled was away or this process is new, what tiled has of the run is deleted
    and the journal read from its beginning: the writer of bluesky documents cannot go on in the middle.
    """

    def __init__(self, uid: str, path: Path) -> None:
        self.uid = uid
        self.over = False
        self.whole = True
        self._path = path
        self._position = 0
        self._writer: TiledWriter | None = None

    def begin_again(self) -> None:
        """Trust nothing of what tiled has."""
        self._writer = None

    def advance(self, connection: Connection, dead_letters: DeadLetters) -> bool:
        """Give tiled some of what is new, and say whether there was any."""
        if self._writer is None and not self._begin(connection):
            self.over = True
            return False
        documents = self._read()
        for name, doc in merge_stream_datums(documents):
            self._give(name, doc, dead_letters)
        self.over = bool(documents) and documents[-1][0] == "stop"
        return bool(documents) and not self.over

    def _begin(self, connection: Connection) -> bool:
        container = connection.container()
        if is_complete(container, self.uid):
            return False
        forget_run(container, self.uid)
        self._position, self.whole = 0, True
        self._writer = run_writer(container, batch_size=1)
        return True

    def _read(self) -> list[tuple[str, Document]]:
        documents: list[tuple[str, Document]] = []
        with self._path.open("rb") as file:
            file.seek(self._position)
            while len(documents) < _LINES_AT_ONCE and (line := file.readline()).endswith(b"\n"):
                entry = json.loads(line)
                documents.append((entry["name"], entry["doc"]))
                self._position += len(line)
        return documents

    def _give(self, name: str, doc: Document, dead_letters: DeadLetters) -> None:
        assert self._writer is not None
        try:
            self._writer(name, doc)
        except Exception as error:
            if _is_passing(error):
                raise
            self.whole = False
            reason = DocumentRefused(
                f"Tiled did not take a {name} of run {self.uid}: {type(error).__name__}: {str(error)[:300]}.",
                "The run's journal is kept in refused/; look at what publishes these documents.",
            )
            dead_letters.keep(encode(name, doc), reason, f"run {self.uid}")


def _is_passing(error: Exception) -> bool:
    """Whether trying again later may help, with the same document."""
    if isinstance(error, ClientError):
        return error.response.status_code in _PASSING
    return isinstance(error, ServiceError | httpx.HTTPError)


class Delivery:
    """A thread that gives tiled the runs of an inbox; the inbox never waits for it.

    Parameters
    ----------
    settings
        Address of tiled.
    dead_letters
        Where documents go that tiled refuses.
    """

    def __init__(self, settings: Settings, dead_letters: DeadLetters) -> None:
        self._connection = Connection(settings)
        self._dead_letters = dead_letters
        self._new: queue.SimpleQueue[tuple[str, Path]] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        self._runs: dict[str, _Run] = {}
        self._bell = threading.Event()
        self._ending = threading.Event()
        self._failure: BaseException | None = None
        self._retry_s = _FIRST_RETRY_S
        # A daemon, so that a tiled that never answers cannot keep the process from ending; the journals stay.
        self._thread = threading.Thread(target=self._run, name="journals-to-tiled", daemon=True)
        self._thread.start()

    def add(self, uid: str, path: Path) -> None:
        """Take care of one more run."""
        self._new.put((uid, path))
        self._bell.set()

    def ring(self) -> None:
        """Say that journals have grown."""
        self._bell.set()

    def finished(self) -> list[tuple[str, bool]]:
        """Runs that tiled has since the last call, and whether it took all documents; raises what ended the thread."""
        if self._failure is not None:
            raise self._failure
        return [self._finished.get() for _ in range(self._finished.qsize())]

    def close(self, patience_s: float) -> None:
        """End after what is being given now, or after ``patience_s`` seconds."""
        self._ending.set()
        self._bell.set()
        self._thread.join(patience_s)

    def _run(self) -> None:
        try:
            with closing(self._connection):
                while not self._ending.is_set():
                    self._bell.wait()
                    self._bell.clear()
                    self._round()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that asks for finished runs
            self._failure = error

    def _round(self) -> None:
        while not self._new.empty():
            uid, path = self._new.get()
            self._runs[uid] = _Run(uid, path)
        try:
            for run in list(self._runs.values()):
                self._advance(run)
            self._retry_s = _FIRST_RETRY_S
        except (ServiceError, httpx.HTTPError, ClientError) as error:
            _log.warning("tiled does not take documents now, they wait on disk: %s", error)
            self._wait_and_begin_again()

    def _advance(self, run: _Run) -> None:
        while run.advance(self._connection, self._dead_letters):
            if self._ending.is_set():
                return
        if run.over:
            del self._runs[run.uid]
            self._finished.put((run.uid, run.whole))

    def _wait_and_begin_again(self) -> None:
        self._connection.close()
        for run in self._runs.values():
            run.begin_again()
        self._ending.wait(self._retry_s)
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        self._bell.set()

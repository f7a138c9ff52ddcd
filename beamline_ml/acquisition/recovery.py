"""Give tiled the runs that it did not take when they were measured."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path

from tiled.client.container import Container

from beamline_ml.acquisition.journal import Document, claim, read_documents, waiting_journals
from beamline_ml.acquisition.raw_container import Connection, run_writer
from beamline_ml.errors import ServiceError
from beamline_ml.settings import Settings

_log = logging.getLogger(__name__)
_REPLAY_BATCH = 10_000


def recover_documents(settings: Settings) -> tuple[str, ...]:
    """Replay every waiting run that nobody is taking any more, and move its file to ``replayed/``.

    What tiled holds of such a run is deleted first (detector files stay). A run whose process died before its stop
    document gets one that says so. Calling it again, or after being killed half-way, does no harm.

    Returns
    -------
    tuple of str
        Uids of the runs that tiled has now.

    Raises
    ------
    ServiceError
        When runs wait and tiled does not answer.
    """
    waiting = waiting_journals(settings.backup_dir)
    if not waiting:
        return ()
    with closing(Connection(settings)) as connection:
        return tuple(uid for path in waiting if (uid := _recover(path, connection)) is not None)


def recover_in_background(settings: Settings) -> threading.Thread:
    """Start :func:`recover_documents` in a thread and return at once; with tiled down, the runs go on waiting."""

    def recover() -> None:
        try:
            for uid in recover_documents(settings):
                _log.info("tiled took run %s", uid)
        except ServiceError as error:
            _log.warning("%s", error)

    thread = threading.Thread(target=recover, name="recover-documents", daemon=True)
    thread.start()
    return thread


def _recover(path: Path, connection: Connection) -> str | None:
    with claim(path) as file:
        if file is None:
            return None
        documents = read_documents(file)
        if not documents or documents[0][0] != "start":
            _log.error("%s does not begin with a start document", path)
            file_away(path, "unreadable")
            return None
        uid, container = str(documents[0][1]["uid"]), connection.container()
        if not is_complete(container, uid):
            _replay(container, uid, documents)
        file_away(path, "replayed")
        return uid


def is_complete(container: Container, uid: str) -> bool:
    """Whether tiled has the stop document of a run, which a writer writes last."""
    return uid in container and bool(container[uid].metadata.get("stop"))


def _replay(container: Container, uid: str, documents: list[tuple[str, Document]]) -> None:
    forget_run(container, uid)
    writer = run_writer(container, _REPLAY_BATCH)
    for name, doc in with_stop(documents):
        writer(name, doc)


def forget_run(container: Container, uid: str) -> None:
    """Delete what tiled holds of a run, if anything; detector files stay."""
    if uid in container:
        container[uid].delete(recursive=True, external_only=False)


def with_stop(documents: list[tuple[str, Document]]) -> list[tuple[str, Document]]:
    """The documents of a run whose process died, with a stop document that says so; a run with its own is unchanged."""
    if documents[-1][0] == "stop":
        return documents
    return [*documents, ("stop", _missing_stop(str(documents[0][1]["uid"]), documents))]


def _missing_stop(uid: str, documents: list[tuple[str, Document]]) -> Document:
    return {
        "uid": str(uuid.uuid4()),
        "time": time.time(),
        "run_start": uid,
        "exit_status": "abort",
        "reason": "The process that took the data ended before the run did.",
        "num_events": _frames_per_stream(documents),
    }


def _frames_per_stream(documents: list[tuple[str, Document]]) -> dict[str, int]:
    names = {doc["uid"]: doc["name"] for kind, doc in documents if kind == "descriptor"}
    counts = dict.fromkeys(names.values(), 0)
    for kind, doc in documents:
        if kind == "stream_datum":
            stream = names[doc["descriptor"]]
            counts[stream] = max(counts[stream], int(doc["indices"]["stop"]))
        elif kind == "event":
            counts[names[doc["descriptor"]]] += 1
    return counts


def file_away(path: Path, folder: str) -> None:
    """Move a journal that is dealt with into a folder beside it."""
    target = path.parent / folder / path.name
    target.parent.mkdir(exist_ok=True)
    path.replace(target)

"""Documents on disk first: a run's file exists until tiled has all of the run.

Each run has one JSON-lines file ``<uid>.jsonl`` in the backup folder, begun with its start document. Whoever works on
the file holds its lock (``flock``), which the operating system drops when that process dies, so a file that can be
locked is a run that nobody takes care of.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from event_model import NumpyEncoder

Document = dict[str, Any]

_log = logging.getLogger(__name__)
_SUFFIX = ".jsonl"


def waiting_journals(folder: Path) -> list[Path]:
    """Files of runs that tiled has not (fully) taken, oldest first; those of runs still going on are among them."""
    changed_ns: dict[Path, int] = {}
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(FileNotFoundError):  # another process may remove a file while these are looked through
            changed_ns[path] = path.stat().st_mtime_ns
    return sorted(changed_ns, key=lambda path: changed_ns[path])


class Journal:
    """The file of one run that is being taken."""

    def __init__(self, folder: Path, uid: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.uid = uid
        self.path = folder / f"{uid}{_SUFFIX}"
        self._file = self.path.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _cut_off_tail(self.path)

    def append(self, name: str, doc: Document) -> None:
        """Write one document; it survives the death of this process."""
        self._file.write(json.dumps({"name": name, "doc": doc}, cls=NumpyEncoder) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Wait until the disk has what was written; it then survives the machine losing power too."""
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Tiled has the whole run: remove the file."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def leave(self) -> None:
        """Tiled does not have the run: leave the file to recovery."""
        self._file.close()


def _cut_off_tail(path: Path) -> None:
    """Remove a last line without an end, which its writer died over; the next document must not be glued to it."""
    written = path.read_bytes()
    complete = written.rfind(b"\n") + 1
    if complete < len(written):
        _log.warning("%s ended in the middle of a document", path)
        os.truncate(path, complete)


@contextmanager
def claim(path: Path) -> Iterator[IO[str] | None]:
    """Lock a journal that nobody works on; None when somebody does, or when it has just been dealt with."""
    try:
        file = path.open("r", encoding="utf-8")
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield file if os.fstat(file.fileno()).st_nlink else None


def read_documents(file: IO[str]) -> list[tuple[str, Document]]:
    """Documents of a claimed journal; a last line cut off by the death of its writer is left out."""
    documents = []
    for line in file:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            _log.warning("%s ends in the middle of a document", file.name)
            break
        documents.append((entry["name"], entry["doc"]))
    return documents

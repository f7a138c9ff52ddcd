"""Received documents on disk, each once, in one journal a run."""

from __future__ import annotations

import json
from pathlib import Path

from beamline_ml.acquisition.journal import Document, Journal, read_documents, waiting_journals
from beamline_ml.acquisition.recovery import file_away
from beamline_ml.brokers.sense import RunSense, check_schema, owned_by, owner_of
from beamline_ml.errors import DocumentRefused

_REMEMBERED_RUNS = 1000


class Inbox:
    """Journals of the runs that tiled does not have whole.

    Parameters
    ----------
    folder
        Where they lie; those that a process left there are taken up again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journals: dict[str, Journal] = {}
        self._runs: dict[str, RunSense] = {}
        self._run_of: dict[str, str] = {}
        self._unsynced: set[str] = set()
        self._ledger = _Ledger(folder / "finished.json")
        self._run_of.update(self._ledger.run_of())
        for path in waiting_journals(folder):
            self._take_up(path)

    @property
    def paths(self) -> dict[str, Path]:
        """Journals by uid of the run, oldest first."""
        return {uid: journal.path for uid, journal in self._journals.items()}

    def take(self, name: str, doc: Document) -> str | None:
        """Write one document into the journal of its run.

        Returns
        -------
        str or None
            The run's uid; None when the document came before, or when tiled has all of its run.

        Raises
        ------
        DocumentRefused
            When the document is none by the event model, or makes no sense after those that came before.
        """
        check_schema(name, doc)
        uid = self._run_uid(name, doc)
        self._own(uid, name, doc)
        if name == "start" and uid not in self._journals:
            self._open(uid)
        if uid not in self._journals:
            return None  # known from the ledger
        if not self._runs[uid].admit(name, doc):
            return None
        self._journals[uid].append(name, doc)
        self._unsynced.add(uid)
        return uid

    def sync(self) -> None:
        """Wait until the disk has all that was taken."""
        for uid in self._unsynced:
            if uid in self._journals:
                self._journals[uid].sync()
        self._unsynced.clear()

    def finish(self, uid: str, whole: bool) -> None:
        """Tiled has this run: remove its journal, or keep it in ``refused/`` where tiled did not want all of it."""
        members = [member for member, run in self._run_of.items() if run == uid]
        self._ledger.add(uid, members)
        journal = self._journals.pop(uid)
        if not whole:
            file_away(journal.path, "refused")
        journal.discard()
        del self._runs[uid]

    def close(self) -> None:
        """Leave the journals to the next process."""
        for journal in self._journals.values():
            journal.leave()

    def _open(self, uid: str) -> None:
        self._journals[uid] = Journal(self._folder, uid)
        self._runs[uid] = RunSense()

    def _take_up(self, path: Path) -> None:
        self._open(path.stem)
        with path.open(encoding="utf-8") as file:
            for name, doc in read_documents(file):
                self._own(path.stem, name, doc)
                self._runs[path.stem].admit(name, doc)

    def _run_uid(self, name: str, doc: Document) -> str:
        owner = owner_of(name, doc)
        uid = owner if name == "start" else self._run_of.get(owner)
        if uid is None:
            raise DocumentRefused(
                f"This {name} belongs to {owner[:60]!r}, of which nothing came before.",
                "Read the broker's stream again from before the start of the run (write-documents --from).",
            )
        return uid

    def _own(self, uid: str, name: str, doc: Document) -> None:
        owned = uid if name == "start" else owned_by(name, doc)
        if owned is not None:
            self._run_of[owned] = uid


class _Ledger:
    """Which runs were finished lately, and what belonged to them: late copies of their documents are no mistake."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._members: dict[str, list[str]] = json.loads(path.read_text()) if path.exists() else {}

    def run_of(self) -> dict[str, str]:
        return {member: uid for uid, members in self._members.items() for member in members}

    def add(self, uid: str, members: list[str]) -> None:
        self._members.pop(uid, None)
        self._members[uid] = members
        for oldest in list(self._members)[:-_REMEMBERED_RUNS]:
            del self._members[oldest]
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._members))
        partial.replace(self._path)

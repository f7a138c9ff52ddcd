"""Whether a document is one by the event model, and makes sense after those that came before it."""

from __future__ import annotations

import re
from collections.abc import Hashable

import jsonschema
from event_model import DocumentNames, schema_validators

from beamline_ml.acquisition.journal import Document
from beamline_ml.errors import DocumentRefused

_BELONGS_BY = {
    "start": "uid",
    "descriptor": "run_start",
    "stream_resource": "run_start",
    "resource": "run_start",
    "stop": "run_start",
    "event": "descriptor",
    "event_page": "descriptor",
    "stream_datum": "descriptor",
    "datum": "resource",
    "datum_page": "resource",
}
"""Kinds of documents, and the entry that says what each belongs to."""
_OWNERS = ("descriptor", "resource", "stream_resource")
# The uid becomes the name of a file and a key in tiled.
_UID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_PUBLISHER = "Look at what publishes these documents."


def check_schema(name: str, doc: Document) -> None:
    """Raise DocumentRefused when the event model knows no such document."""
    if name not in _BELONGS_BY:
        raise DocumentRefused(f"There are no documents called {name[:60]!r}.", _PUBLISHER)
    try:
        schema_validators[DocumentNames[name]].validate(doc)
    except jsonschema.ValidationError as error:
        raise DocumentRefused(f"This is no {name} by the event model: {error.message[:300]}.", _PUBLISHER) from error
    if name == "start" and not _UID.fullmatch(doc["uid"]):
        raise DocumentRefused(f"{doc['uid'][:60]!r} is no uid of a run.", "Use letters, digits and . _ - in uids.")


def owner_of(name: str, doc: Document) -> str:
    """Uid of the run, descriptor or resource that a document belongs to; empty when it does not say."""
    return str(doc.get(_BELONGS_BY[name], ""))


def owned_by(name: str, doc: Document) -> str | None:
    """Uid under which later documents name this one as what they belong to."""
    return str(doc["uid"]) if name in _OWNERS else None


def identity(name: str, doc: Document) -> Hashable:
    """What makes a document the same as one that came before, whatever else differs."""
    if name == "stream_datum":
        return name, doc["uid"], doc["indices"]["start"], doc["indices"]["stop"]
    if name in ("datum", "datum_page"):
        return name, _hashable(doc["datum_id"])
    return name, _hashable(doc["uid"])


def _hashable(value: object) -> Hashable:
    return tuple(value) if isinstance(value, list) else str(value)


class RunSense:
    """What has been said of one run so far."""

    def __init__(self) -> None:
        self.over = False
        self._seen: set[Hashable] = set()
        self._data_keys: dict[str, frozenset[str]] = {}
        self._resources: set[str] = set()
        self._frames_told: dict[tuple[str, str], int] = {}

    def admit(self, name: str, doc: Document) -> bool:
        """Whether a document is new; False for one that came before.

        Raises
        ------
        DocumentRefused
            When it contradicts what came before, or refers to what did not.
        """
        if identity(name, doc) in self._seen:
            return False
        if self.over:
            raise DocumentRefused(f"This {name} came after its run was over.", _PUBLISHER)
        if name == "event":
            self._check_event(doc)
        elif name == "stream_datum":
            self._check_stream_datum(doc)
        self._remember(name, doc)
        return True

    def _remember(self, name: str, doc: Document) -> None:
        self._seen.add(identity(name, doc))
        if name == "descriptor":
            self._data_keys[doc["uid"]] = frozenset(doc["data_keys"])
        elif name in ("resource", "stream_resource"):
            self._resources.add(doc["uid"])
        elif name == "stream_datum":
            self._frames_told[doc["stream_resource"], doc["descriptor"]] = doc["indices"]["stop"]
        elif name == "stop":
            self.over = True

    def _check_event(self, doc: Document) -> None:
        unknown = doc["data"].keys() - self._data_keys.get(doc["descriptor"], frozenset())
        if unknown or doc["data"].keys() != doc["timestamps"].keys():
            raise DocumentRefused(f"Data of an event do not fit its descriptor: {sorted(unknown)[:5]}.", _PUBLISHER)

    def _check_stream_datum(self, doc: Document) -> None:
        """Frames are counted by adding these up, so a range told twice would be frames that do not exist."""
        first, last = doc["indices"]["start"], doc["indices"]["stop"]
        if doc["stream_resource"] not in self._resources:
            raise DocumentRefused(f"No stream_resource {doc['stream_resource'][:60]!r} came before.", _PUBLISHER)
        if not 0 <= first <= last or last - first != doc["seq_nums"]["stop"] - doc["seq_nums"]["start"]:
            raise DocumentRefused(f"Frames {first} to {last} make no range.", _PUBLISHER)
        told = self._frames_told.get((doc["stream_resource"], doc["descriptor"]), 0)
        if first < told:
            raise DocumentRefused(f"Frames from {first} come after frame {told - 1} of the same file.", _PUBLISHER)

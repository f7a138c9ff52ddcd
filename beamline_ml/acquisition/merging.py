"""Say in one document what several say about consecutive frames, for a server that is behind."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from beamline_ml.acquisition.journal import Document

Documents = list[tuple[str, Document]]


def merge_stream_datums(documents: Iterable[tuple[str, Document]]) -> Documents:
    """The same documents, with neighbouring ``stream_datum`` of one resource and consecutive frames made one.

    Each costs tiled a request; a run that waits for a slow server shrinks to a few.
    """
    merged: Documents = []
    for kind, group in groupby(documents, key=lambda document: document[0]):
        docs = [doc for _, doc in group]
        merged += [(kind, doc) for doc in (_joined(docs) if kind == "stream_datum" else docs)]
    return merged


def _joined(docs: list[Document]) -> list[Document]:
    latest: dict[tuple[str, str], int] = {}
    joined: list[Document] = []
    for doc in docs:
        key = (doc["stream_resource"], doc["descriptor"])
        if key in latest and _follows(doc, joined[latest[key]]):
            joined[latest[key]] = _extended(joined[latest[key]], doc)
        else:
            latest[key] = len(joined)
            joined.append(doc)
    return joined


def _follows(doc: Document, before: Document) -> bool:
    return all(doc[name]["start"] == before[name]["stop"] for name in ("indices", "seq_nums"))


def _extended(first: Document, last: Document) -> Document:
    ranges = {name: {"start": first[name]["start"], "stop": last[name]["stop"]} for name in ("indices", "seq_nums")}
    return {**first, **ranges}

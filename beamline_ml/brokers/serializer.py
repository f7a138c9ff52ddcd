"""Documents as bytes and back. JSON or msgpack; never pickle, which runs what it is sent."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgpack
from event_model import NumpyEncoder

from beamline_ml.acquisition.journal import Document
from beamline_ml.errors import DocumentRefused

Serializer = Literal["json", "msgpack"]

_REMEDY = "Send a JSON or msgpack object with name and doc, numbers and lists in place of numpy arrays."


def encode(name: str, doc: Document, serializer: Serializer = "json") -> bytes:
    """One document as a message, numpy arrays as lists."""
    text = json.dumps({"name": name, "doc": doc}, cls=NumpyEncoder)
    return msgpack.packb(json.loads(text)) if serializer == "msgpack" else text.encode()


def decode(data: bytes, max_bytes: int) -> tuple[str, Document]:
    """Name and document of a message.

    JSON and msgpack tell themselves apart by the first byte. ``{"name": ..., "doc": ...}`` is understood, and so is
    ``[name, doc]``.

    Raises
    ------
    DocumentRefused
        When it is neither, is larger than ``max_bytes``, or holds what JSON cannot say.
    """
    if len(data) > max_bytes:
        raise DocumentRefused(f"A message of {len(data)} bytes is no document.", "Send references to data, not data.")
    content = _parse(data)
    if isinstance(content, dict) and content.keys() >= {"name", "doc"}:
        name, doc = content["name"], content["doc"]
    elif isinstance(content, list) and len(content) == 2:
        name, doc = content
    else:
        raise DocumentRefused("A message has no name and doc.", _REMEDY)
    if not isinstance(name, str) or not isinstance(doc, dict):
        raise DocumentRefused("The name of a document is no text, or the document no object.", _REMEDY)
    return name, doc


def _parse(data: bytes) -> Any:
    try:
        if data.lstrip()[:1] in (b"{", b"["):
            return json.loads(data)
        content = msgpack.unpackb(data, strict_map_key=True)
        json.dumps(content)  # what JSON cannot say, the journal could not hold
    except (ValueError, TypeError, RecursionError) as error:
        raise DocumentRefused(f"A message is neither JSON nor msgpack of plain values: {error}.", _REMEDY) from error
    return content

"""Find a run by what people type: a uid, the beginning of one, a scan id, or -1 for the latest."""

from __future__ import annotations

import re
from typing import Any

from tiled.client.container import Container
from tiled.queries import Eq, Like

from beamline_ml.errors import RunNotFound

SHORTEST_UID = 5
"""Fewest characters of a short uid; fewer collide too often."""

_WORD = re.compile(r"[0-9A-Za-z-]+")
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def find_run(raw: Container, run: str | int) -> Any:
    """Client of one run in a catalogue of bluesky runs.

    Parameters
    ----------
    raw
        The catalogue.
    run
        A full uid, the first characters of one (at least 5), a scan id (the latest run with that number), or a
        negative number: -1 is the latest run.

    Raises
    ------
    RunNotFound
        When nothing answers, or when a short uid answers to more than one run.
    """
    key = str(run).strip()
    if not _WORD.fullmatch(key):
        raise RunNotFound(
            f"{key!r:.80} is neither a run uid nor a scan id.",
            "Give a uid, its first characters, a scan id, or -1 for the latest run.",
        )
    if len(key) == 36 and key in raw:
        return Container.__getitem__(raw, key)
    matches = [*_by_number(raw, key), *_by_uid_start(raw, key)]
    return _the_only(matches, key)


def _by_number(raw: Container, key: str) -> list[Any]:
    if not _NUMBER.fullmatch(key):
        return []
    number = int(key)
    if number < 0:
        return _from_the_end(raw, -number)
    return list(raw.search(Eq("start.scan_id", number)).values().tail(1))


def _from_the_end(raw: Container, count: int) -> list[Any]:
    try:
        return [raw.sort(("start.time", -1)).values()[count - 1]]
    except IndexError:
        return []


def _by_uid_start(raw: Container, key: str) -> list[Any]:
    if len(key) < SHORTEST_UID or key.startswith("-"):
        return []
    return list(raw.search(Like("start.uid", f"{key}%")).values().head(2))


def _the_only(matches: list[Any], key: str) -> Any:
    uids = sorted({run.metadata["start"]["uid"] for run in matches})
    if len(uids) > 1:
        raise RunNotFound(
            f"{key!r} answers to more than one run: {', '.join(uid[:12] for uid in uids)} ...",
            "Give more characters of the uid.",
        )
    if not matches:
        raise RunNotFound(
            f"No run in the catalogue answers to {key!r}.",
            "Check the number; a run that was just taken may need a few seconds to arrive. "
            "`beamline-ml doctor` says whether documents reach tiled.",
        )
    return matches[0]


def plain_container(stream: Any) -> Any:
    """A stream as tiled's plain container, which looks a child up with one request instead of three."""
    return getattr(stream, "base", stream)

"""Who is writing a result, and whether they still are."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class _Active:
    """Publications that this process is making right now."""

    def __init__(self) -> None:
        self._tokens: set[str] = set()
        self._lock = threading.Lock()

    def __contains__(self, token: object) -> bool:
        with self._lock:
            return token in self._tokens

    @contextmanager
    def holding(self, token: str) -> Iterator[None]:
        """Count a publication as active while the block runs."""
        with self._lock:
            self._tokens.add(token)
        try:
            yield
        finally:
            with self._lock:
                self._tokens.discard(token)


ACTIVE = _Active()


def this_writer(token: str) -> dict[str, Any]:
    """What an unfinished result says about its writer."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "born": _born(os.getpid()), "token": token}


def abandoned(writer: Mapping[str, Any]) -> bool:
    """Whether this writer is known to be gone. Writers on other machines are never known to be."""
    if writer.get("host") != socket.gethostname():
        return False
    pid = int(writer.get("pid", -1))
    if pid == os.getpid():
        return writer.get("token") not in ACTIVE
    return _born(pid) != writer.get("born")


def _born(pid: int) -> str | None:
    """Start time of a process in kernel ticks, so that a reused process id is not mistaken for it; None when gone."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return status.rpartition(")")[2].split()[19]

"""Hand documents to a slow consumer without ever waiting for it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

from beamline_ml.errors import BeamlineMLError

_log = logging.getLogger(__name__)
_END = None


class Pump:
    """Calls ``target(*item)`` for each item put, in order, in a thread of its own.

    What the target raises is logged and stays in that thread: the one who puts is taking data. (``BufferingWrapper``
    of bluesky does the same, but a process that ends waits for it without limit.)
    """

    def __init__(self, target: Callable[..., None], name: str) -> None:
        self._target = target
        self._queue: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()
        self._closed = False
        self._n_handled = 0
        # A daemon, so that a server that never answers cannot keep the process from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, *item: Any) -> None:
        """Queue one item; returns at once."""
        if not self._closed:
            self._queue.put(item)

    def close(self, patience_s: float | None = None) -> bool:
        """Take no more items, wait for those queued, and say whether all were handled.

        Waiting ends when nothing was handled for ``patience_s`` seconds; None waits without limit.
        """
        if not self._closed:
            self._closed = True
            self._queue.put(_END)
        before = -1
        while self._thread.is_alive() and before != self._n_handled:
            before = self._n_handled
            self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._queue.get()) is not _END:
            try:
                self._target(*item)
            except BeamlineMLError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - the last line of defence of a running scan; nothing is lost, see journal
                _log.exception("%s could not handle an item", self._thread.name)
            self._n_handled += 1

"""Tiled's stream, for a page: rows of C2 as they are written, and a bell for everything else.

What comes this way is soon, not certain: the catalogue is looked at from time to time all the same.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Collection
from typing import Any

import httpx
import numpy as np
from tiled.client.utils import ClientError

from beamline_ml.live.page.matrix import NewRows
from beamline_ml.service.subscription import receive

_AGAIN_S = 5.0
_LARGEST_MESSAGE_BYTES = 50_000_000
"""A message carries the rows of every ring."""
_EVERYTHING = ""

_log = logging.getLogger(__name__)


class Ears:
    """Subscriptions of one reader: to ``live/``, and to C2 of the runs that are shown."""

    def __init__(self) -> None:
        self._bell = threading.Event()
        self._rows: queue.SimpleQueue[NewRows] = queue.SimpleQueue()
        self._ears: dict[str, _Ear] = {}
        self._changed = threading.Event()

    def hear_changes(self, live: Any) -> None:
        """Listen for runs that begin or whose metadata change."""
        if self._may_listen(_EVERYTHING):
            self._ears[_EVERYTHING] = _Ear(live, self._note_change)

    def hear_rows(self, key: str, c2: Any) -> None:
        """Listen for rows of a run."""
        if self._may_listen(key):
            self._ears[key] = _Ear(c2, lambda update: self._note_rows(key, update))

    def hears(self, key: str) -> bool:
        """Whether rows of this run are listened for."""
        return key in self._ears and self._ears[key].is_open

    def only(self, keys: Collection[str]) -> None:
        """Listen to no other runs than these."""
        for key in [key for key in self._ears if key != _EVERYTHING and key not in keys]:
            self._ears.pop(key).close()

    def wait(self, timeout_s: float) -> None:
        """Return as soon as there is news."""
        self._bell.wait(timeout_s)
        self._bell.clear()

    def ring(self) -> None:
        """End a wait."""
        self._bell.set()

    def rows(self) -> list[NewRows]:
        """Rows heard since the last call, in order."""
        heard = []
        while not self._rows.empty():
            heard.append(self._rows.get())
        return heard

    def changed(self) -> bool:
        """Whether runs began or changed since the last call."""
        changed = self._changed.is_set()
        self._changed.clear()
        return changed

    def close(self) -> None:
        """Listen no more."""
        for ear in self._ears.values():
            ear.close()
        self._ears.clear()

    def _may_listen(self, name: str) -> bool:
        ear = self._ears.get(name)
        if ear is None:
            return True
        if ear.is_open or time.monotonic() - ear.opened_at < _AGAIN_S:
            return False
        ear.close()
        return True

    def _note_change(self, _: Any) -> None:
        self._changed.set()
        self._bell.set()

    def _note_rows(self, key: str, update: Any) -> None:
        offset = getattr(update, "offset", None)
        if offset is None or len(offset) != 3:
            return
        self._rows.put(NewRows(key, tuple(offset), np.asarray(update.data(), np.float32)))
        self._bell.set()


class _Ear:
    """One subscription and its thread."""

    def __init__(self, client: Any, heard: Any) -> None:
        # Tiled holds callbacks by weak reference only.
        self._heard = heard
        self.opened_at = time.monotonic()
        self._subscription = client.subscribe()
        for name in ("new_data", "child_created", "child_metadata_updated"):
            registry = getattr(self._subscription, name, None)
            if registry is not None:
                registry.add_callback(self._heard)
        told = {"max_size": _LARGEST_MESSAGE_BYTES}
        self._thread = threading.Thread(
            target=self._receive, args=(self._subscription,), kwargs=told, name="page-ear", daemon=True
        )
        self._thread.start()

    @staticmethod
    def _receive(subscription: Any, **told: Any) -> None:
        try:
            receive(subscription, **told)
        except (ClientError, httpx.HTTPError) as error:
            _log.warning("tiled's stream cannot be heard: %r", error)

    @property
    def is_open(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        self._subscription.disconnect(wait=False)

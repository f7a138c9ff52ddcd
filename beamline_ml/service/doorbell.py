"""Tiled's stream as a doorbell: it says that something may have happened, never what."""

from __future__ import annotations

import queue
import threading
from typing import Any

from tiled.client.container import Container

from beamline_ml.service.subscription import receive


class Doorbell:
    """Collects uids of runs that began or whose metadata changed, and can be waited on.

    Messages may be lost, doubled or late; whoever listens looks the run up, and looks at the whole catalogue from
    time to time.
    """

    def __init__(self) -> None:
        self._rung: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._subscription: Any = None
        self._thread: threading.Thread | None = None

    @property
    def is_listening(self) -> bool:
        """Whether the subscription's thread is alive; it gives up when tiled stays away for long."""
        return self._thread is not None and self._thread.is_alive()

    def listen(self, container: Container) -> None:
        """Subscribe (again) to the container of runs."""
        self.close()
        subscription = container.subscribe()
        # Tiled holds callbacks by weak reference only; bound methods of this object live as long as it does.
        subscription.child_created.add_callback(self.ring)
        subscription.child_metadata_updated.add_callback(self.ring)
        self._subscription = subscription
        self._thread = threading.Thread(target=receive, args=(subscription,), name="doorbell", daemon=True)
        self._thread.start()

    def ring(self, update: Any) -> None:
        """Note that the run named by an update changed."""
        self._rung.put(update.key)

    def wait(self, timeout_s: float) -> list[str]:
        """Uids rung since the last call, each once; waits for the first one at most ``timeout_s`` seconds."""
        try:
            uids = {self._rung.get(timeout=timeout_s): None}
        except queue.Empty:
            return []
        while not self._rung.empty():
            uids[self._rung.get()] = None
        return list(uids)

    def close(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            self._subscription.disconnect(wait=False)
            self._subscription = self._thread = None

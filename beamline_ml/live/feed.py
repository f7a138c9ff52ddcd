"""How far a run has got: announced frames and its end, from the catalogue, woken up by tiled's stream."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
from tiled.client.utils import ClientError

from beamline_ml.documents.lookup import plain_container
from beamline_ml.service.subscription import receive

LOOK_EVERY_S = 1.0
"""How often the catalogue is asked, whether the bell rang or not."""
_LISTEN_EVERY_S = 5.0
_LARGEST_MESSAGE_BYTES = 50_000_000
"""A notification carries the list of the file's chunks, which grows with the run."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Announced:
    """What is known of a run at some moment; both only ever grow."""

    n_frames: int
    stopped: bool
    """Whether there is a stop document."""


class Announcement(NamedTuple):
    """That a run has so many frames, and when this was first heard."""

    n_frames: int
    heard_at: float
    """Seconds since the epoch."""


class RunFeed:
    """Follows the frames that the catalogue announces for one run.

    Parameters
    ----------
    raw
        tiled's client of the container of runs.
    uid, stream, detector
        The run, and where its frames are.
    """

    def __init__(self, raw: Any, uid: str, stream: str, detector: str) -> None:
        self._raw = raw
        self._place = (uid, stream, detector)
        self._clients: tuple[Any, Any] | None = None
        self._bell = threading.Event()
        self._subscription: Any = None
        self._thread: threading.Thread | None = None
        self._known = Announced(0, False)
        self._telling = threading.Lock()
        self._announcements: deque[Announcement] = deque()
        self._looked_at = self._listened_at = -1e9
        self.misses = 0
        """How often tiled did not answer."""

    def wait(self, timeout_s: float) -> Announced:
        """What is announced now; returns as soon as more is, or after ``timeout_s`` seconds.

        While tiled is away this is what was known last.
        """
        self._listen()
        self._bell.wait(timeout_s)
        self._bell.clear()
        if time.monotonic() - self._looked_at >= LOOK_EVERY_S:
            self._look()
        return self._known

    def ring(self, update: Any) -> None:
        """Note what a notification says: the array has at least this length."""
        shape = getattr(update, "shape", None)
        if shape:
            self._tell(int(shape[0]), stopped=False)
        self._bell.set()

    def _tell(self, n_frames: int, stopped: bool) -> None:
        """Note what is heard, by whichever thread; late news takes nothing back."""
        with self._telling:
            known = self._known
            if n_frames > known.n_frames:
                self._announcements.append(Announcement(n_frames, time.time()))
            self._known = Announced(max(n_frames, known.n_frames), stopped or known.stopped)

    def announcements(self) -> list[Announcement]:
        """What was announced since the last call, in order."""
        return [self._announcements.popleft() for _ in range(len(self._announcements))]

    def close(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            self._subscription.disconnect(wait=False)
            self._subscription = self._thread = None

    def _look(self) -> None:
        uid = self._place[0]
        try:
            run, array = self._refreshed()
            stopped = bool(run.metadata.get("stop"))
            n_frames = int(array.shape[0])
        except (httpx.HTTPError, ClientError, KeyError) as error:
            self.misses += 1
            self._clients = None
            _log.warning("run %s cannot be looked up: %r", uid[:8], error)
        else:
            self._tell(n_frames, stopped)
        self._looked_at = time.monotonic()

    def _refreshed(self) -> tuple[Any, Any]:
        """The run and its frames as they are now.

        The stop document comes last: looking for it first never misses frames of a run that is over.
        """
        if self._clients is None:
            uid, stream, detector = self._place
            run = self._raw[uid]
            self._clients = run, plain_container(run[stream])[detector]
            return self._clients
        run, array = self._clients
        return run.refresh(), array.refresh()

    def _listen(self) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        if time.monotonic() - self._listened_at < _LISTEN_EVERY_S:
            return
        self._listened_at = time.monotonic()
        uid = self._place[0]
        try:
            self.close()
            self._subscription = self._refreshed()[1].subscribe()
        except (httpx.HTTPError, ClientError, KeyError) as error:
            _log.warning("run %s cannot be listened to yet: %r", uid[:8], error)
            return
        # Tiled holds callbacks by weak reference only; a bound method of this object lives as long as it does.
        self._subscription.new_data.add_callback(self.ring)
        told = {"max_size": _LARGEST_MESSAGE_BYTES}
        self._thread = threading.Thread(
            target=receive, args=(self._subscription,), kwargs=told, name=f"feed-{uid[:8]}", daemon=True
        )
        self._thread.start()

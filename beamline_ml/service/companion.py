"""The process beside the watcher that follows runs while they go on; it is started again when it dies."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

MODULE = "beamline_ml.live.resident"
_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 60.0
_STABLE_AFTER_S = 60.0

_log = logging.getLogger(__name__)


class Companion:
    """Keeps ``python -m beamline_ml.live.resident`` alive; it ends by itself when this process does."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._began = self._not_before = 0.0
        self._backoff_s = _FIRST_BACKOFF_S

    def keep(self) -> None:
        """Start the process where it does not run; soon after a death, not before some time has passed."""
        now = time.monotonic()
        if self._process is not None:
            if self._process.poll() is None:
                return
            _log.warning("the process that follows runs has ended with %s", self._process.returncode)
            lasted_s = now - self._began
            self._backoff_s = _FIRST_BACKOFF_S if lasted_s > _STABLE_AFTER_S else 2 * self._backoff_s
            self._not_before = now + min(self._backoff_s, _LONGEST_BACKOFF_S)
            self._process = None
        if now >= self._not_before:
            command = [sys.executable, "-m", MODULE, str(os.getpid())]
            self._process, self._began = subprocess.Popen(command), now

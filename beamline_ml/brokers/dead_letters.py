"""Messages that are no documents, or senseless ones: kept with their bytes and the reason, never in the way."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

from beamline_ml.errors import DocumentRefused

_log = logging.getLogger(__name__)


class DeadLetters:
    """A folder with two files a letter: ``<digest>.bin``, the bytes as they came, and ``<digest>.json``, the reason.

    The name is a digest of the bytes, so a letter that is delivered again is kept once. Nothing is ever removed: what
    to do with them is for people to decide. A full disk stops the writer, and the broker keeps the rest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, data: bytes, reason: DocumentRefused, position: str) -> None:
        """Keep one; it is on disk when this returns."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = hashlib.sha256(data).hexdigest()[:32]
        if (self.folder / f"{name}.json").exists():
            return
        _log.warning("dead letter %s (%s): %s", name, position or "no position", reason)
        label = {
            "culprit": reason.culprit,
            "remedy": reason.remedy,
            "position": position,
            "size_bytes": len(data),
            "time": time.time(),
        }
        _write(self.folder / f"{name}.bin", data)
        _write(self.folder / f"{name}.json", json.dumps(label, indent=2).encode())


def _write(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)

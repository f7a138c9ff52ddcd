"""The state directory of an embedded stack: who runs in it, and where its parts are."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import string
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from beamline_ml.errors import ServiceError

_KEY_CHARACTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class StackRecord:
    """Who runs a stack, as written to ``stack.json``."""

    pid: int
    """Process id of the supervisor."""
    token: str
    """What the processes of this stack carry in their environment."""
    tiled_uri: str
    prefect_api_url: str


class StateDir:
    """Paths below the state directory; readable by nobody else."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock: IO[str] | None = None

    @property
    def settings_file(self) -> Path:
        """Where other processes find the running stack."""
        return self.root / "settings.toml"

    @property
    def record_file(self) -> Path:
        """Who runs the stack."""
        return self.root / "stack.json"

    @property
    def watcher_file(self) -> Path:
        """What the watcher says about itself."""
        return self.root / "watcher.json"

    @property
    def tiled(self) -> Path:
        """Catalogue, tables and arrays."""
        return self.root / "tiled"

    @property
    def prefect(self) -> Path:
        """Prefect's home."""
        return self.root / "prefect"

    @property
    def logs(self) -> Path:
        """One log file a service."""
        return self.root / "logs"

    @property
    def tiled_profiles(self) -> Path:
        """Folder for ``TILED_PROFILES``, with the profile ``beamline``."""
        return self.root / "tiled_profiles"

    def create(self) -> None:
        """Make the folders, private to this user."""
        for folder in (self.root, self.tiled, self.prefect, self.logs, self.tiled_profiles):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.chmod(0o700)

    def lock(self) -> None:
        """Claim the directory for this process; the claim ends with the process.

        Raises
        ------
        ServiceError
            When another stack runs in it, naming that one.
        """
        file = (self.root / "lock").open("w", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ServiceError(
                f"A stack already runs in {self.root}{_described(self.read_record())}.",
                "Use that one, end it with Ctrl-C (or kill), or choose another directory with BEAMLINE_ML_STATE_DIR.",
            ) from None
        self._lock = file

    def unlock(self) -> None:
        """Let another stack use the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def api_key(self) -> str:
        """Key of the tiled server; generated once, alphanumeric because tiled refuses others."""
        path = self.root / "api_key"
        if not path.exists():
            write_private(path, "".join(secrets.choice(_KEY_CHARACTERS) for _ in range(48)))
        return path.read_text(encoding="utf-8")

    def read_record(self) -> StackRecord | None:
        """Who runs the stack, or ran it last; None when nobody did."""
        try:
            return StackRecord(**json.loads(self.record_file.read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return None

    def write_record(self, record: StackRecord) -> None:
        """Say who runs the stack."""
        write_private(self.record_file, json.dumps(asdict(record)))


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read; readers see the old text or the new, never half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    unfinished.replace(path)


def _described(record: StackRecord | None) -> str:
    if record is None:
        return ""
    return f" (process {record.pid}, tiled {record.tiled_uri}, Prefect {record.prefect_api_url})"

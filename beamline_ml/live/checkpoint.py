"""The state of a followed run on disk, whole or not at all, so that a restart reads no frame twice."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Checkpoint:
    """One file per run.

    Parameters
    ----------
    folder
        Where checkpoints lie.
    uid
        The run.
    """

    def __init__(self, folder: Path, uid: str) -> None:
        self.path = folder / f"{uid}.npz"

    def save(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the state; a crash in the middle leaves the one before."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".partial")
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        unfinished.replace(self.path)

    def load(self) -> dict[str, NDArray[Any]] | None:
        """The state, or None where there is none that can be read."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def remove(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)

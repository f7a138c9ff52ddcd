"""Which files the documents may make us open: regular files under an allowed folder, after every link is resolved."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from beamline_ml.errors import FileMissing, FileRefused

_POLL_S = 0.1


def local_file(data_uri: str, allowed_roots: Sequence[Path], wait_s: float) -> Path | None:
    """Path of the file behind a ``file://`` address, if it may be opened here.

    Parameters
    ----------
    data_uri
        Address from the documents.
    allowed_roots
        Folders that files may be opened from.
    wait_s
        How long to wait for a file that is not there yet, in s.

    Returns
    -------
    path
        The real path, or None when the address is no local file under an allowed folder: then only tiled may read it.

    Raises
    ------
    FileRefused
        When a path that looks allowed leads out through a link, or is no regular file.
    FileMissing
        When the file did not appear in time.
    """
    address = urlparse(data_uri)
    named = unquote(address.path)
    if address.scheme != "file" or not os.path.isabs(named) or "\0" in named:
        return None
    if not _under_any(Path(os.path.normpath(named)), allowed_roots):
        return None
    path = Path(named)
    _wait_for(path, wait_s)
    return _real_file(path, allowed_roots)


def linked_file(master: Path, name: str, allowed_roots: Sequence[Path]) -> Path:
    """Path of a data file that a master file names.

    Parameters
    ----------
    master
        The master file; already known to be allowed.
    name
        How the master names the data file, relative to its own folder.
    allowed_roots
        Folders that files may be opened from.

    Raises
    ------
    FileRefused
        When the name is absolute or climbs with ``..``, leads out of the allowed folders, or is no regular file.
    FileMissing
        When there is no such file.
    """
    parts = Path(name).parts
    if not parts or os.path.isabs(name) or ".." in parts or "\0" in name:
        raise FileRefused(
            f"{master} links to {name!r}, which is not a name inside its own folder.",
            "A master file names the data files beside it; copy it again from the detector.",
        )
    path = master.parent / name
    if not path.exists():
        raise FileMissing(
            f"{master.name} names the data file {name}, which is not in {master.parent}.",
            "Copy it from the detector into the same folder, under the same name.",
        )
    return _real_file(path, allowed_roots)


def _under_any(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) or path.is_relative_to(root.resolve()) for root in roots)


def _wait_for(path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while not path.exists():
        if time.monotonic() >= deadline:
            raise FileMissing(
                f"The detector file {path} is not there ({wait_s:g} s waited).",
                "Check that this machine mounts the detector's file system and that nobody moved the file; then "
                "reprocess the run.",
            )
        time.sleep(_POLL_S)


def _real_file(path: Path, roots: Sequence[Path]) -> Path:
    real = path.resolve(strict=True)
    if not _under_any(real, [root.resolve() for root in roots]):
        raise FileRefused(
            f"The detector file {path} is a link to {real}, outside the allowed folders.",
            "Add the folder it leads to to data.allowed_roots, if that is where the detector writes.",
        )
    if not stat.S_ISREG(real.stat().st_mode):
        raise FileRefused(f"{real} is no regular file.", "Point the run to the HDF5 file that the detector wrote.")
    return real

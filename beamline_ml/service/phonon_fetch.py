"""Get the public originals of the phonon training set, checked against pinned digests, in as many sittings as it takes.

The originals are 1,521 JSON files in the history of a public repository (Petretto et al., Sci. Data 5, 180065 (2018),
redistributed there). Nothing is trusted for where it came from: the listing must hash to the pinned git tree, each
file to its entry in that tree, the published split to its pinned digest. Only the training and validation rows are
fetched.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from beamline_ml.errors import DataError
from beamline_ml.service.phonon_data import DATA_FILE, arrays_from_originals

COMMIT = "e103b499d28eee32d9222963aee02b0b494b2800"
TREE = "8c6bdb048670abecae5076e033af611850ecc44e"
_SPLIT_SHA256 = {
    "idx_train.txt": "3a5699c21a80c21075769f26de976fbb738278dc7b7ff8d535e055f7edeff3f6",
    "idx_valid.txt": "23bd0d8aaa5a3879b9cf4bce395da730a54d5d190c98d0ff4b79c01d8ee2f6b6",
}
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Where the originals are fetched from; another mirror serves as well, for every byte is checked."""

    listing: str = f"https://api.github.com/repos/RyotaroOKabe/phonon_prediction/git/trees/{TREE}"
    files: str = f"https://raw.githubusercontent.com/RyotaroOKabe/phonon_prediction/{COMMIT}/previous_codes/phonon/"
    split: str = (
        "https://raw.githubusercontent.com/ninarina12/phononDoS_tutorial/39baaac815d414ffebff9695c6dcf62270526cb2/data/"
    )


@dataclass(frozen=True, slots=True)
class Original:
    """One file to fetch."""

    row: int
    split: int
    name: str
    blob_sha1: str


def fetch(
    folder: Path,
    mirrors: Mirrors | None = None,
    tree: str = TREE,
    split_sha256: dict[str, str] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Fetch what is missing and write the data file; a fetch that was cut off goes on where it stopped.

    Parameters
    ----------
    folder
        Where originals (``originals/``) and the data file go.
    mirrors, tree, split_sha256
        Where from, and the digests that pin what must come.
    report
        Called with a line of progress now and then.

    Returns
    -------
    Path of the data file.

    Raises
    ------
    DataError
        A mirror does not answer, or gives something else than the pinned content.
    """
    mirrors = mirrors or Mirrors()
    store = folder / "originals"
    store.mkdir(parents=True, exist_ok=True)
    with httpx.Client(timeout=60.0, follow_redirects=True) as client:
        wanted = _wanted(client, mirrors, tree, split_sha256 or _SPLIT_SHA256)
        missing = [original for original in wanted if not _present(store, original)]
        report(f"{len(wanted)} originals, {len(wanted) - len(missing)} already here")
        for count, original in enumerate(missing, start=1):
            _fetch_one(client, mirrors, store, original)
            if count % 100 == 0 or count == len(missing):
                report(f"{count} of {len(missing)} fetched")
    return _write(folder, store, wanted)


def git_blob_sha1(content: bytes) -> str:
    """Digest under which git files this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def git_tree_sha1(entries: list[dict[str, Any]]) -> str:
    """Digest under which git files a folder, from the entries (mode, path, sha) of its listing."""
    body = b"".join(f"{e['mode']} {e['path']}".encode() + b"\0" + bytes.fromhex(e["sha"]) for e in entries)
    return hashlib.sha1(b"tree %d\0" % len(body) + body, usedforsecurity=False).hexdigest()


def _wanted(client: httpx.Client, mirrors: Mirrors, tree: str, split_sha256: dict[str, str]) -> list[Original]:
    listing = json.loads(_get(client, mirrors.listing))
    entries = listing["tree"]
    if git_tree_sha1(entries) != tree:
        raise DataError(
            f"The listing at {mirrors.listing} is not the pinned one.", "Use another mirror of the repository."
        )
    names = sorted(entry["path"] for entry in entries)
    digests = {entry["path"]: entry["sha"] for entry in entries}
    wanted = []
    for split, (name, digest) in enumerate(sorted(split_sha256.items())):
        content = _get(client, mirrors.split + name)
        if hashlib.sha256(content).hexdigest() != digest:
            raise DataError(
                f"{mirrors.split}{name} is not the published split.", "Use another mirror of the repository."
            )
        rows = (int(word) for word in content.split())
        # One training row of the published table (the last) has no original in the repository.
        wanted += [Original(row, split, names[row], digests[names[row]]) for row in rows if row < len(names)]
    return sorted(wanted, key=lambda original: original.row)


def _present(store: Path, original: Original) -> bool:
    file = store / original.name
    return file.is_file() and git_blob_sha1(file.read_bytes()) == original.blob_sha1


def _fetch_one(client: httpx.Client, mirrors: Mirrors, store: Path, original: Original) -> None:
    content = _get(client, mirrors.files + original.name)
    if git_blob_sha1(content) != original.blob_sha1:
        raise DataError(
            f"{mirrors.files}{original.name} is damaged.", "Run `beamline-ml phonons fetch` again to go on."
        )
    part = store / (original.name + ".part")
    part.write_bytes(content)
    part.replace(store / original.name)


def _get(client: httpx.Client, url: str) -> bytes:
    """Content at an address; passing troubles are waited out."""
    for attempt in range(_ATTEMPTS):
        try:
            response = client.get(url)
            if response.status_code == 200:
                return response.content
            trouble = f"status {response.status_code}"
            if response.status_code in (401, 404, 410):
                break
        except httpx.TransportError as error:
            trouble = f"{type(error).__name__}: {error}"
        time.sleep(0.5 * 2**attempt)
    raise DataError(
        f"{url} cannot be fetched ({trouble}).",
        "Check the network and run `beamline-ml phonons fetch` again: it goes on where it stopped.",
    )


def _write(folder: Path, store: Path, wanted: list[Original]) -> Path:
    arrays = arrays_from_originals((o.row, o.split, (store / o.name).read_bytes()) for o in wanted)
    part = folder / (DATA_FILE + ".part.npz")
    np.savez_compressed(part, **arrays)
    return part.replace(folder / DATA_FILE)

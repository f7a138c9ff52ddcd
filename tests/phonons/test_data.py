"""Getting the training data: fetched, checked, resumed; and reading it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamline_ml.errors import DataError
from beamline_ml.phonons.dataset import raw_heat_capacity
from beamline_ml.phonons.opinion import published_points
from beamline_ml.service import phonon_fetch
from beamline_ml.service.phonon_data import load_arrays, load_materials

from .conftest import Mirror, originals

TRAIN_ROWS, VALID_ROWS = [0, 2, 3, 7, 9, 11, 40], [1, 5]
"""Row 40 has no original, like the last row of the published table; rows 4, 6, 8, 10 are in no split fetched."""


@pytest.fixture
def public(mirror: Mirror) -> dict[str, Any]:
    """Arguments for ``fetch``, with everything on the mirror as it should be."""
    files = originals()
    entries = [
        {"mode": "100644", "path": name, "sha": phonon_fetch.git_blob_sha1(content)}
        for name, content in sorted(files.items())
    ]
    split = {
        "idx_train.txt": "\n".join(map(str, TRAIN_ROWS)).encode(),
        "idx_valid.txt": "\n".join(map(str, VALID_ROWS)).encode(),
    }
    mirror.content |= {f"/files/{name}": content for name, content in files.items()}
    mirror.content |= {f"/split/{name}": content for name, content in split.items()}
    mirror.content["/tree"] = json.dumps({"tree": entries}).encode()
    return {
        "mirrors": phonon_fetch.Mirrors(mirror.base + "/tree", mirror.base + "/files/", mirror.base + "/split/"),
        "tree": phonon_fetch.git_tree_sha1(entries),
        "split_sha256": {name: hashlib.sha256(content).hexdigest() for name, content in split.items()},
    }


def test_digests_are_those_of_git() -> None:
    """`git hash-object` of an empty file and of "hello\\n"; `git mktree` of an empty folder."""
    assert phonon_fetch.git_blob_sha1(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert phonon_fetch.git_blob_sha1(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert phonon_fetch.git_tree_sha1([]) == "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def test_fetch_gets_the_two_splits_and_nothing_else(tmp_path: Path, mirror: Mirror, public: dict[str, Any]) -> None:
    materials = load_materials(phonon_fetch.fetch(tmp_path, **public))
    assert [m.row for m in materials] == [0, 1, 2, 3, 5, 7, 9, 11]
    assert [m.row for m in materials if m.held_out] == VALID_ROWS
    names = sorted(originals())
    assert {path for path in mirror.asked if path.startswith("/files/")} == {
        f"/files/{names[m.row]}" for m in materials
    }


def test_fetch_goes_on_where_it_was_cut_off(tmp_path: Path, mirror: Mirror, public: dict[str, Any]) -> None:
    mirror.fail_after = 6
    with pytest.raises(DataError, match="again"):
        phonon_fetch.fetch(tmp_path, **public)
    arrived = [path for path in mirror.asked[:6] if path.startswith("/files/")]
    mirror.fail_after = None
    mirror.asked.clear()
    lines: list[str] = []
    materials = load_materials(phonon_fetch.fetch(tmp_path, report=lines.append, **public))
    assert len(materials) == 8
    assert not set(arrived) & set(mirror.asked)
    assert lines[0] == f"8 originals, {len(arrived)} already here"


def test_a_damaged_original_is_not_kept(tmp_path: Path, mirror: Mirror, public: dict[str, Any]) -> None:
    name = sorted(originals())[2]
    mirror.content[f"/files/{name}"] = mirror.content[f"/files/{name}"].replace(b"mp-", b"xp-")
    with pytest.raises(DataError, match=name):
        phonon_fetch.fetch(tmp_path, **public)
    assert not (tmp_path / "originals" / name).exists()


def test_a_file_damaged_on_disk_is_fetched_again(tmp_path: Path, mirror: Mirror, public: dict[str, Any]) -> None:
    phonon_fetch.fetch(tmp_path, **public)
    victim = tmp_path / "originals" / sorted(originals())[3]
    victim.write_bytes(victim.read_bytes()[:-10])
    mirror.asked.clear()
    phonon_fetch.fetch(tmp_path, **public)
    assert [path for path in mirror.asked if path.startswith("/files/")] == [f"/files/{victim.name}"]


@pytest.mark.parametrize("path", ["/tree", "/split/idx_valid.txt"])
def test_another_listing_or_split_is_refused(tmp_path: Path, mirror: Mirror, public: dict[str, Any], path: str) -> None:
    mirror.content[path] = mirror.content[path].replace(b"5", b"6")
    with pytest.raises(DataError, match="not the p"):
        phonon_fetch.fetch(tmp_path, **public)


def test_missing_and_broken_data_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="phonons fetch"):
        load_materials(tmp_path)
    broken = tmp_path / "data.npz"
    broken.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(DataError, match=r"data\.npz"):
        load_materials(broken)
    np.savez(tmp_path / "other.npz", row=np.arange(3))
    with pytest.raises(DataError, match="lacks mp_id"):
        load_materials(tmp_path / "other.npz")


def test_pickled_arrays_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", row=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match=r"evil\.npz"):
        load_materials(tmp_path / "evil.npz")


def test_the_data_set_is_the_published_one(test_data: Path) -> None:
    arrays = load_arrays(test_data / "phonon")
    materials = load_materials(test_data / "phonon")
    assert sum(m.held_out for m in materials) == 141
    assert len(materials) == 1332
    for material in materials[::40]:
        grid = material.first_inv_cm + material.step_inv_cm * np.arange(len(material.raw_dos))
        np.testing.assert_allclose(published_points(grid, material.raw_dos), material.points, atol=2e-5)
        modes = material.raw_dos.sum() * material.step_inv_cm * 1.239841984e-4
        assert modes == pytest.approx(3 * len(material.numbers), rel=0.02)
    index = 0
    capacity = raw_heat_capacity(materials[0].first_inv_cm, materials[0].step_inv_cm, materials[0].raw_dos, 300.0)
    per_formula = arrays["Cv"][index, 59] * arrays["n_formula_units"][index] / arrays["natoms"][index]
    assert arrays["T"][59] == 300.0
    assert 3.0 * 8.314462618 * capacity == pytest.approx(per_formula, abs=0.1)

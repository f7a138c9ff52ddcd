"""What ``beamline-ml phonons predict`` answers: numbers where it can, a reason where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from beamline_ml.service.phonon_commands import predict


def test_good_and_bad_files_in_one_go(tmp_path: Path) -> None:
    write(tmp_path / "salt.cif", bulk("NaCl", "rocksalt", a=5.64))
    (tmp_path / "broken.cif").write_text("data_nothing\n")
    (tmp_path / "binary.cif").write_bytes(b"\xff\xfe\x00")
    files = [tmp_path / name for name in ("salt.cif", "broken.cif", "binary.cif", "absent.cif")]
    salt, *refused = json.loads(json.dumps(predict(files), allow_nan=False))
    assert sum(salt["modes"]) == pytest.approx(6.0, abs=1e-6)
    low, high = salt["heat_capacity_300k_band"]
    assert low < salt["heat_capacity_300k_j_per_k_mol"] < high
    assert [Path(entry["file"]).name for entry in refused] == ["broken.cif", "binary.cif", "absent.cif"]
    assert all(entry["refused"] and entry["remedy"] for entry in refused)

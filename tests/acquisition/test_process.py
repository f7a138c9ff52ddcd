"""What the process that takes the data must not do: import prefect or torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beamline_ml.acquisition.burst import read_burst, start_burst
from beamline_ml.acquisition.journal import read_documents, waiting_journals
from beamline_ml.settings import Settings

CHECK = """
import sys
from beamline_ml.acquisition.burst import take_burst
from beamline_ml.settings import load_settings
take_burst(load_settings())
print(sorted({name.split(".")[0] for name in sys.modules} & {"prefect", "torch"}))
"""


def test_a_burst_imports_neither_prefect_nor_torch(tmp_path: Path, movie_path: Path) -> None:
    environment = {
        **os.environ,
        "BEAMLINE_ML_STATE_DIR": str(tmp_path),
        "BEAMLINE_ML_ACQUISITION__MOVIE": str(movie_path),
        "BEAMLINE_ML_TILED__URI": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_burst_of_the_profile_in_its_own_process_with_tiled_down(
    tmp_path: Path, movie_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEAMLINE_ML_TILED__URI", "http://127.0.0.1:9")
    # A movie that is asked for is played also where the beamline's own detector is named.
    monkeypatch.setenv("BEAMLINE_ML_ACQUISITION__DETECTOR_PREFIX", "NOBODY:")
    settings = Settings(state_dir=tmp_path)
    burst = read_burst(start_burst(settings, n_frames=100, movie=movie_path))
    assert (burst.n_frames, burst.delivered) == (100, False)
    assert burst.ideal_time_s == 0.5
    assert burst.scan_time_s >= burst.ideal_time_s
    (waiting,) = waiting_journals(settings.backup_dir)
    with waiting.open(encoding="utf-8") as file:
        documents = read_documents(file)
    assert [documents[0][0], documents[-1][0]] == ["start", "stop"]
    assert documents[0][1]["uid"] == burst.run_uid

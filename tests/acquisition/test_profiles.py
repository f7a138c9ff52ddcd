"""Profiles are loaded by IPython and by the queue server, and the template works once its values are set."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bluesky_queueserver.manager import profile_ops

from beamline_ml.acquisition.journal import waiting_journals
from beamline_ml.settings import Settings

PROFILES = Path(__file__).parents[2] / "profiles"
NAMES = sorted(folder.name for folder in PROFILES.iterdir())


@pytest.fixture
def environment(tmp_path: Path, movie_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "BEAMLINE_ML_STATE_DIR": str(tmp_path / "state"),
        "BEAMLINE_ML_ACQUISITION__MOVIE": str(movie_path),
        "BEAMLINE_ML_TILED__URI": "http://127.0.0.1:9",
    }


def run(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_settings_of_each_profile_are_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAMLINE_ML_PROFILE", str(PROFILES / name))
    assert Settings(profile=str(PROFILES / name)).profile_dir == PROFILES / name


@pytest.mark.parametrize("name", NAMES)
def test_the_queue_server_lets_people_run_the_burst_and_nothing_else(name: str) -> None:
    permissions = profile_ops.load_user_group_permissions(str(PROFILES / name / "user_group_permissions.yaml"))
    assert permissions["user_groups"]["primary"]["allowed_plans"] == ["xpcs_burst"]
    assert yaml.safe_load((PROFILES / name / "user_group_permissions.yaml").read_text()) == permissions


QSERVER = """
import sys
from bluesky_queueserver.manager import profile_ops as ops
namespace = ops.load_profile_collection(sys.argv[1])
plans, devices = ops.plans_from_nspace(namespace), ops.devices_from_nspace(namespace)
existing = ops.existing_plans_and_devices_from_nspace(nspace=namespace)[0]
print(sorted(plans), sorted(devices), [p["name"] for p in existing["xpcs_burst"]["parameters"]])
"""


def test_the_queue_server_loads_the_simulated_beamline(environment: dict[str, str]) -> None:
    said = run([sys.executable, "-c", QSERVER, str(PROFILES / "sim_xpcs" / "startup")], environment)
    assert said.strip().splitlines()[-1] == (
        "['xpcs_burst'] ['det'] ['n_frames', 'exposure_s', 'period_s', 'sample', 'md']"
    )


def test_ipython_loads_the_simulated_beamline_and_takes_a_burst(tmp_path: Path, environment: dict[str, str]) -> None:
    shutil.copytree(PROFILES / "sim_xpcs", tmp_path / "profile")
    command = [sys.executable, "-m", "IPython", f"--profile-dir={tmp_path / 'profile'}", "--colors=NoColor"]
    run([*command, "-c", "RE(xpcs_burst(n_frames=20))"], environment)
    assert len(waiting_journals(tmp_path / "state" / "documents")) == 1
    assert len(list((tmp_path / "state" / "raw").glob("*.h5"))) == 1


def test_the_template_takes_a_burst_once_its_values_are_set(tmp_path: Path, environment: dict[str, str]) -> None:
    profile, frames = tmp_path / "xpcs", tmp_path / "frames"
    shutil.copytree(PROFILES / "template", profile)
    frames.mkdir()
    for file, old, new in (
        ("beamline.toml", '"/data"', f'"{frames}"'),
        ("beamline.toml", '"XPCS-DET:"', '""'),
    ):
        path = profile / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    code = (
        "from beamline_ml.acquisition.burst import load_profile; from beamline_ml.settings import load_settings; "
        "p = load_profile(load_settings().profile_dir); p['RE'](p['xpcs_burst'](20, 0.004, 0.005, 'silica'))"
    )
    run([sys.executable, "-c", code], {**environment, "BEAMLINE_ML_PROFILE": str(profile)})
    assert len(list(frames.glob("*.h5"))) == 1

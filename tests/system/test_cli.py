"""The command line refuses in plain words, and says what to do."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BIN = Path(sys.prefix) / "bin" / "beamline-ml"


def run(*arguments, **kwargs):
    return subprocess.run([BIN, *map(str, arguments)], capture_output=True, text=True, timeout=120, **kwargs)


@pytest.fixture(autouse=True)
def _nowhere(outside, monkeypatch):
    monkeypatch.setenv("BEAMLINE_ML_STATE_DIR", str(outside / "state"))
    monkeypatch.setenv("BEAMLINE_ML_TILED__URI", "http://127.0.0.1:9")
    monkeypatch.setenv("BEAMLINE_ML_PREFECT__API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("COLUMNS", "200")


def test_help_names_every_command():
    said = run("--help").stdout
    for command in (
        "up",
        "watch",
        "view",
        "write-documents",
        "demo",
        "fit",
        "show",
        "export",
        "correlate",
        "doctor",
        "env",
        "new-profile",
        "phonons",
        "plan",
        "measure",
    ):
        assert command in said


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (("show",), "does not answer"),
        (("show", "-1"), "does not answer"),
        (("fit", "1"), "does not answer"),
        (("plan",), "does not answer"),
        (("measure", "--frames", "200", "--period-s", "0.01", "--beam-time-s", "60"), "does not answer"),
        (("env",), "No stack runs"),
        (("demo", "--movie", "nowhere.npz"), "There is no movie"),
    ],
)
def test_refusals_are_plain(arguments, culprit):
    ran = run(*arguments)
    assert ran.returncode == 1
    assert culprit in ran.stderr
    assert "What to do" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_video_without_its_scale_is_refused_by_name(outside):
    np.savez(outside / "video.npz", frames=np.zeros((20, 8, 8), np.uint8), frame_period_s=0.1)
    ran = run("demo", "--movie", outside / "video.npz")
    assert ran.returncode == 1
    assert "um_per_px" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_doctor_says_what_is_wrong_and_fails():
    ran = run("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(ran.stdout)}
    assert ran.returncode == 1
    assert findings["tiled"]["status"] == "fail"
    assert findings["tiled"]["remedy"]
    assert findings["versions"]["status"] == "ok"


def test_new_profile_is_loadable_and_never_overwrites(outside, monkeypatch):
    assert run("new-profile", "my_beamline").returncode == 0
    made = outside / "my_beamline"
    assert (made / "startup" / "20-detectors.py").exists()
    monkeypatch.setenv("BEAMLINE_ML_PROFILE", str(made))
    monkeypatch.delenv("BEAMLINE_ML_TILED__URI")
    from beamline_ml.settings import load_settings

    assert load_settings().tiled.uri == "http://127.0.0.1:8000"
    again = run("new-profile", "my_beamline")
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_what_starts_first_imports_nothing_slow():
    """A command that only looks something up, or has yet to start a stack, answers soon."""
    first = ["service.up", "service.demo", "service.demo_movie", "service.plan_commands", "live.page.server"]
    script = (
        f"import sys, {', '.join(f'beamline_ml.{module}' for module in first)};"
        "print([m for m in ('torch', 'prefect', 'ophyd_async', 'bluesky_tiled_plugins') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"

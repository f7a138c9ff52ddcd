"""What the services are told: this stack only, nothing of the user's other servers, nothing that calls home."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from tiled.config import parse_configs

from beamline_ml.service import configuration
from beamline_ml.service.state import StateDir
from beamline_ml.settings import Settings


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "a folder with spaces")
    state.create()
    return state


@pytest.fixture
def settings(state: StateDir) -> Settings:
    return Settings(state_dir=state.root)


def test_tiled_accepts_its_configuration(state: StateDir, settings: Settings) -> None:
    path = configuration.write_tiled_config(state, settings)
    parse_configs(path)
    config = json.loads(path.read_text())
    assert config["catalog"]["readable_storage"] == [f"file://localhost{state.root}/raw".replace(" ", "%20")]
    assert state.api_key() not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600


def test_other_processes_find_the_stack_through_its_settings_file(
    state: StateDir, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    configuration.write_settings_file(state, settings, "http://127.0.0.1:1", "http://127.0.0.1:2/api")
    assert state.settings_file.stat().st_mode & 0o777 == 0o600
    tomllib.loads(state.settings_file.read_text())
    monkeypatch.setenv("BEAMLINE_ML_STATE_DIR", str(state.root))
    found = Settings()
    assert (found.tiled.uri, found.prefect.api_url) == ("http://127.0.0.1:1", "http://127.0.0.1:2/api")
    assert found.tiled.api_key is not None
    assert found.tiled.api_key.get_secret_value() == state.api_key()


def test_the_environment_is_this_stacks_and_calls_nobody(state: StateDir, settings: Settings) -> None:
    inherited = {
        "PATH": "/usr/bin",
        "PREFECT_API_KEY": "cloud",
        "TILED_API_KEY": "facility",
        "BEAMLINE_ML_TILED__URI": "http://elsewhere",
        "BEAMLINE_ML_ANALYSIS__N_Q": "12",
    }
    environment = configuration.service_environment(state, settings, "http://127.0.0.1:2/api", "token", inherited)
    assert not {"PREFECT_API_KEY", "TILED_API_KEY", "BEAMLINE_ML_TILED__URI"} & set(environment)
    assert (environment["PATH"], environment["BEAMLINE_ML_ANALYSIS__N_Q"]) == ("/usr/bin", "12")
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"


@pytest.mark.parametrize(("inherited", "expected"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_of_the_services_wait_asleep_unless_the_site_says_otherwise(
    state: StateDir, settings: Settings, inherited: dict[str, str], expected: str
) -> None:
    environment = configuration.service_environment(state, settings, "http://127.0.0.1:2/api", "token", inherited)
    assert environment["OMP_WAIT_POLICY"] == expected


def test_the_tiled_profile_holds_no_key(state: StateDir) -> None:
    configuration.write_tiled_profile(state, "http://127.0.0.1:9")
    assert state.api_key() not in (state.tiled_profiles / "beamline.yml").read_text()

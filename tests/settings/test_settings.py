"""One settings tree: profile < running stack < environment < arguments, with errors that name the entry."""

import json
from pathlib import Path

import pytest

from beamline_ml.errors import SettingsError
from beamline_ml.settings import Settings, load_settings, profile_dir, shipped_root

SCHEMA = Path(__file__).parents[2] / "docs" / "reference" / "settings.schema.json"


@pytest.fixture(autouse=True)
def _empty_state(tmp_path, monkeypatch):
    monkeypatch.setenv("BEAMLINE_ML_STATE_DIR", str(tmp_path))


def write_stack_file(tmp_path, text):
    (tmp_path / "settings.toml").write_text(text)


def test_order_of_precedence(tmp_path, monkeypatch):
    assert load_settings().tiled.uri == "http://127.0.0.1:8000"
    write_stack_file(tmp_path, '[tiled]\nuri = "http://127.0.0.1:9001"\napi_key = "fromstack"\n')
    assert load_settings().tiled.uri == "http://127.0.0.1:9001"
    monkeypatch.setenv("BEAMLINE_ML_TILED__URI", "http://127.0.0.1:9002")
    settings = load_settings()
    assert settings.tiled.uri == "http://127.0.0.1:9002"
    assert settings.tiled.api_key.get_secret_value() == "fromstack"
    assert load_settings(tiled={"uri": "http://127.0.0.1:9003"}).tiled.uri == "http://127.0.0.1:9003"


def test_secrets_do_not_show(monkeypatch):
    monkeypatch.setenv("BEAMLINE_ML_TILED__API_KEY", "verysecret")
    assert "verysecret" not in repr(load_settings())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[analysis]\nn_q = 0\n", "analysis.n_q"),
        ("[analysis]\nn_rings = 4\n", "analysis.n_rings"),
        ("[data]\nmax_gib = -1\n", "data.max_gib"),
        ("[analysis\n", "no valid TOML"),
    ],
)
def test_mistakes_are_named(tmp_path, text, named):
    write_stack_file(tmp_path, text)
    with pytest.raises(SettingsError, match=named):
        load_settings()


def test_unknown_profile_names_the_known_ones(monkeypatch):
    with pytest.raises(SettingsError, match="sim_xpcs"):
        profile_dir("no_such_beamline")


@pytest.mark.parametrize("profile", sorted(p.name for p in (shipped_root() / "profiles").iterdir() if p.is_dir()))
def test_every_shipped_profile_loads(profile, monkeypatch):
    monkeypatch.setenv("BEAMLINE_ML_PROFILE", profile)
    settings = load_settings()
    assert settings.profile == profile
    assert (settings.profile_dir / "beamline.toml").is_file()


def test_committed_schema_is_fresh():
    assert json.loads(SCHEMA.read_text()) == Settings.model_json_schema(), (
        "Settings changed: write the new schema with `python -m tests.settings.write_schema`."
    )

"""What the services of an embedded stack are told: tiled's configuration, settings file and environment."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from beamline_ml.errors import ServiceError
from beamline_ml.service.reaper import VARIABLE
from beamline_ml.service.state import StateDir, write_private
from beamline_ml.settings import Settings

MEDIA_TYPES = {
    "BlueskyRun": {"application/json-seq": "bluesky_tiled_plugins.exporters:json_seq_exporter"},
    "XPCSFit": {"application/x-nxxpcs": "beamline_ml.results.nxxpcs:serve_nxxpcs"},
}
"""Exporters. Without the first, ``run.documents()`` is refused; the second is the download of a result as a file."""

FILE_EXTENSIONS = {"nxxpcs": "application/x-nxxpcs"}

_OURS_TO_SET = ("PREFECT_", "TILED_", "BEAMLINE_ML_TILED__", "BEAMLINE_ML_PREFECT__")


def catalog_uri(state: StateDir) -> str:
    """Database of tiled's catalogue."""
    return f"sqlite:///{state.tiled / 'catalog.db'}"


def write_tiled_config(state: StateDir, settings: Settings) -> Path:
    """Write ``tiled.yml`` for one server with SQLite, DuckDB and local files, and return its path.

    YAML is a superset of JSON, so JSON is written.
    """
    readable = dict.fromkeys([settings.data_dir, *settings.allowed_roots])
    config = {
        "authentication": {"allow_anonymous_access": False},
        "catalog": {
            "uri": catalog_uri(state),
            "writable_storage": [_file_uri(state.tiled / "data"), f"duckdb:///{state.tiled / 'tabular.duckdb'}"],
            "readable_storage": [_file_uri(root.absolute()) for root in readable],
        },
        "streaming_cache": {"uri": "memory"},
        "media_types": MEDIA_TYPES,
        "file_extensions": FILE_EXTENSIONS,
    }
    path = state.root / "tiled.yml"
    write_private(path, json.dumps(config, indent=2))
    return path


def write_settings_file(state: StateDir, settings: Settings, tiled_uri: str, prefect_api_url: str) -> None:
    """Write ``settings.toml``, through which every other process finds this stack."""
    lines = [
        f"profile = {json.dumps(str(settings.profile_dir))}",
        "[tiled]",
        f"uri = {json.dumps(tiled_uri)}",
        f"api_key = {json.dumps(state.api_key())}",
        "[prefect]",
        f"api_url = {json.dumps(prefect_api_url)}",
    ]
    write_private(state.settings_file, "\n".join(lines) + "\n")


def write_tiled_profile(state: StateDir, tiled_uri: str) -> None:
    """Write the tiled profile ``beamline``: with ``TILED_PROFILES`` on its folder, ``from_profile("beamline")`` works.

    A profile must not hold a key; clients take it from ``TILED_API_KEY``.
    """
    write_private(state.tiled_profiles / "beamline.yml", json.dumps({"beamline": {"uri": tiled_uri}}))


def client_environment(state: StateDir) -> dict[str, str]:
    """What a shell exports to use ``databroker.catalog["beamline"]`` and tiled's ``from_profile("beamline")``."""
    return {"TILED_PROFILES": str(state.tiled_profiles), "TILED_API_KEY": state.api_key()}


def shell_environment(settings: Settings) -> dict[str, str]:
    """What a shell exports so that ``prefect``, tiled, databroker and ``beamline-ml`` talk to this running stack.

    Raises
    ------
    ServiceError
        When no stack runs in the state directory.
    """
    state = StateDir(settings.state_dir)
    if not state.settings_file.exists():
        raise ServiceError(f"No stack runs in {state.root}.", "Start one with beamline-ml up, or name its --state-dir.")
    return {
        "BEAMLINE_ML_STATE_DIR": str(state.root),
        "PREFECT_API_URL": settings.prefect.api_url,
        **client_environment(state),
    }


def service_environment(
    state: StateDir, settings: Settings, prefect_api_url: str, token: str, inherited: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Environment of the services: this stack's addresses only, nothing that calls home.

    Threads of OpenMP wait asleep: services share the processors, and threads that wait busily for each other hold those
    up for which they wait.
    """
    kept = {name: value for name, value in inherited.items() if not name.startswith(_OURS_TO_SET)}
    return {
        "OMP_WAIT_POLICY": "passive",
        **kept,
        VARIABLE: token,
        "BEAMLINE_ML_STATE_DIR": str(state.root),
        "BEAMLINE_ML_PROFILE": str(settings.profile_dir),
        "TILED_SINGLE_USER_API_KEY": state.api_key(),
        "PREFECT_HOME": str(state.prefect),
        "PREFECT_API_URL": prefect_api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _file_uri(path: Path) -> str:
    return f"file://localhost{quote(str(path))}"

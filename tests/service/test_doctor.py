"""Doctor: says ok about a healthy stack, and names the trouble and the remedy about a sick one."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from beamline_ml.service import doctor
from beamline_ml.service.state import StateDir
from beamline_ml.settings import PrefectSettings, Settings, TiledSettings
from tests.service.processes import eventually


@pytest.fixture
def sick(tmp_path: Path) -> Settings:
    nobody = "http://127.0.0.1:9"
    return Settings(
        state_dir=tmp_path, tiled=TiledSettings(uri=nobody), prefect=PrefectSettings(api_url=f"{nobody}/api")
    )


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {finding.name: finding for finding in findings}


def test_a_healthy_stack_gets_no_complaint(stack: Any) -> None:
    def complaints() -> list[doctor.Finding]:
        return [finding for finding in doctor.examine(stack.settings) if finding.status == "fail"]

    # The watcher of a stack that has just come up, or that has just been killed by a test before, needs a moment.
    assert eventually(lambda: not complaints(), 60.0), complaints()
    healthy = by_name(doctor.examine(stack.settings))
    for name in ("tiled raw", "tiled results", "prefect", "deployment", "worker", "watcher", "documents"):
        assert healthy[name].status == "ok", healthy[name]


def test_servers_that_are_down_are_named_with_a_remedy(sick: Settings) -> None:
    findings = by_name(doctor.examine(sick))
    for name in ("tiled", "prefect"):
        assert findings[name].status == "fail"
        assert "127.0.0.1:9" in findings[name].finding
        assert "beamline-ml up" in findings[name].remedy
    assert findings["watcher"].status == "warn"


def test_a_wrong_key_is_told_from_a_server_that_is_down(stack: Any) -> None:
    tiled = stack.settings.tiled.model_copy(update={"api_key": SecretStr("wrong")})
    (raw, results) = doctor.check_tiled(stack.settings.model_copy(update={"tiled": tiled}))
    assert raw.status == results.status == "fail"
    assert "refuses the key" in raw.finding


def test_a_dead_watcher_is_found(sick: Settings) -> None:
    gone = {"pid": 2**22 + 1, "run_uid": None, "since": 0.0}
    StateDir(sick.state_dir).watcher_file.write_text(json.dumps(gone))
    (finding,) = doctor.check_watcher(sick)
    assert (finding.status, "has died" in finding.finding) == ("fail", True)
    stuck = {"pid": os.getpid(), "run_uid": "0123456789", "since": 0.0}
    StateDir(sick.state_dir).watcher_file.write_text(json.dumps(stuck))
    (finding,) = doctor.check_watcher(sick)
    assert (finding.status, "01234567" in finding.finding) == ("warn", True)


def test_waiting_documents_and_missing_data_roots_are_found(sick: Settings) -> None:
    sick.backup_dir.mkdir()
    (sick.backup_dir / "0123.jsonl").write_text("{}\n")
    (documents,) = doctor.check_documents(sick)
    assert (documents.status, documents.finding.startswith("1 runs wait")) == ("warn", True)
    (root,) = doctor.check_data_roots(sick)
    assert root.status == "warn"
    sick.data_dir.mkdir()
    (root,) = doctor.check_data_roots(sick)
    assert root.status == "ok"


def test_a_taken_port_is_no_trouble_but_told(sick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setattr(doctor, "TILED_PORT", other.getsockname()[1])
        taken = by_name(list(doctor.check_ports(sick)))[f"port {other.getsockname()[1]}"]
    assert (taken.status, "somebody else" in taken.finding) == ("ok", True)


def test_versions_that_break_are_named(sick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        return {"fastapi": "0.160.1", "prefect": "3.4.0"}.get(name, "99.0")

    monkeypatch.setattr(doctor, "_TOO_NEW", {"fastapi": "0.151"})
    monkeypatch.setattr(doctor, "version", installed)
    bad = by_name([finding for finding in doctor.check_versions(sick) if finding.status == "fail"])
    assert set(bad) == {"version fastapi", "version prefect"}
    assert "fastapi<0.151" in bad["version fastapi"].remedy

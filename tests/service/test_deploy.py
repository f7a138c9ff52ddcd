"""Everything under ``deploy/`` that can be checked without running a data centre."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiled.config import parse_configs

from beamline_ml.service.configuration import FILE_EXTENSIONS, MEDIA_TYPES, service_environment
from beamline_ml.service.deployments import declared_deployments
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.settings import Settings, shipped_root

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())


def example_environment() -> dict[str, str]:
    lines = (DEPLOY / "environment.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def assert_runs_here(command: list[str]) -> None:
    """The program of a command is installed, and so is the module of ``python -m``."""
    program = Path(command[0]).name
    if program.startswith("python"):
        assert command[1] == "-m"
        assert importlib.util.find_spec(command[2]), command
    else:
        assert shutil.which(program, path=str(Path(sys.executable).parent)), command


@pytest.mark.parametrize("entry", declared_deployments(shipped_root()), ids=lambda entry: entry["entrypoint"])
def test_each_deployment_names_a_flow_that_exists(entry: dict[str, Any]) -> None:
    file, function = entry["entrypoint"].split(":")
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert function in functions
    assert set(entry["parameters"]) <= {argument.arg for argument in functions[function].args.args}
    assert entry["work_pool"]["name"] == Settings.model_fields["prefect"].default.work_pool


def test_prefect_deploy_gives_the_same_deployment(stack: Any) -> None:
    environment = service_environment(stack.state, stack.settings, stack.prefect_api_url, token="")
    with closing(PrefectApi(stack.settings.prefect)) as api:
        before = api.deployment_id("xpcs-fit/beamline")
        command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--name", "xpcs-fit/beamline"]
        done = subprocess.run(
            [*command, "--prefect-file", "deploy/prefect.yaml"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert api.deployment_id("xpcs-fit/beamline") == before


def test_tiled_accepts_the_production_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in example_environment().items():
        monkeypatch.setenv(name, value)
    config = parse_configs(DEPLOY / "tiled.yml")
    assert "${" not in str(config)
    shipped = yaml.safe_load((DEPLOY / "tiled.yml").read_text())
    assert shipped["media_types"] == MEDIA_TYPES, "as the embedded stack has them"
    assert shipped["file_extensions"] == FILE_EXTENSIONS


def test_the_example_environment_has_every_variable_and_settings_accept_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = example_environment()
    assert set(re.findall(r"\$\{(\w+)\}", (DEPLOY / "tiled.yml").read_text())) <= set(environment)
    monkeypatch.delenv("BEAMLINE_ML_STATE_DIR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BEAMLINE_ML_PROFILE", str(ROOT / "profiles" / "template"))
    settings = Settings()
    assert settings.tiled.uri == environment["BEAMLINE_ML_TILED__URI"]
    assert settings.prefect.api_url == environment["PREFECT_API_URL"]
    assert environment["TILED_SINGLE_USER_API_KEY"].isalnum()


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_units_start_programs_that_exist(path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(path)
    assert unit["Service"]["Restart"] == "always"
    assert unit["Service"]["EnvironmentFile"] == "/etc/beamline-ml/environment"
    assert_runs_here(unit["Service"]["ExecStart"].split())


def test_compose_services_start_programs_that_exist_and_wait_for_services_that_exist() -> None:
    ours = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "beamline-ml"}
    assert set(ours) == {"tiled", "prefect", "deployments", "worker", "watcher"}
    for name, service in ours.items():
        assert_runs_here(service["command"])
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"]), name
    published = [port for service in ours.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert (DEPLOY / COMPOSE["services"]["postgres"]["volumes"][1].split(":")[0]).is_file()


def test_no_secret_is_shipped() -> None:
    for path in [*DEPLOY.rglob("*.y*ml"), *UNITS]:
        assert not re.search(r"(password|api_key|secret)\s*[:=]\s*[\"']?[A-Za-z0-9]{8,}", path.read_text(), re.I), path


def test_chart_values_cover_what_the_templates_use() -> None:
    chart = DEPLOY / "helm" / "beamline-ml"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["name"] == "beamline-ml"
    for template in (chart / "templates").glob("*.yaml"):
        for path in re.findall(r"\.Values\.([\w.]+)", template.read_text()):
            value: Any = values
            for name in path.split("."):
                assert name in value, f"{template.name} uses {path}"
                value = value[name]

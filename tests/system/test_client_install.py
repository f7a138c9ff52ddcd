"""A visiting user installs the client: it queries and plots, without torch and without Prefect."""

import os
import subprocess
import sys
import time
import venv
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[2]
HEAVY = {"torch", "prefect", "numba", "bluesky", "ophyd-async", "scikit-image", "fastapi"}


def requirements_of(name: str, extras: frozenset[str]) -> set[str]:
    """Names of all distributions that ``name[extras]`` pulls in, here installed."""
    found: set[tuple[str, frozenset[str]]] = set()
    todo = [(name, extras)]
    while todo:
        name, extras = todo.pop()
        if (name, extras) in found:
            continue
        found.add((name, extras))
        for text in distribution(name).requires or []:
            need = Requirement(text)
            wanted = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if need.marker is None or any(need.marker.evaluate(environment) for environment in wanted):
                todo.append((need.name.lower(), frozenset(need.extras)))
    return {name for name, _ in found}


def test_client_pulls_in_nothing_heavy():
    assert not requirements_of("beamline-ml", frozenset({"client"})) & HEAVY


def test_beamline_pulls_in_the_rest():
    assert {"torch", "prefect", "torchdiffeq", "e3nn"} <= requirements_of("beamline-ml", frozenset({"beamline"}))


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "prefect", "numba", "bluesky", "h5py", "scipy"}:
            raise ImportError(f"{name} is not part of the client")
sys.meta_path.insert(0, Block())
import beamline_ml.results
from beamline_ml.results import Results, XPCSFit, open_results
import beamline_ml.results.figures, beamline_ml.results.console, beamline_ml.cli
print(sorted({"torch", "prefect", "pandas", "matplotlib"} & set(sys.modules)))
"""


def test_client_works_where_nothing_heavy_can_be_imported():
    ran = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif("CI" not in os.environ, reason="downloads and installs for a minute; set CI=1 to run it")
def test_client_install_in_a_clean_environment(tmp_path):
    venv.create(tmp_path / "env", with_pip=True, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-input"]
    installed = subprocess.run(
        [*pip, "-c", CHECKOUT / "constraints.txt", f"{CHECKOUT}[client]"], capture_output=True, text=True, cwd=tmp_path
    )
    if installed.returncode != 0 and "No matching distribution" in installed.stderr:
        pytest.skip(f"no package index in reach: {installed.stderr[-300:]}")
    assert installed.returncode == 0, installed.stderr
    began = time.monotonic()
    ran = subprocess.run(
        [python, "-c", "import beamline_ml.results, sys; print('torch' in sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    print(f"import beamline_ml.results: {time.monotonic() - began:.2f} s with the interpreter's start")
    assert ran.stdout.strip() == "False"
    listed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout.lower()
    assert "torch" not in listed
    assert "prefect" not in listed

"""The built wheel, and an environment outside the checkout that has nothing of beamline-ml but that wheel."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)],
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with the wheel itself and, by reference, this environment's third-party packages.

    A .pth file that adds a folder does not process the .pth files in it, so the checkout's editable install stays
    invisible: ``beamline_ml`` can only come from the wheel.
    """
    home = tmp_path_factory.mktemp("wheel_environment")
    venv.create(home, with_pip=False, symlinks=True)
    site = next((home / "lib").glob("python3*/site-packages"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(home / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    (site / "third_party.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home


@pytest.fixture
def outside(tmp_path, monkeypatch) -> Path:
    """A working directory outside the checkout, with its own home, so that nothing of the checkout can help."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    for name in [name for name in os.environ if name.startswith("BEAMLINE_ML_")]:
        monkeypatch.delenv(name)
    return tmp_path

"""Every block of the README is executed, in its order, against the demo that the first block starts."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
DEMO_TIMEOUT_S = 280
BLOCK_TIMEOUT_S = 240


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def ends_within(process: subprocess.Popen, seconds: float) -> None:
    process.send_signal(signal.SIGINT)
    process.wait(seconds)


def words(line: str) -> set[str]:
    """Words of a line without its numbers and drawing."""
    return set(re.findall(r"[A-Za-zµ]{3,}", line))


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("BEAMLINE_ML_", "PREFECT_"))}
    return {
        **clean,
        "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "BEAMLINE_ML_STATE_DIR": str(tmp_path_factory.mktemp("state")),
        "COLUMNS": "120",
        # Of the 40 s that a user's demo takes for it; the model needs less to agree with the truth.
        "BEAMLINE_ML_ANALYSIS__FIT_BUDGET_S": "12",
    }


@pytest.fixture(scope="module")
def demo(environment, tmp_path_factory):
    """``make demo`` as the README says, kept up; its printed text, its report, and its stack's environment."""
    folder = tmp_path_factory.mktemp("demo")
    report, printed = folder / "report.json", folder / "printed.txt"
    with printed.open("w") as output:
        command = ["make", "demo", f"VENV={sys.prefix}", f"DEMO_ARGS=--keep --json {report}"]
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + DEMO_TIMEOUT_S
    while not report.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.5)
    assert report.exists(), printed.read_text()
    stack = {**environment, "BEAMLINE_ML_STATE_DIR": str(Path(environment["BEAMLINE_ML_STATE_DIR"]) / "demo")}
    exports = subprocess.run(["beamline-ml", "env"], env=stack, check=True, capture_output=True, text=True).stdout
    stack.update(line.removeprefix("export ").replace("'", "").split("=", 1) for line in exports.splitlines())
    yield json.loads(report.read_text()), printed, stack
    os.killpg(process.pid, signal.SIGINT)
    process.wait(60)
    assert left_over(stack["BEAMLINE_ML_STATE_DIR"]) == []


def left_over(state_dir: str) -> list[str]:
    """Command lines of processes that still belong to this stack."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("BEAMLINE_ML_STATE_DIR") == state_dir:
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
class TestInOrder:
    def test_demo_prints_what_the_readme_shows(self, demo):
        _, printed, _ = demo
        said = words(printed.read_text())
        (shown,) = blocks("text")
        # How well the model describes the data depends on how far this machine came in the time for the fit.
        shown = "\n".join(line for line in shown.splitlines() if not line.startswith("The neural ODE gives"))
        assert words(shown) <= said, words(shown) - said

    def test_demo_agrees_with_the_truth(self, demo):
        report, _, _ = demo
        truth = report["against_truth"]
        assert truth["share_within_2_sigma"] >= 0.9
        assert abs(truth["diffusion_z"]) < 3
        assert truth["forecast_rmse"] < truth["persistence_rmse"]
        assert truth["forecast_coverage"] > 0.8
        assert sum(ring["refused"] is None for ring in report["rings"]) >= 4

    def test_picture_is_there(self, demo):
        report, _, _ = demo
        assert Path(report["picture"]).stat().st_size > 50_000

    @pytest.mark.parametrize("block", [text for kind, text in BLOCKS if kind in ("bash", "python")])
    def test_block_runs(self, block, demo, tmp_path_factory):
        _, _, stack = demo
        if block.strip() == "make demo":
            return  # the fixture ran it
        if block.strip() == "make test":
            ran = subprocess.run(
                ["make", "--dry-run", "test"], cwd=CHECKOUT, check=True, capture_output=True, text=True
            )
            assert "pytest" in ran.stdout
            return
        language = next(kind for kind, text in BLOCKS if text == block)
        command = ["bash", "-euc", block] if language == "bash" else [sys.executable, "-W", "error", "-c", block]
        folder = tmp_path_factory.mktemp("block")
        ran = subprocess.run(command, cwd=folder, env=stack, capture_output=True, text=True, timeout=BLOCK_TIMEOUT_S)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"

"""What it costs to get started: installation, the demo, and the import that a visiting user pays for."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.rows import Row, row

CHECKOUT = Path(__file__).parents[2]
N_IMPORTS = 5
INSTALL_LIMIT_S = 210.0
DEMO_LIMIT_S = 150.0
IMPORT_LIMIT_S = 1.5


def rows() -> list[Row]:
    """install_s (a fresh environment, packages from the cache), demo_s, client_import_s (median of five)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "BEAMLINE_ML_STATE_DIR": folder}
        venv = Path(folder) / "venv"
        install_s = _seconds(["make", f"VENV={venv}", f"{venv}/.run-ready"], environment)
        demo_s = _seconds([str(venv / "bin" / "beamline-ml"), "demo"], environment)
    # A name, because names are loaded on first use: the package alone loads next to nothing.
    asking = [sys.executable, "-c", "from beamline_ml.results import open_results"]
    imports = sorted(_seconds(asking, {**os.environ}) for _ in range(N_IMPORTS))
    return [
        row("install_s", install_s, "s", INSTALL_LIMIT_S),
        row("demo_s", demo_s, "s", DEMO_LIMIT_S),
        row("client_import_s", imports[len(imports) // 2], "s", IMPORT_LIMIT_S),
    ]


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began

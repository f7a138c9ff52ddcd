"""What it costs to get started: installation, the demo, and the import that a visiting user pays for."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]
N_IMPORTS = 5
INSTALL_LIMIT_S = 210.0
DEMO_LIMIT_S = 150.0
IMPORT_LIMIT_S = 1.5


def rows() -> list[dict[str, Any]]:
    """install_s (a fresh environment, packages from the cache), demo_s, client_import_s (median of five)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "BEAMLINE_ML_STATE_DIR": folder}
        venv = Path(folder) / "venv"
        install_s = _seconds(["make", f"VENV={venv}", f"{venv}/.run-ready"], environment)
        demo_s = _seconds([str(venv / "bin" / "beamline-ml"), "demo"], environment)
    imports = sorted(
        _seconds([sys.executable, "-c", "import beamline_ml.results"], {**os.environ}) for _ in range(N_IMPORTS)
    )
    return [
        _row("install_s", install_s, INSTALL_LIMIT_S),
        _row("demo_s", demo_s, DEMO_LIMIT_S),
        _row("client_import_s", imports[len(imports) // 2], IMPORT_LIMIT_S),
    ]


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _row(name: str, value: float, limit: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value, 3),
        "unit": "s",
        "reference": "limit",
        "reference_value": limit,
        "ratio": round(value / limit, 4),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "date": datetime.now(UTC).date().isoformat(),
    }

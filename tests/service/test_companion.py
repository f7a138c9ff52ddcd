"""The process that follows runs belongs to the watcher and to nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.service.processes import eventually, is_alive

STARTS_AND_IS_KILLED = """
import os, pathlib, signal, psutil
from beamline_ml.service.companion import Companion
companion = Companion()
companion.keep()
pathlib.Path("pid").write_text(str(psutil.Process().children()[0].pid))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_with_a_watcher_that_is_killed_while_it_starts(tmp_path: Path) -> None:
    environment = {**os.environ, "BEAMLINE_ML_STATE_DIR": str(tmp_path)}
    killed = subprocess.run([sys.executable, "-c", STARTS_AND_IS_KILLED], env=environment, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    try:
        assert eventually(lambda: not is_alive(pid), 60.0)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)

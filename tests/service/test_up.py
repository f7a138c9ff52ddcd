"""The stack as a whole: on free ports, alone in its directory, and gone when it ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from beamline_ml.errors import ServiceError
from beamline_ml.service.configuration import client_environment
from beamline_ml.service.deployments import declared_deployments
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.reaper import end_marked, marked
from beamline_ml.service.state import StateDir
from beamline_ml.service.up import embedded_stack
from beamline_ml.settings import shipped_root
from tests.service.processes import eventually, is_alive


@contextmanager
def starting(state_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "beamline_ml.service.up"],
        env={**os.environ, "BEAMLINE_ML_STATE_DIR": str(state_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def token_in(state_dir: Path) -> str:
    state = StateDir(state_dir)
    assert eventually(lambda: state.read_record() is not None, 60.0)
    record = state.read_record()
    assert record is not None
    return record.token


def test_all_services_are_up_on_other_ports_than_those_taken(stack: Any) -> None:
    assert httpx.get(f"{stack.tiled_uri}/healthz").is_success
    assert httpx.get(f"{stack.prefect_api_url}/health").is_success
    assert not {8000, 4200} & {httpx.URL(uri).port for uri in (stack.tiled_uri, stack.prefect_api_url)}
    assert httpx.get(f"{stack.tiled_uri}/api/v1/metadata/").status_code == 401, "a key is asked for"


def test_a_worker_and_all_declared_deployments_are_there(stack: Any) -> None:
    with closing(PrefectApi(stack.settings.prefect)) as api:
        assert api.worker_is_online()
        for entry in declared_deployments(shipped_root()):
            flow = entry["entrypoint"].split(":")[1].replace("_", "-")
            assert api.deployment_id(f"{flow}/{entry['name']}")


def test_databroker_finds_the_beamline_by_name(stack: Any) -> None:
    code = "import databroker; c = databroker.catalog['beamline']; print(sorted(c), type(c['raw']).__name__)"
    environment = {**os.environ, **client_environment(stack.state)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['live', 'raw', 'results'] CatalogOfBlueskyRuns"


def test_a_second_stack_in_the_same_directory_is_refused(stack: Any) -> None:
    with (
        pytest.raises(ServiceError, match=f"process {os.getpid()}, tiled {stack.tiled_uri}"),
        embedded_stack(stack.settings),
    ):
        pass
    assert httpx.get(f"{stack.tiled_uri}/healthz").is_success


@pytest.mark.parametrize("n_processes", [1, 4])
def test_ctrl_c_while_starting_leaves_nothing_behind(tmp_path: Path, n_processes: int) -> None:
    with starting(tmp_path) as process:
        token = token_in(tmp_path)
        assert eventually(lambda: len(marked(token)) >= n_processes)
        process.send_signal(signal.SIGINT)
        assert process.wait(30.0) == 130
        assert marked(token) == []
    assert not StateDir(tmp_path).settings_file.exists()


def test_ctrl_c_does_not_wait_for_a_client_of_tiled_that_is_gone(tmp_path: Path) -> None:
    """The stack's own client would go on trying for half a minute."""
    with starting(tmp_path) as process:
        token_in(tmp_path)
        record = StateDir(tmp_path).read_record()
        assert record is not None
        assert eventually(lambda: _answers(f"{record.tiled_uri}/healthz"), 60.0)
        process.send_signal(signal.SIGINT)
        assert process.wait(15.0) == 130


def _answers(uri: str) -> bool:
    try:
        return httpx.get(uri).is_success
    except httpx.HTTPError:
        return False


def test_a_killed_supervisor_takes_all_with_it_and_the_next_starts_cleanly(tmp_path: Path) -> None:
    with starting(tmp_path) as process:
        token = token_in(tmp_path)
        assert eventually(lambda: len(marked(token)) >= 4)
        services = marked(token)
        process.kill()
        assert eventually(lambda: marked(token) == [])
        assert eventually(lambda: not any(is_alive(pid) for pid in services))  # a dying process has lost its mark
    with starting(tmp_path) as process:
        assert eventually(lambda: token_in(tmp_path) != token)
        again = token_in(tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30.0) == 128 + signal.SIGTERM
        assert marked(again) == []


def test_what_a_killed_stack_left_running_is_ended_by_the_next(tmp_path: Path) -> None:
    with starting(tmp_path) as process:
        token = token_in(tmp_path)
        assert eventually(lambda: len(marked(token)) >= 4)
        for reaper in _reapers(process.pid):
            os.kill(reaper, signal.SIGKILL)
        process.kill()
        process.wait(10.0)
        time.sleep(0.5)
        left_running = marked(token)
        assert left_running, "without its reaper, the stack is left running"
    with starting(tmp_path) as process:
        try:
            assert eventually(lambda: marked(token) == [])
        finally:
            end_marked(token, grace_s=0.0)
        process.send_signal(signal.SIGINT)
        process.wait(30.0)


def _reapers(supervisor: int) -> list[int]:
    children = Path(f"/proc/{supervisor}/task").glob("*/children")
    pids = [int(pid) for file in children for pid in file.read_text().split()]
    return [pid for pid in pids if b"reaper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]

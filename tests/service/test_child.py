"""Services that die are started again; those asked to end do, with all that they started."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from beamline_ml.service import reaper
from beamline_ml.service.child import Child
from tests.service.processes import eventually, is_alive

SLEEP = "import time; time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)
STARTS_A_SESSION = (
    f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True).pid, "
    f"flush=True); {SLEEP}"
)


@pytest.fixture
def child_of(tmp_path: Path) -> Callable[..., Child]:
    def make(code: str, **environment: str) -> Child:
        command = [sys.executable, "-c", code]
        return Child("service", command, {**os.environ, **environment}, tmp_path, tmp_path / "service.log")

    return make


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60.0))


def test_a_killed_service_is_started_again(child_of: Callable[..., Child]) -> None:
    async def work() -> None:
        child = child_of(SLEEP)
        await child.start()
        first = child.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        while child.pid in (None, first):
            await asyncio.sleep(0.05)
        assert child.deaths == 1
        second = child.pid
        await child.stop(grace_s=5.0)
        assert second is not None
        assert not is_alive(second)

    run(work())


def test_a_service_that_does_not_listen_is_killed(child_of: Callable[..., Child]) -> None:
    async def work() -> None:
        child = child_of(STUBBORN)
        await child.start()
        while "deaf" not in child.last_lines():
            await asyncio.sleep(0.05)
        pid = child.pid
        await child.stop(grace_s=0.2)
        assert pid is not None
        assert not is_alive(pid)

    run(work())


def test_a_job_gives_its_exit_status(child_of: Callable[..., Child]) -> None:
    async def work() -> None:
        child = child_of("import sys; print('why'); sys.exit(3)")
        assert await child.run_once() == 3
        assert child.last_lines(1) == "why"

    run(work())


def started_session(child: Child) -> int:
    assert eventually(lambda: child.last_lines().strip().isdigit())
    return int(child.last_lines())


def test_the_token_finds_processes_in_sessions_of_their_own(child_of: Callable[..., Child]) -> None:
    token = secrets.token_hex(8)

    async def work() -> None:
        child = child_of(STARTS_A_SESSION, **{reaper.VARIABLE: token})
        await child.start()
        grandchild = await asyncio.to_thread(started_session, child)
        assert set(reaper.marked(token)) == {child.pid, grandchild}
        await child.stop(grace_s=5.0)
        assert is_alive(grandchild)
        await asyncio.to_thread(reaper.end_marked, token, 1.0)
        assert not is_alive(grandchild)

    run(work())


def test_all_are_gone_when_ended() -> None:
    """Much memory takes a while to be given back, and only then are a process's files and ports free."""
    token = secrets.token_hex(8)
    code = f"held = b'x' * 600_000_000; print('full', flush=True); {SLEEP}"
    environment = {**os.environ, reaper.VARIABLE: token}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) as service:
        assert service.stdout is not None
        assert service.stdout.readline() == b"full\n"
        reaper.end_marked(token, grace_s=5.0)
        assert not is_alive(service.pid)


def test_the_reaper_ends_everything_when_its_supervisor_is_gone() -> None:
    token = secrets.token_hex(8)
    service = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], env={**os.environ, reaper.VARIABLE: token}, stdout=subprocess.PIPE
    )
    with (
        service,
        subprocess.Popen([sys.executable, "-I", "-S", reaper.__file__, token], stdin=subprocess.PIPE) as waiting,
    ):
        assert service.stdout is not None
        assert service.stdout.readline() == b"deaf\n"
        assert reaper.marked(token) == [service.pid]
        assert waiting.stdin is not None
        waiting.stdin.close()
        assert waiting.wait(20.0) == 0
        assert service.wait(20.0) == -signal.SIGKILL

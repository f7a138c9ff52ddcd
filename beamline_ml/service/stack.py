"""Supervise the embedded stack: tiled, Prefect, a worker and the watcher, all on this machine and loopback only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

import httpx
from pydantic import SecretStr
from tiled.client import from_uri

from beamline_ml.acquisition.containers import RUNS_SPEC, open_container
from beamline_ml.errors import ServiceError
from beamline_ml.service import configuration, reaper
from beamline_ml.service.background import begun
from beamline_ml.service.child import Child
from beamline_ml.service.ports import LOOPBACK, port_of, reserve_port
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.state import StackRecord, StateDir
from beamline_ml.settings import Settings, shipped_root

TILED_PORT = 8000
PREFECT_PORT = 4200
TILED_SERVER = "beamline_ml.service.tiled_server"
START_TIMEOUT_S = 180.0
_GRACE_S = 2.0
_POLL_S = 0.1
_MOST_DEATHS_AT_START = 3
_LONG_S = 3600.0


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened while the stack starts or ends."""

    name: str
    """Service, or what is being done: tiled, prefect, deployments, worker, watcher, stop."""
    state: str
    """'starting', 'ready', 'stopping' or 'stopped'."""
    seconds: float
    """Since the start of the stack."""


Progress = Callable[[Step], None]


def silent(step: Step) -> None:
    """Report nothing."""


class Stack:
    """The embedded stack; an asynchronous context manager that is ready inside and gone after.

    Parameters
    ----------
    settings
        Profile and state directory; addresses are chosen here.
    progress
        Called with each step.
    """

    def __init__(self, settings: Settings, progress: Progress = silent) -> None:
        self.state = StateDir(settings.state_dir)
        self.children: dict[str, Child] = {}
        self._settings = settings
        self._progress = progress
        self._began = time.monotonic()
        self._token = secrets.token_hex(16)
        self._reservations: list[socket.socket] = []
        self._reaper: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Stack:
        self._claim()
        try:
            await asyncio.wait_for(self._start(), START_TIMEOUT_S)
        except TimeoutError:
            await self._stop()
            raise ServiceError(
                f"The stack was not ready after {START_TIMEOUT_S:.0f} s.", f"Read the logs in {self.state.logs}."
            ) from None
        except BaseExceptionGroup as group:
            await self._stop()
            raise group.exceptions[0] from None
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    @property
    def settings(self) -> Settings:
        """Settings with this stack's addresses and key, as other processes read them."""
        return self._settings.model_copy(
            update={
                "tiled": self._settings.tiled.model_copy(update={"uri": self.tiled_uri, "api_key": self._key()}),
                "prefect": self._settings.prefect.model_copy(update={"api_url": self.prefect_api_url}),
            }
        )

    @property
    def tiled_uri(self) -> str:
        """Base address of tiled; also its web page."""
        return f"http://{LOOPBACK}:{port_of(self._reservations[0])}"

    @property
    def prefect_api_url(self) -> str:
        """Address of Prefect's interface; its page is the same without ``/api``."""
        return f"http://{LOOPBACK}:{port_of(self._reservations[1])}/api"

    @staticmethod
    def wait() -> NoReturn:
        """Wait until Ctrl-C or a signal ends the calling thread."""
        while True:
            threading.Event().wait(_LONG_S)

    @property
    def page_uri(self) -> str:
        """Address of the live page."""
        return f"http://{LOOPBACK}:{port_of(self._reservations[2])}"

    def _key(self) -> SecretStr:
        return SecretStr(self.state.api_key())

    def _claim(self) -> None:
        """Take the state directory, and end what a killed predecessor left running."""
        self.state.create()
        self.state.lock()
        if (record := self.state.read_record()) is not None:
            reaper.end_marked(record.token, grace_s=1.0)
        self.state.watcher_file.unlink(missing_ok=True)
        for log in self.state.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.before"))
        ports = (TILED_PORT, PREFECT_PORT, self._settings.live.page_port)
        self._reservations = [reserve_port(port) for port in ports]

    async def _start(self) -> None:
        self._start_reaper()
        self.state.write_record(StackRecord(os.getpid(), self._token, self.tiled_uri, self.prefect_api_url))
        self._settings.data_dir.mkdir(parents=True, exist_ok=True)
        configuration.write_settings_file(self.state, self._settings, self.tiled_uri, self.prefect_api_url)
        configuration.write_tiled_profile(self.state, self.tiled_uri)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_tiled())
            group.create_task(self._start_prefect(group))
            group.create_task(self._start_watcher())
            group.create_task(self._start_page())

    def _start_reaper(self) -> None:
        """Start the process that ends everything should this one be killed; it must be the first."""
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, self._token],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _child(self, name: str, *arguments: str) -> Child:
        """A service of this stack: a Python module with arguments."""
        child = Child(
            name,
            [sys.executable, "-m", *arguments],
            configuration.service_environment(self.state, self._settings, self.prefect_api_url, self._token),
            shipped_root(),
            self.state.logs / f"{name}.log",
        )
        self.children[name] = child
        return child

    async def _start_tiled(self) -> None:
        self._tell("tiled", "starting")
        config = configuration.write_tiled_config(self.state, self._settings)
        port = str(port_of(self._reservations[0]))
        arguments = ("serve", "config", str(config), "--host", LOOPBACK, "--port", port)
        child = self._child("tiled", TILED_SERVER, configuration.catalog_uri(self.state), *arguments)
        await child.start()
        await self._until(child, _answers(f"{self.tiled_uri}/healthz"))
        # Where tiled ends meanwhile, its client goes on trying for half a minute; Ctrl-C does not wait for that.
        await asyncio.wrap_future(begun(self._create_containers, "containers"))
        self._tell("tiled", "ready")

    async def _start_prefect(self, group: asyncio.TaskGroup) -> None:
        self._tell("prefect", "starting")
        port = str(port_of(self._reservations[1]))
        child = self._child("prefect", "prefect", "server", "start", "--host", LOOPBACK, "--port", port)
        await child.start()
        deployments = self._child("deployments", "beamline_ml.service.deployments", "--wait")
        registered = group.create_task(deployments.run_once())
        await self._until(child, _answers(f"{self.prefect_api_url}/health"))
        self._tell("prefect", "ready")
        group.create_task(self._start_worker())
        await self._finish_deployments(deployments, registered)

    async def _finish_deployments(self, deployments: Child, registered: asyncio.Task[int]) -> None:
        self._tell("deployments", "starting")
        if await registered != 0:
            raise ServiceError(
                f"The flows could not be registered with Prefect: {deployments.last_lines(3)}",
                f"Read {deployments.log}.",
            )
        self._tell("deployments", "ready")

    async def _start_worker(self) -> None:
        self._tell("worker", "starting")
        pool = self._settings.prefect.work_pool
        arguments = ("--pool", pool, "--type", "process", "--name", "beamline-embedded", "--limit", "1")
        child = self._child("worker", "prefect", "worker", "start", *arguments)
        await child.start()
        api = PrefectApi(self.settings.prefect)
        with contextlib.closing(api):
            await self._until(child, lambda: asyncio.to_thread(_worker_is_online, api))
        self._tell("worker", "ready")

    async def _start_watcher(self) -> None:
        self._tell("watcher", "starting")
        child = self._child("watcher", "beamline_ml.service.watcher")
        await child.start()

        async def is_ready() -> bool:
            return self.state.watcher_file.exists()

        await self._until(child, is_ready)
        self._tell("watcher", "ready")

    async def _start_page(self) -> None:
        """Nobody waits for the page: it fills by itself as soon as tiled answers."""
        port = str(port_of(self._reservations[2]))
        await self._child("page", "beamline_ml.live.page.server", "--port", port).start()

    async def _until(self, child: Child, check: Callable[[], Awaitable[bool]]) -> None:
        """Wait until a service answers; give up when it dies again and again."""
        while not await check():
            if child.deaths >= _MOST_DEATHS_AT_START:
                raise ServiceError(
                    f"{child.name} does not start. The end of its log:\n{child.last_lines()}", f"Read {child.log}."
                )
            await asyncio.sleep(_POLL_S)

    def _create_containers(self) -> None:
        client = from_uri(self.tiled_uri, api_key=self.state.api_key())
        with client.context:
            open_container(client, self._settings.tiled.raw, RUNS_SPEC)
            open_container(client, self._settings.tiled.results)
            open_container(client, self._settings.tiled.live)

    async def _stop(self) -> None:
        """End everything, however often this is cancelled meanwhile."""
        ending = asyncio.create_task(self._tear_down())
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(ending)
        ending.result()

    async def _tear_down(self) -> None:
        self._tell("stack", "stopping")
        await asyncio.gather(*(child.stop(_GRACE_S) for child in self.children.values()))
        await asyncio.to_thread(reaper.end_marked, self._token, 0.5)
        for file in (self.state.settings_file, self.state.record_file, self.state.watcher_file):
            file.unlink(missing_ok=True)
        for reservation in self._reservations:
            reservation.close()
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            await asyncio.to_thread(self._reaper.wait)
        self.state.unlock()
        self._tell("stack", "stopped")

    def _tell(self, name: str, state: str) -> None:
        self._progress(Step(name, state, time.monotonic() - self._began))


def _answers(uri: str) -> Callable[[], Awaitable[bool]]:
    """Check whether an address answers with success."""

    async def check() -> bool:
        async with httpx.AsyncClient(verify=False, timeout=2.0) as client:
            try:
                return (await client.get(uri)).is_success
            except httpx.HTTPError:
                return False

    return check


def _worker_is_online(api: PrefectApi) -> bool:
    try:
        return api.worker_is_online()
    except ServiceError:
        return False

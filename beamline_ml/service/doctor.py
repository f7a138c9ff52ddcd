"""Look at everything that a chain needs, and say what to do about what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import httpx

from beamline_ml.acquisition.journal import claim, waiting_journals
from beamline_ml.errors import ServiceError
from beamline_ml.service.ports import is_free
from beamline_ml.service.prefect_api import PrefectApi
from beamline_ml.service.stack import PREFECT_PORT, TILED_PORT
from beamline_ml.service.state import StateDir
from beamline_ml.settings import Settings

Status = Literal["ok", "warn", "fail"]

_GIB = 2**30
_LITTLE_DISK_GIB = 5.0
_NO_DISK_GIB = 1.0
_PROBE_TIMEOUT_S = 3.0
_PATIENCE_S = 60.0
"""A process that asks the detector gives up by itself long before."""
_STUCK_AFTER_S = 1800.0
_NEEDED = {
    "prefect": "3.8.8",
    "tiled": "0.2.20",
    "bluesky": "1.15.1",
    "bluesky-tiled-plugins": "2.0.12",
    "ophyd-async": "0.21.3",
    "torch": "2.13",
    "h5py": "3.13",
}
_TOO_NEW = {"fastapi": "0.151", "ophyd-async": "0.22", "tiled": "0.3"}
"""Versions from which on something breaks: newer FastAPI crashes the Prefect server at start."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    finding: str
    remedy: str = ""
    """What to do; empty when all is well."""


def examine(settings: Settings) -> list[Finding]:
    """Make all checks; none of them changes anything, and none raises.

    Parameters
    ----------
    settings
        Addresses and folders to look at.
    """
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        check_versions,
        check_disk,
        check_ports,
        check_tiled,
        check_prefect,
        check_watcher,
        check_detector,
        check_data_roots,
        check_documents,
        check_gpu,
    )
    return [finding for look in checks for finding in look(settings)]


def check_versions(settings: Settings) -> Iterator[Finding]:
    """Are the libraries there, in versions that work together?"""
    for name, least in _NEEDED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(f"version {name}", "fail", "not installed", "pip install 'beamline-ml[beamline]'")
            continue
        if _numbers(found) < _numbers(least):
            yield Finding(f"version {name}", "fail", f"{found} is older than {least}", f"pip install '{name}>={least}'")
    for name, limit in _TOO_NEW.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            continue
        if _numbers(found) >= _numbers(limit):
            yield Finding(f"version {name}", "fail", f"{found} is known to break", f"pip install '{name}<{limit}'")
    yield Finding("versions", "ok", ", ".join(f"{name} {_version(name)}" for name in _NEEDED))


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Is there room for frames and databases?"""
    for name, folder in {"state": settings.state_dir, "frames": settings.data_dir}.items():
        there = _existing_parent(folder)
        free_gib = shutil.disk_usage(there).free / _GIB
        finding = f"{free_gib:.1f} GiB free for {folder}"
        if not os.access(there, os.W_OK):
            yield Finding(
                f"disk {name}", "fail", f"{there} cannot be written to", "Choose another folder, or its rights."
            )
        elif free_gib < _LITTLE_DISK_GIB:
            status: Status = "fail" if free_gib < _NO_DISK_GIB else "warn"
            yield Finding(f"disk {name}", status, finding, "Move old frames away, or set BEAMLINE_ML_STATE_DIR.")
        else:
            yield Finding(f"disk {name}", "ok", finding)


def check_ports(settings: Settings) -> Iterator[Finding]:
    """Are the usual ports free, or used by our own stack?"""
    used = {httpx.URL(settings.tiled.uri).port, httpx.URL(settings.prefect.api_url).port}
    for name, port in (("tiled", TILED_PORT), ("Prefect", PREFECT_PORT)):
        if is_free(port):
            yield Finding(f"port {port}", "ok", "free")
        elif port in used and StateDir(settings.state_dir).settings_file.exists():
            yield Finding(f"port {port}", "ok", f"used by this stack's {name}")
        else:
            yield Finding(f"port {port}", "ok", f"taken by somebody else; {name} starts on another port")


def check_tiled(settings: Settings) -> Iterator[Finding]:
    """Does tiled answer, and take our key?"""
    uri, key = settings.tiled.uri.rstrip("/"), settings.tiled.api_key
    headers = {"Authorization": f"Apikey {key.get_secret_value()}"} if key else {}
    try:
        for path in (settings.tiled.raw, settings.tiled.results):
            response = httpx.get(f"{uri}/api/v1/metadata/{path}", headers=headers, timeout=_PROBE_TIMEOUT_S)
            yield _tiled_container(uri, path, response.status_code)
    except httpx.HTTPError as error:
        yield Finding(
            "tiled",
            "fail",
            f"{uri} does not answer ({error or type(error).__name__})",
            "Start it with beamline-ml up; scans may go on meanwhile, their documents wait on disk.",
        )


def check_prefect(settings: Settings) -> Iterator[Finding]:
    """Does Prefect answer, know the deployment, and have a worker?"""
    with closing(PrefectApi(settings.prefect)) as api:
        try:
            api.check()
            yield Finding("prefect", "ok", f"{settings.prefect.api_url} answers")
            api.deployment_id(settings.prefect.deployment)
            yield Finding("deployment", "ok", f"{settings.prefect.deployment} is registered")
            if api.worker_is_online():
                yield Finding("worker", "ok", f"work pool {settings.prefect.work_pool} has a worker")
            else:
                remedy = f"prefect worker start --pool {settings.prefect.work_pool} (beamline-ml up starts one)"
                yield Finding("worker", "warn", f"work pool {settings.prefect.work_pool} has no worker", remedy)
        except ServiceError as error:
            yield Finding("prefect", "fail", error.culprit, error.remedy)


def check_watcher(settings: Settings) -> Iterator[Finding]:
    """Is the process that fits finished runs alive, and getting on?"""
    remedy = "beamline-ml up starts it; beside a site's own servers: beamline-ml watch"
    try:
        status = json.loads(StateDir(settings.state_dir).watcher_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        yield Finding("watcher", "warn", "no watcher works in this state directory", remedy)
        return
    busy_s = time.time() - status["since"]
    if not Path(f"/proc/{status['pid']}").exists():
        yield Finding("watcher", "fail", f"process {status['pid']} has died", remedy)
    elif status["run_uid"] is None:
        yield Finding("watcher", "ok", f"process {status['pid']} waits for runs")
    elif busy_s > _STUCK_AFTER_S:
        finding = f"has been fitting run {status['run_uid'][:8]} for {busy_s / 60:.0f} min"
        yield Finding(
            "watcher", "warn", finding, f"Look at its flow run in Prefect; kill {status['pid']} starts it anew."
        )
    else:
        yield Finding("watcher", "ok", f"is fitting run {status['run_uid'][:8]} for {busy_s:.0f} s")


def check_detector(settings: Settings) -> Iterator[Finding]:
    """Does the areaDetector IOC answer that the profile names?"""
    prefix = settings.acquisition.detector_prefix
    if not prefix:
        yield Finding("detector", "ok", "no areaDetector is named; a movie is played")
        return
    command = [sys.executable, "-m", "beamline_ml.acquisition.probe", prefix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    if done.returncode == 0:
        yield Finding("detector", "ok", f"the areaDetector IOC {prefix} answers")
    elif done.stdout.strip():
        said = json.loads(done.stdout.strip().splitlines()[-1])
        yield Finding("detector", "fail", said["culprit"], said["remedy"])
    else:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Finding("detector", "fail", f"{prefix} cannot be asked: {last}", "pip install 'beamline-ml[epics]'")


def check_data_roots(settings: Settings) -> Iterator[Finding]:
    """Can the folders be read that detector files may come from?"""
    for root in settings.allowed_roots:
        if not root.is_dir():
            remedy = "It is made with the first burst; on a real beamline, mount it or correct data.allowed_roots."
            yield Finding("data root", "warn", f"{root} is not there", remedy)
        elif not os.access(root, os.R_OK | os.X_OK):
            yield Finding("data root", "fail", f"{root} cannot be read", "Give this account the right to read it.")
        else:
            yield Finding("data root", "ok", f"{root} can be read")


def check_documents(settings: Settings) -> Iterator[Finding]:
    """Do documents wait that tiled has not taken?"""
    waiting = [path for path in waiting_journals(settings.backup_dir) if _is_left_alone(path)]
    unreadable = list((settings.backup_dir / "unreadable").glob("*.jsonl"))
    if waiting:
        remedy = "The watcher replays them as soon as tiled answers; beamline-ml watch does so at a site's own servers."
        yield Finding("documents", "warn", f"{len(waiting)} runs wait in {settings.backup_dir}", remedy)
    else:
        yield Finding("documents", "ok", "none wait for tiled")
    if unreadable:
        yield Finding(
            "documents", "warn", f"{len(unreadable)} files cannot be replayed", f"See {unreadable[0].parent}."
        )


def check_gpu(settings: Settings) -> Iterator[Finding]:
    """Is there a GPU that fits can use?"""
    program = shutil.which("nvidia-smi")
    if program is None:
        yield Finding("gpu", "ok", "none; fits run on the processor")
        return
    query = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode == 0 and done.stdout.strip():
        yield Finding("gpu", "ok", done.stdout.strip().replace("\n", "; "))
    else:
        yield Finding("gpu", "warn", "nvidia-smi fails", "Repair the driver; until then fits run on the processor.")


def _tiled_container(uri: str, path: str, status_code: int) -> Finding:
    if status_code == httpx.codes.OK:
        return Finding(f"tiled {path}", "ok", f"{uri} serves it")
    if status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return Finding(
            f"tiled {path}", "fail", f"{uri} refuses the key", "Set BEAMLINE_ML_TILED__API_KEY to a valid key."
        )
    if status_code == httpx.codes.NOT_FOUND:
        return Finding(f"tiled {path}", "warn", f"{uri} has no {path}/", "The watcher makes it when it starts.")
    return Finding(f"tiled {path}", "fail", f"{uri} answers {status_code}", "Read tiled's log.")


def _is_left_alone(path: Path) -> bool:
    with claim(path) as file:
        return file is not None


def _existing_parent(folder: Path) -> Path:
    return next(candidate for candidate in (folder.absolute(), *folder.absolute().parents) if candidate.exists())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version, for comparison."""
    parts = text.split("+")[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())

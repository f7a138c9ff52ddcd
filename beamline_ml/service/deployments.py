"""Register the flows of ``deploy/prefect.yaml`` with Prefect: ``python -m beamline_ml.service.deployments``.

The file is the declaration of record. ``prefect deploy`` of a data engineer reads the same one, and gets the same
deployments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any

import yaml

from beamline_ml.errors import BeamlineMLError, ServiceError, SettingsError
from beamline_ml.settings import Settings, load_settings, shipped_root

_POLL_S = 0.2


def declared_deployments(root: Path) -> list[dict[str, Any]]:
    """Entries of ``deploy/prefect.yaml`` under ``root``.

    Raises
    ------
    SettingsError
        When the file is missing or declares nothing.
    """
    path = root / "deploy" / "prefect.yaml"
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    except (FileNotFoundError, KeyError, TypeError, yaml.YAMLError) as error:
        raise SettingsError(f"{path} declares no deployments ({error!r}).", "Reinstall beamline-ml.") from error
    return list(entries)


async def register_deployments(settings: Settings, wait: bool = False) -> dict[str, str]:
    """Create the work pool and all declared deployments, or bring them up to date.

    Parameters
    ----------
    settings
        Where Prefect is, and the name of the work pool.
    wait
        Wait for Prefect instead of raising when it does not answer yet.

    Returns
    -------
    dict of str to str
        Deployment id by ``flow/deployment``.

    Raises
    ------
    ServiceError
        When Prefect does not answer.
    """
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: settings.prefect.api_url}):
        async with get_client() as client:
            while (failure := await client.api_healthcheck()) is not None:
                if not wait:
                    raise ServiceError(
                        f"Prefect at {settings.prefect.api_url} does not answer ({failure}).", "Start it first."
                    )
                await asyncio.sleep(_POLL_S)
            await _ensure_pool(client, settings.prefect.work_pool)
        root = shipped_root()
        return dict([await _deploy(entry, root, settings.prefect.work_pool) for entry in declared_deployments(root)])


async def _ensure_pool(client: Any, name: str) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        await client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    except ObjectAlreadyExists:
        return


async def _deploy(entry: dict[str, Any], root: Path, work_pool: str) -> tuple[str, str]:
    from prefect import Flow

    loaded: Any = await Flow.afrom_source(source=str(root), entrypoint=entry["entrypoint"])
    deployment_id = await loaded.adeploy(
        name=entry["name"],
        work_pool_name=work_pool,
        parameters=entry.get("parameters") or {},
        tags=entry.get("tags") or [],
        description=entry.get("description"),
        cron=_cron(entry),
        print_next_steps=False,
        ignore_warnings=True,
    )
    return f"{loaded.name}/{entry['name']}", str(deployment_id)


def _cron(entry: dict[str, Any]) -> str | None:
    schedules = entry.get("schedules") or []
    return schedules[0]["cron"] if schedules else None


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``python -m beamline_ml.service.deployments``."""
    parser = argparse.ArgumentParser(prog="beamline_ml.service.deployments", description=__doc__)
    parser.add_argument("--wait", action="store_true", help="wait for Prefect to come up")
    wait = parser.parse_args(arguments).wait
    try:
        for name, deployment_id in asyncio.run(register_deployments(load_settings(), wait)).items():
            print(f"{name} {deployment_id}")
    except BeamlineMLError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Containers that the chain writes to, made where they are missing."""

from __future__ import annotations

from tiled.client.container import Container
from tiled.client.utils import ClientError
from tiled.structures.core import Spec

RUNS_SPEC = Spec("CatalogOfBlueskyRuns", version="3.0")
"""Without the version, looking a run up by a part of its uid gives the wrong answer."""

_CONFLICT = 409


def open_container(client: Container, path: str, spec: Spec | None = None) -> Container:
    """Container at ``path`` below ``client``; each missing level is created, the last one with ``spec``."""
    names = [name for name in path.split("/") if name]
    for depth, name in enumerate(names, 1):
        if name not in client:
            _create(client, name, [spec] if spec and depth == len(names) else [])
        client = client[name]
    return client


def _create(parent: Container, name: str, specs: list[Spec]) -> None:
    try:
        parent.create_container(key=name, specs=specs)
    except ClientError as error:
        # Somebody else has just created it.
        if error.response.status_code != _CONFLICT:
            raise

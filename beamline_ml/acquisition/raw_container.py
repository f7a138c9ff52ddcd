"""Connect to the container that bluesky runs are written to, and make a writer for it."""

from __future__ import annotations

import copy
from typing import Any

import httpx
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri
from tiled.client.container import Container

from beamline_ml.acquisition.containers import RUNS_SPEC, open_container
from beamline_ml.errors import ServiceError
from beamline_ml.settings import Settings

_PROBE_TIMEOUT_S = 3.0


def raw_container(settings: Settings) -> Container:
    """Container ``raw/`` of the running tiled server; created when it is not there.

    Raises
    ------
    ServiceError
        When tiled does not answer within seconds.
    """
    _probe(settings.tiled.uri)
    key = settings.tiled.api_key
    client = from_uri(settings.tiled.uri, api_key=key.get_secret_value() if key else None)
    return open_container(client, settings.tiled.raw, RUNS_SPEC)


class Connection:
    """The container that runs go to, connected when it is first needed and kept until it is closed."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._container: Container | None = None

    def container(self) -> Container:
        """Container ``raw/``; raises ServiceError when tiled does not answer."""
        if self._container is None:
            self._container = raw_container(self._settings)
        return self._container

    def close(self) -> None:
        """Let go; the next use connects anew."""
        if self._container is not None:
            self._container.context.close()
            self._container = None


def run_writer(container: Container, batch_size: int) -> TiledWriter:
    """Writer of bluesky documents; ``batch_size`` 1 makes frames visible while the run goes on."""
    return TiledWriter(container, batch_size=batch_size, patches={"descriptor": one_frame_an_event})


def one_frame_an_event(descriptor: dict[str, Any]) -> dict[str, Any]:
    """Drop the leading 1 of external shapes, so that tiled registers (n, rows, cols), the shape of the HDF5 dataset.

    With (n, 1, rows, cols) tiled cannot cut a file that is ahead of the catalogue, which a growing file always is, and
    readers get an error instead of frames.
    """
    descriptor = copy.deepcopy(dict(descriptor))
    for key in descriptor["data_keys"].values():
        shape = list(key.get("shape") or [])
        if "external" in key and len(shape) == 3 and shape[0] == 1:
            key["shape"] = shape[1:]
    return descriptor


def _probe(uri: str) -> None:
    """Ask once whether tiled is there: its client would try for half a minute before it gave up."""
    try:
        # Loading certificates takes 50 ms of the interpreter that takes the data, so only where they are needed.
        certificates = uri.startswith("https")
        httpx.get(f"{uri.rstrip('/')}/healthz", timeout=_PROBE_TIMEOUT_S, verify=certificates).raise_for_status()
    except httpx.HTTPError as error:
        raise ServiceError(
            f"Tiled at {uri} does not answer ({error or type(error).__name__}).",
            "Start it with beamline-ml up; documents wait on disk until then.",
        ) from error

"""A connection to tiled for flows that work on catalogued samples."""

from __future__ import annotations

from typing import Self

import httpx
from tiled.client import from_uri

from beamline_ml.acquisition.containers import RUNS_SPEC, open_container
from beamline_ml.errors import ServiceError
from beamline_ml.results.search import knock
from beamline_ml.settings import Settings, load_settings


class SampleCatalogue:
    """Runs and samples of one tiled server, and a container for what is found out about samples.

    Parameters
    ----------
    settings
        Where tiled is.
    """

    container: str
    """Name below ``results/`` of the container of results; each kind of catalogue has its own."""

    def __init__(self, settings: Settings) -> None:
        key = settings.tiled.api_key
        self._root = from_uri(settings.tiled.uri, api_key=key.get_secret_value() if key else None)
        self._raw = open_container(self._root, settings.tiled.raw, RUNS_SPEC)
        self.results = open_container(self._root, f"{settings.tiled.results}/{self.container}")

    @classmethod
    def open(cls, patient: bool = True) -> Self:
        """Connect with the settings of profile and environment.

        Parameters
        ----------
        patient
            Try again for half a minute where nobody listens, as a flow does. A person is told at once.

        Raises
        ------
        ServiceError
            When tiled does not answer.
        """
        settings = load_settings()
        try:
            if not patient:
                knock(settings.tiled.uri)
            return cls(settings)
        except (OSError, httpx.HTTPError) as error:
            raise ServiceError(
                f"tiled at {settings.tiled.uri} does not answer ({error!r}).", "Start it; beamline-ml doctor says more."
            ) from error

    def close(self) -> None:
        """Close the connection."""
        self._root.context.close()

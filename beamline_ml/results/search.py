"""Find results by sample, scan, time and status."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tiled.client import from_uri
from tiled.client.container import Container
from tiled.queries import Key, Like

from beamline_ml.errors import ResultError
from beamline_ml.results.client import XPCSFit

COMPLETE = "complete"

_KNOCK_S = 5.0


class Results:
    """Results of one beamline; iterating gives the complete ones, the latest run first.

    Parameters
    ----------
    container
        tiled's client of ``results/``.
    """

    def __init__(self, container: Container) -> None:
        self.container = container

    def close(self) -> None:
        """Close the connection; results that were found can fetch nothing more."""
        self.container.context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Results {self.container.uri}: {len(self.container)} entries>"

    def __len__(self) -> int:
        return len(self.container.search(Key("status") == COMPLETE))

    def __iter__(self) -> Iterator[XPCSFit]:
        return iter(self.search())

    def __getitem__(self, key: str) -> XPCSFit:
        """The result with this key in ``results/``."""
        try:
            return self.container[key]  # type: ignore[no-any-return]
        except KeyError:
            raise ResultError(f"There is no result {key!r}.", "List what there is with search().") from None

    def search(
        self,
        sample: str | None = None,
        scan: int | str | None = None,
        since: datetime | float | None = None,
        until: datetime | float | None = None,
        status: str | None = COMPLETE,
    ) -> list[XPCSFit]:
        """Results that match, the latest run first.

        Parameters
        ----------
        sample
            Name of the sample; ``%`` stands for anything, as in ``"silica%"``.
        scan
            Scan id, uid, or the first characters of a uid.
        since, until
            Range of the start times of the runs (datetime, or seconds since the epoch).
        status
            'complete', 'failed' or 'writing'; None for any.
        """
        found: Any = self.container.search(Key("technique") == "xpcs")
        if status is not None:
            found = found.search(Key("status") == status)
        if sample is not None:
            found = found.search(Like("sample.name", sample) if "%" in sample else Key("sample.name") == sample)
        if scan is not None:
            found = found.search(_scan_query(scan))
        if since is not None:
            found = found.search(Key("run_time") >= _seconds(since))
        if until is not None:
            found = found.search(Key("run_time") < _seconds(until))
        return sorted(found.values(), key=_latest_first)

    def of_run(self, run: int | str) -> list[XPCSFit]:
        """Every result of a run, of any status and under any settings: complete ones first, then the latest."""
        rank = {COMPLETE: 0, "writing": 1, "failed": 2}
        return sorted(self.search(scan=run, status=None), key=lambda result: rank.get(result.status, 3))

    def latest(self, **criteria: Any) -> XPCSFit:
        """The complete result of the latest run that matches (see :meth:`search`).

        Raises
        ------
        ResultError
            When nothing matches.
        """
        found = self.search(**criteria)
        if not found:
            asked = ", ".join(f"{name}={value!r}" for name, value in criteria.items()) or "anything"
            raise ResultError(
                f"There is no complete result for {asked}.",
                "Look for failed ones with search(status='failed'); `beamline-ml doctor` checks the chain.",
            )
        return found[0]


def _scan_query(scan: int | str) -> Any:
    text = str(scan).strip()
    if text.isdecimal() and len(text) < 8:
        return Key("scan_id") == int(text)
    return Key("scan_uid") == text if len(text) == 36 else Like("scan_uid", f"{text.replace('%', '')}%")


def _seconds(moment: datetime | float) -> float:
    return moment.timestamp() if isinstance(moment, datetime) else float(moment)


def _latest_first(result: XPCSFit) -> tuple[float, float]:
    return -float(result.metadata.get("run_time") or 0.0), -float(result.metadata.get("published_at") or 0.0)


def open_results(uri: str | None = None, api_key: str | None = None, path: str | None = None) -> Results:
    """Connect to the results of a beamline.

    Parameters
    ----------
    uri
        Address of the tiled server; None takes it, the key and the path from the settings (profile, environment, or
        the stack that ``beamline-ml up`` runs).
    api_key
        Key; None asks the settings, then tiled's own ways (``TILED_API_KEY``, login).
    path
        Container of the results on that server.

    Raises
    ------
    ResultError
        When the server does not answer or has no results yet.
    """
    uri, api_key, path = _from_settings(uri, api_key, path)
    node: Any = _connect(uri, api_key)
    for name in path.split("/"):
        if name not in node:
            node.context.close()
            raise ResultError(
                f"The tiled server at {uri} has no {path}.", "Nothing has been published yet, or the path is another."
            )
        node = node[name]
    return Results(node)


def _from_settings(uri: str | None, api_key: str | None, path: str | None) -> tuple[str, str | None, str]:
    if uri is not None:
        return uri, api_key, path or "results"
    from beamline_ml.settings import load_settings

    tiled = load_settings().tiled
    known_key = tiled.api_key.get_secret_value() if tiled.api_key else None
    return tiled.uri, api_key or known_key, path or tiled.results


def _connect(uri: str, api_key: str | None) -> Any:
    import httpx

    try:
        knock(uri)
        return from_uri(uri, api_key=api_key)
    except (OSError, httpx.HTTPError) as error:
        raise ResultError(
            f"The tiled server at {uri} does not answer: {error}.",
            "Check the address and the key; `beamline-ml doctor` says more on the beamline's machine.",
        ) from error


def knock(uri: str) -> None:
    """Fail at once where nobody listens; tiled's client would try again for half a minute first.

    Raises
    ------
    OSError
        When no connection can be made.
    """
    address = urlsplit(uri)
    port = address.port or (443 if address.scheme == "https" else 80)
    socket.create_connection((address.hostname or "", port), timeout=_KNOCK_S).close()

"""Tiled with a server that answers sooner: ``python -m beamline_ml.service.tiled_server CATALOG serve ...``.

Tiled overrides one dependency of its FastAPI application, and with any override in place FastAPI inspects the
signatures of all dependencies anew in each request. What is inspected does not change while the server runs, so it is
done once.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi.dependencies import utils as fastapi_dependencies

T = TypeVar("T")


def remembering(build: Callable[..., T]) -> Callable[..., T]:
    """``build``, called once per set of keyword arguments; lists among them count by what they hold."""
    built: dict[tuple[Any, ...], T] = {}

    @functools.wraps(build)
    def build_once(**arguments: Any) -> T:
        key = tuple((name, _hashable(value)) for name, value in sorted(arguments.items()))
        if key not in built:
            built[key] = build(**arguments)
        return built[key]

    return build_once


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def inspect_once() -> None:
    """Have FastAPI inspect each dependency once in this process."""
    fastapi_dependencies.get_dependant = remembering(fastapi_dependencies.get_dependant)


def make_catalog(uri: str) -> None:
    """Make the catalogue's tables where there are none, in this process: tiled would start another one for it."""
    from tiled.commandline.main import cli_app

    cli_app(["catalog", "init", "--if-not-exists", uri], standalone_mode=False)


def main(catalog_uri: str, arguments: list[str]) -> None:
    """Run tiled's command line with these arguments, the catalogue being there."""
    from tiled.commandline.main import cli_app

    make_catalog(catalog_uri)
    inspect_once()
    cli_app(arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

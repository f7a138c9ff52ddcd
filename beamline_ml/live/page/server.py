"""Serve the live page: ``beamline-ml view``, or ``python -m beamline_ml.live.page.server``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import Server

from beamline_ml.errors import BeamlineMLError, ServiceError
from beamline_ml.live.page.document import Page
from beamline_ml.live.page.poller import Poller
from beamline_ml.service.ports import LOOPBACK
from beamline_ml.settings import Settings, load_settings


class PageServer:
    """The page on a port of this machine. Scripts and styles come from the server itself, not from the internet.

    Parameters
    ----------
    settings
        Where tiled and Prefect are.
    port
        0 takes any free port.
    host
        Address to listen on.
    origins
        ``host:port`` under which browsers reach the page, where that differs (a proxy).

    Raises
    ------
    ServiceError
        When the port is taken.
    """

    def __init__(self, settings: Settings, port: int = 0, host: str = LOOPBACK, origins: Sequence[str] = ()) -> None:
        self.poller = Poller(settings)
        links = {"tiled": settings.tiled.uri, "Prefect": settings.prefect.api_url.removesuffix("/api")}
        application = Application(FunctionHandler(lambda document: Page(self.poller, links).attach(document)))
        try:
            self.server = Server(
                {"/": application}, port=port, address=host, allow_websocket_origin=_origins(port, origins)
            )
        except OSError as error:
            raise ServiceError(f"Port {port} of {host} is taken.", "Choose another with --port.") from error
        self.uri = f"http://{host}:{self.server.port}"

    def run(self) -> None:
        """Serve until the process ends."""
        self.poller.start()
        self.server.start()
        self.server.io_loop.start()


def _origins(port: int, origins: Sequence[str]) -> list[str] | None:
    if port == 0 and not origins:
        return ["*"]  # only this machine can connect, under a port that is not known yet
    return [*(f"{name}:{port}" for name in (LOOPBACK, "localhost")), *origins]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m beamline_ml.live.page.server``."""
    parser = argparse.ArgumentParser(prog="beamline_ml.live.page.server", description=__doc__)
    parser.add_argument("--port", type=int, default=5006)
    parser.add_argument("--host", default=LOOPBACK)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        PageServer(load_settings(), options.port, options.host).run()
    except BeamlineMLError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

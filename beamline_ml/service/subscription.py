"""Receive tiled's stream until somebody disconnects, and leave no connection behind."""

from __future__ import annotations

import logging
from typing import Any

import httpx
from websockets.exceptions import WebSocketException

_log = logging.getLogger(__name__)


def receive(subscription: Any, **options: Any) -> None:
    """Run a tiled subscription in this thread until it is disconnected or tiled stays away.

    Parameters
    ----------
    subscription
        What ``container.subscribe()`` or ``array.subscribe()`` returned.
    options
        Handed on to its ``start``.
    """
    try:
        subscription.start(**options)
    except (OSError, WebSocketException, httpx.HTTPError) as error:
        _log.warning("tiled's stream ended: %s", error)
    finally:
        # Tiled forgets a connection that is made while disconnect() is called, and its socket would stay open.
        connection = getattr(subscription._websocket, "_websocket", None)
        if connection is not None:
            connection.close()

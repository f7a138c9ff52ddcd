"""Reserve loopback ports for servers that are not started yet, without a race."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


def reserve_port(preferred: int) -> socket.socket:
    """Bind a loopback port that the calling process keeps while a server of its own listens on it.

    The socket never listens. It is bound alone, so that two stacks that start together never reserve the same port;
    ``SO_REUSEADDR``, set afterwards, lets a server bind beside it and listen. When that server dies, clients are
    refused at once, yet nobody is given the port while the reservation lives.

    Parameters
    ----------
    preferred
        Port to take when it is free; otherwise the system picks another.
    """
    for port in (preferred, 0):
        reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            reservation.bind((LOOPBACK, port))
        except OSError:
            reservation.close()
            continue
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return reservation
    raise OSError("The system has no free loopback port.")


def free_port(preferred: int) -> int:
    """The preferred port when nobody has it, else another one."""
    with reserve_port(preferred) as reservation:
        return port_of(reservation)


def port_of(reservation: socket.socket) -> int:
    """Number of a reserved port."""
    return int(reservation.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether nobody listens on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) != 0

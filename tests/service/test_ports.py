"""Reserved ports: kept from others, free for our own server, refused when that server is dead."""

from __future__ import annotations

import socket

import pytest

from beamline_ml.service.ports import LOOPBACK, is_free, port_of, reserve_port


def listen_on(port: int) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((LOOPBACK, port))
    server.listen()
    return server


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    with reserve_port(0) as first, listen_on(port_of(first)), reserve_port(port_of(first)) as second:
        assert port_of(second) != port_of(first)


def test_a_server_may_come_and_go_on_a_reserved_port() -> None:
    with reserve_port(0) as reservation:
        port = port_of(reservation)
        for _ in range(2):
            assert is_free(port)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((LOOPBACK, port), timeout=1.0)
            with listen_on(port), socket.create_connection((LOOPBACK, port), timeout=1.0):
                assert not is_free(port)


def test_nobody_is_given_a_reserved_port() -> None:
    with reserve_port(0) as reservation:
        for _ in range(2000):
            with socket.socket() as other:
                other.bind((LOOPBACK, 0))
                assert other.getsockname()[1] != port_of(reservation)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((LOOPBACK, port_of(reservation)))


def test_two_stacks_never_reserve_the_same_port():
    with reserve_port(0) as first, reserve_port(port_of(first)) as second:
        assert port_of(first) != port_of(second)

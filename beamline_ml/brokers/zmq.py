"""Documents over 0MQ: straight from the RunEngine, acknowledged, or from bluesky's proxy, not acknowledged."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgpack
import zmq

from beamline_ml.brokers.connect import wrong_position
from beamline_ml.brokers.protocol import BATCH, Message
from beamline_ml.errors import ServiceError
from beamline_ml.settings import DocumentsSettings

_ADDRESS = "tcp://127.0.0.1:5579"
_PROXY_ADDRESS = "tcp://127.0.0.1:5578"
_TIMEOUT_S = 5.0


class ZmqSource:
    """A socket that publishers connect to; each message is answered with its number once it is on disk."""

    def __init__(self, settings: DocumentsSettings, first: str | None = None) -> None:
        _refuse_position(first)
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, BATCH)
        self._socket.setsockopt(zmq.MAXMSGSIZE, int(settings.max_message_mib * 2**20) + 1)
        address = settings.address or _ADDRESS
        with _or_away(address):
            self._socket.bind(address)

    def receive(self, timeout_s: float) -> Sequence[Message]:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        return [
            Message(frames[-1], token=frames[:2] if len(frames) == 3 else None)
            for frames in _received(self._socket, timeout_s)
        ]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        for message in messages:
            if message.token is not None:
                self._socket.send_multipart(message.token)

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        self._socket.setsockopt(zmq.LINGER, 1000)  # answers that are on their way
        self._socket.close()


class ZmqSink:
    """Sends to the writer's socket and waits for its answers."""

    def __init__(self, settings: DocumentsSettings) -> None:
        self._address = settings.address or _ADDRESS
        self._numbers = itertools.count()
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        with _or_away(self._address):
            self._socket.connect(self._address)

    def send(self, run_uid: str, messages: Sequence[bytes]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        waiting = set()
        with _or_away(self._address):
            for data in messages:
                number = b"%d" % next(self._numbers)
                self._socket.send_multipart([number, data], flags=zmq.NOBLOCK)
                waiting.add(number)
            deadline = time.monotonic() + _TIMEOUT_S
            while waiting and self._socket.poll(max(0, int(1000 * (deadline - time.monotonic())))):
                waiting.discard(self._socket.recv_multipart()[0])
        if waiting:
            raise _away(self._address, "no acknowledgement")

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        self._socket.close()


class ProxySource:
    """Subscribes to ``bluesky-0MQ-proxy``, as bluesky's own RemoteDispatcher does, with a serializer that is safe.

    Publishers must be made with ``serializer=msgpack.dumps``, or one that gives JSON.
    """

    def __init__(self, settings: DocumentsSettings, first: str | None = None) -> None:
        _refuse_position(first)
        self._prefix = settings.prefix.encode()
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)  # nobody keeps for us what is dropped
        self._socket.setsockopt(zmq.SUBSCRIBE, self._prefix)
        address = settings.address or _PROXY_ADDRESS
        with _or_away(address):
            self._socket.connect(address)

    def receive(self, timeout_s: float) -> Sequence[Message]:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        framed = [b"".join(frames) for frames in _received(self._socket, timeout_s)]
        return [Message(message) for data in framed if (message := self._unframed(data)) is not None]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Nothing: the proxy has forgotten them."""

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        self._socket.close()

    def _unframed(self, data: bytes) -> bytes | None:
        """``prefix name document`` as an array of name and document; as it came where it is nothing of the kind."""
        prefix, *rest = data.split(b" ", 2)
        if self._prefix and prefix != self._prefix:
            return None
        if len(rest) != 2:
            return data
        name, document = rest
        if document.lstrip()[:1] == b"{":
            return b"[%s, %s]" % (json.dumps(name.decode(errors="replace")).encode(), document)
        return msgpack.Packer().pack_array_header(2) + msgpack.packb(name.decode(errors="replace")) + document


def _received(socket: zmq.Socket[bytes], timeout_s: float) -> list[list[bytes]]:
    received: list[list[bytes]] = []
    wait_ms = int(1000 * timeout_s)
    while len(received) < BATCH and socket.poll(wait_ms):
        received.append(socket.recv_multipart())
        wait_ms = 0
    return received


def _refuse_position(first: str | None) -> None:
    if first is not None:
        raise wrong_position("0MQ, which keeps nothing", first, "4711 with a broker that keeps messages")


@contextmanager
def _or_away(address: str) -> Iterator[None]:
    try:
        yield
    except zmq.ZMQError as error:
        raise _away(address, error) from error


def _away(address: str, error: object) -> ServiceError:
    return ServiceError(
        f"0MQ at {address} does not work ({error}).",
        "Look whether write-documents runs, and at documents.address; documents wait on disk until then.",
    )

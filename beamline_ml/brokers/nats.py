"""Documents through NATS JetStream."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import nats
from nats.aio.client import Client
from nats.errors import Error
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import NotFoundError

from beamline_ml.brokers.connect import too_large, wrong_position
from beamline_ml.brokers.protocol import BATCH, Message
from beamline_ml.errors import ServiceError
from beamline_ml.settings import DocumentsSettings

_ADDRESS = "nats://127.0.0.1:4222"
_TIMEOUT_S = 5.0
_ACK_WAIT_S = 60.0
_TRY_AGAIN_S = 1
_T = TypeVar("_T")


class _Connection:
    """A connection whose event loop has a thread of its own, so that the server's pings are answered between calls."""

    def __init__(self, settings: DocumentsSettings) -> None:
        self._settings = settings
        self._address = settings.address or _ADDRESS
        self._client = Client()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="nats", daemon=True)
        self._thread.start()
        try:
            self.jetstream = self.call(self._connect())
        except BaseException:
            self._end_loop()
            raise

    def call(self, coroutine: Coroutine[Any, Any, _T], timeout_s: float = 2 * _TIMEOUT_S) -> _T:
        """Result of a coroutine; ServiceError for all that goes wrong with the server."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except (Error, OSError, TimeoutError) as error:
            future.cancel()
            where = ", ".join(part.rsplit("@", 1)[-1] for part in self._address.split(","))
            raise ServiceError(
                f"NATS at {where} does not answer as it should ({str(error) or type(error).__name__}).",
                "Look whether it runs with JetStream (-js), and at documents.address, user and password; documents "
                "wait on disk until then.",
            ) from error

    def close(self) -> None:
        """Let go, whether the server answers or not."""
        try:
            if not self._client.is_closed:
                self.call(self._client.close())
        finally:
            self._end_loop()

    @property
    def max_bytes(self) -> int:
        """The largest message that the server takes."""
        return int(self._client.max_payload)

    async def _connect(self) -> JetStreamContext:
        password = self._settings.password
        options: dict[str, Any] = {
            "user": self._settings.user,
            "password": password.get_secret_value() if password else None,
            "tls": ssl.create_default_context(cafile=self._settings.tls_ca) if self._settings.tls_ca else None,
        }
        # A lost connection is an error here: who opens anew looks up how far it had come.
        await self._client.connect(
            self._address.split(","),
            connect_timeout=int(_TIMEOUT_S),
            allow_reconnect=False,
            max_reconnect_attempts=1,  # the first connection is tried for ever otherwise
            reconnect_time_wait=_TRY_AGAIN_S,
            error_cb=_ignore,
            **{name: value for name, value in options.items() if value is not None},
        )
        jetstream = self._client.jetstream(timeout=_TIMEOUT_S)
        await _make_stream(jetstream, self._settings)
        return jetstream

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()


async def _ignore(error: Exception) -> None:
    """Whoever calls next gets this error; the library would log it as well."""


async def _make_stream(jetstream: JetStreamContext, settings: DocumentsSettings) -> None:
    try:
        await jetstream.stream_info(settings.stream)
    except NotFoundError:
        stream = StreamConfig(name=settings.stream, subjects=[settings.stream], max_msgs=settings.keep_messages)
        await jetstream.add_stream(stream)


class NatsSource:
    """Pulls from a durable consumer.

    JetStream gives what was not acknowledged again only after a minute, and later messages before it. Order matters
    here, so the consumer is made anew behind the last acknowledged message whenever something is unacknowledged.
    """

    def __init__(self, settings: DocumentsSettings, first: str | None = None) -> None:
        self._stream, self._group = settings.stream, settings.group
        if first is not None and first != "first" and not first.isdecimal():
            raise wrong_position("JetStream", first, "4711 (the stream's sequence number)")
        self._connection = _Connection(settings)
        self._delivered: int | None = None
        try:
            self._subscription = self._connection.call(self._subscribe(first))
        except BaseException:
            self._connection.close()
            raise

    def receive(self, timeout_s: float) -> Sequence[Message]:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        received = self._connection.call(self._fetch(timeout_s), timeout_s + 2 * _TIMEOUT_S)
        for message in received:
            self._check_order(message.metadata.sequence.consumer)
        return [Message(message.data, str(message.metadata.sequence.stream), message) for message in received]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        self._connection.call(messages[-1].token.ack_sync(timeout=_TIMEOUT_S))

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        self._connection.close()

    def _check_order(self, delivery: int) -> None:
        if self._delivered is not None and delivery != self._delivered + 1:
            raise ServiceError("NATS lost messages on their way here.", "Nothing to do: they are asked for again.")
        self._delivered = delivery

    async def _fetch(self, timeout_s: float) -> list[Any]:
        try:
            return await self._subscription.fetch(BATCH, timeout=timeout_s)
        except nats.errors.TimeoutError:
            return []

    async def _subscribe(self, first: str | None) -> Any:
        jetstream = self._connection.jetstream
        sequence = await self._first_sequence(first)
        if sequence is not None:
            await jetstream.add_consumer(self._stream, _consumer(self._group, self._stream, sequence))
        return await jetstream.pull_subscribe_bind(self._group, self._stream)

    async def _first_sequence(self, first: str | None) -> int | None:
        """Where to make the consumer anew; None to go on with the one there is."""
        jetstream = self._connection.jetstream
        try:
            info = await jetstream.consumer_info(self._stream, self._group)
        except NotFoundError:
            return 1 if first in (None, "first") else int(first or 1)
        if first is None and not info.num_ack_pending:
            return None
        await jetstream.delete_consumer(self._stream, self._group)
        if first is not None:
            return 1 if first == "first" else int(first)
        acknowledged = info.ack_floor.stream_seq if info.ack_floor else 0
        return int(acknowledged or 0) + 1


def _consumer(group: str, stream: str, sequence: int) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=group,
        filter_subject=stream,
        ack_policy=AckPolicy.ALL,
        ack_wait=_ACK_WAIT_S,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(sequence, 1),
    )


class NatsSink:
    """Publishes to the stream's subject and waits until the stream has stored each."""

    def __init__(self, settings: DocumentsSettings) -> None:
        self._stream = settings.stream
        self._connection = _Connection(settings)

    def send(self, run_uid: str, messages: Sequence[bytes]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        # One after the other: of several on their way at once a later one may arrive and an earlier one not.
        for data in messages:
            if len(data) > self._connection.max_bytes:
                raise too_large("NATS", len(data), "max_payload")
            self._connection.call(self._connection.jetstream.publish(self._stream, data, stream=self._stream))

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        self._connection.close()

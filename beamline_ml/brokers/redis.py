"""Documents through a Redis stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from beamline_ml.brokers.connect import wrong_position
from beamline_ml.brokers.protocol import BATCH, Message
from beamline_ml.errors import ServiceError
from beamline_ml.settings import DocumentsSettings

_ADDRESS = "redis://127.0.0.1:6379"
_FIELD = b"document"
_CONSUMER = "writer"
_TIMEOUT_S = 5.0
_LARGEST_SEQUENCE = 2**64 - 1


class RedisSource:
    """Reads the stream as the only consumer of its group; what it did not acknowledge comes first, in order."""

    def __init__(self, settings: DocumentsSettings, first: str | None = None) -> None:
        self._stream, self._group, self._address = settings.stream, settings.group, _address(settings)
        before = None if first is None else _before(first)
        self._client = _client(settings)
        with _or_away(self._address):
            self._make_group(before)
        self._next = "0"

    def receive(self, timeout_s: float) -> Sequence[Message]:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        with _or_away(self._address):
            entries = self._read(self._next, None if self._next == "0" else int(1000 * timeout_s))
            if self._next == "0" and not entries:
                self._next = ">"
                return ()
        return [Message((fields or {}).get(_FIELD, b""), key.decode(), key) for key, fields in entries]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        with _or_away(self._address):
            self._client.xack(self._stream, self._group, *(message.token for message in messages))

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        self._client.close()

    def _make_group(self, before: str | None) -> None:
        if before is not None and self._client.exists(self._stream):
            self._client.xgroup_destroy(self._stream, self._group)
        try:
            self._client.xgroup_create(self._stream, self._group, id=before or "0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def _read(self, after: str, block_ms: int | None) -> list[tuple[bytes, dict[bytes, bytes] | None]]:
        reply: Any = self._client.xreadgroup(self._group, _CONSUMER, {self._stream: after}, count=BATCH, block=block_ms)
        streams = list(reply.values()) if isinstance(reply, dict) else [entries for _, entries in reply or ()]
        entries = streams[0] if streams else []
        return entries[0] if entries and isinstance(entries[0], list) else entries


class RedisSink:
    """Adds to the stream; the server must write its append-only file to survive a fall of its machine."""

    def __init__(self, settings: DocumentsSettings) -> None:
        self._stream, self._keep, self._address = settings.stream, settings.keep_messages, _address(settings)
        self._client = _client(settings)

    def send(self, run_uid: str, messages: Sequence[bytes]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        with _or_away(self._address), self._client.pipeline(transaction=True) as pipeline:
            for data in messages:
                pipeline.xadd(self._stream, {_FIELD: data}, maxlen=self._keep, approximate=True)
            pipeline.execute()

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        self._client.close()


def _address(settings: DocumentsSettings) -> str:
    return settings.address or _ADDRESS


def _client(settings: DocumentsSettings) -> Any:
    given = {
        "username": settings.user,
        "password": settings.password.get_secret_value() if settings.password else None,
        "ssl_ca_certs": str(settings.tls_ca) if settings.tls_ca else None,
    }
    options = {name: value for name, value in given.items() if value is not None}
    return redis.Redis.from_url(
        _address(settings), socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, **options
    )


def _before(first: str) -> str:
    """The largest position before this one: groups begin after the one they are given."""
    if first == "first":
        return "0"
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", first)
    if match is None:
        raise wrong_position("a Redis stream", first, "1764046800000-0")
    milliseconds, sequence = int(match[1]), int(match[2] or 0)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{_LARGEST_SEQUENCE}" if milliseconds else "0"


@contextmanager
def _or_away(address: str) -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        where = address.rsplit("@", 1)[-1]  # without a password that the address may hold
        raise ServiceError(
            f"Redis at {where} does not answer as it should ({error or type(error).__name__}).",
            "Look whether it runs, and at documents.address, user and password; documents wait on disk until then.",
        ) from error

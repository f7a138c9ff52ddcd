"""The adapter that the settings ask for; a broker's client library is imported only where it is used."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from beamline_ml.brokers.protocol import Sink, Source
from beamline_ml.errors import DocumentRefused, SettingsError
from beamline_ml.settings import DocumentsSettings

_ROOMS = {
    "nats": ("nats", "NatsSource", "NatsSink"),
    "kafka": ("kafka", "KafkaSource", "KafkaSink"),
    "redis": ("redis", "RedisSource", "RedisSink"),
    "zmq": ("zmq", "ZmqSource", "ZmqSink"),
    "zmq-proxy": ("zmq", "ProxySource", None),
}


def open_source(settings: DocumentsSettings, first: str | None = None) -> Source:
    """Connect to where documents come from.

    Parameters
    ----------
    settings
        Which broker, and where.
    first
        Position to read from; ``first`` means the oldest message there is, None goes on after the last acknowledged.

    Raises
    ------
    ServiceError
        When the broker does not answer.
    SettingsError
        When its client library is not installed, or the position is none of this broker.
    """
    module, source, _ = _ROOMS[settings.kind]
    return cast(Source, _adapter(settings.kind, module, source)(settings, first))


def open_sink(settings: DocumentsSettings) -> Sink:
    """Connect to where documents go; raises as :func:`open_source` does."""
    return cast(Sink, check_sink(settings)(settings))


def check_sink(settings: DocumentsSettings) -> type:
    """Adapter that sends documents, without connecting it; raises SettingsError where there is none."""
    module, _, sink = _ROOMS[settings.kind]
    if sink is None:
        raise SettingsError(
            "bluesky's 0MQ proxy loses documents while nobody listens, and nobody could know.",
            'Set documents.kind to "zmq" on both sides: the writer then acknowledges each document.',
        )
    return _adapter(settings.kind, module, sink)


def _adapter(kind: str, module: str, name: str) -> type:
    try:
        return cast(type, getattr(import_module(f"beamline_ml.brokers.{module}"), name))
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"documents.kind is {kind}, and {error.name} is not installed.",
            f"pip install 'beamline-ml[{module}]'",
        ) from error


def wrong_position(kind: str, first: str, example: str) -> SettingsError:
    """What to raise for a position that is none of this broker."""
    return SettingsError(f"{first!r} is no position in {kind}.", f"Give first, or one like {example}.")


def too_large(who: str, size_bytes: int, setting: str) -> DocumentRefused:
    """What to raise for a message that ``who`` never takes."""
    return DocumentRefused(
        f"A document of {size_bytes} bytes is more than {who} takes.",
        f"Raise {setting}, or keep arrays out of documents; the run's documents stay on disk.",
    )

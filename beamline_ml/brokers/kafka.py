"""Documents through Kafka, or what speaks its protocol."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from beamline_ml.brokers.connect import too_large, wrong_position
from beamline_ml.brokers.protocol import BATCH, Message
from beamline_ml.errors import ServiceError
from beamline_ml.settings import DocumentsSettings

_ADDRESS = "127.0.0.1:9092"
_TIMEOUT_S = 5.0
_GATHER_S = 0.005
# The client goes on connecting by itself.
_HARMLESS = (KafkaError._PARTITION_EOF, KafkaError._TRANSPORT)


class KafkaSource:
    """Reads all partitions that the topic has now; the group's committed offsets say how far it has come.

    It takes the partitions without joining the group, so that one that is started again need not wait until the broker
    has given up the one that died.
    """

    def __init__(self, settings: DocumentsSettings, first: str | None = None) -> None:
        self._topic = settings.stream
        offsets: dict[int | None, int] = {None: OFFSET_STORED} if first is None else _offsets(first)
        self._address = settings.address or _ADDRESS
        self._consumer = Consumer(
            {
                **_client(settings),
                "group.id": settings.group,
                "enable.auto.commit": "false",
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": "true",
            }
        )
        self._consumer.assign(self._partitions(offsets))

    def receive(self, timeout_s: float) -> Sequence[Message]:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        message = self._consumer.poll(timeout_s)
        if message is None:
            return ()
        received = [message, *self._consumer.consume(BATCH - 1, _GATHER_S)]
        for one in received:
            _raise_if_bad(one.error(), self._address)
        return [
            Message(one.value() or b"", f"{one.partition()}:{one.offset()}", (one.partition(), one.offset()))
            for one in received
            if one.error() is None
        ]

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        ends: dict[int, int] = {}
        for message in messages:
            partition, offset = message.token
            ends[partition] = max(offset + 1, ends.get(partition, 0))
        try:
            offsets = [TopicPartition(self._topic, partition, end) for partition, end in ends.items()]
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise _away(self._address, error) from error

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Source`."""
        self._consumer.close()

    def _partitions(self, offsets: dict[int | None, int]) -> list[TopicPartition]:
        try:
            topic = self._consumer.list_topics(self._topic, timeout=_TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise _away(self._address, error) from error
        if topic.error is not None:
            raise _away(self._address, topic.error)
        every = offsets.get(None, OFFSET_STORED)
        return [TopicPartition(self._topic, number, offsets.get(number, every)) for number in topic.partitions]


class KafkaSink:
    """Produces to the topic, all documents of a run to one partition, and waits until the broker has them."""

    def __init__(self, settings: DocumentsSettings) -> None:
        self._topic = settings.stream
        self._address = settings.address or _ADDRESS
        self._failures: list[KafkaError] = []
        reliable = {"acks": "all", "enable.idempotence": "true", "message.timeout.ms": str(int(1000 * _TIMEOUT_S))}
        self._producer = Producer({**_client(settings), **reliable, "linger.ms": "0"})

    def send(self, run_uid: str, messages: Sequence[bytes]) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        self._failures.clear()
        try:
            for data in messages:
                self._producer.produce(self._topic, value=data, key=run_uid.encode(), on_delivery=self._on_delivery)
            remaining = self._producer.flush(2 * _TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            self._producer.purge()
            if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise too_large("Kafka", max(map(len, messages)), "message.max.bytes") from error
            raise _away(self._address, error) from error
        if remaining or self._failures:
            self._producer.purge()
            raise _away(self._address, self._failures[0] if self._failures else "no acknowledgement")

    def close(self) -> None:
        """See :class:`beamline_ml.brokers.protocol.Sink`."""
        self._producer.purge()
        self._producer.flush(_TIMEOUT_S)

    def _on_delivery(self, error: KafkaError | None, message: object) -> None:
        if error is not None:
            self._failures.append(error)


def _client(settings: DocumentsSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap.servers": settings.address or _ADDRESS,
        "error_cb": lambda error: None,  # told again by the call that suffers from it
    }
    if settings.tls_ca is not None:
        options |= {"security.protocol": "ssl", "ssl.ca.location": str(settings.tls_ca)}
    if settings.user is not None and settings.password is not None:
        options |= {
            "security.protocol": "sasl_ssl",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": settings.user,
            "sasl.password": settings.password.get_secret_value(),
        }
    return options | {name: value.get_secret_value() for name, value in settings.kafka.items()}


def _offsets(first: str) -> dict[int | None, int]:
    """Offset of each partition that is named; that of all others under None."""
    if first == "first":
        return {None: OFFSET_BEGINNING}
    if not re.fullmatch(r"\d+|\d+:\d+(,\d+:\d+)*", first):
        raise wrong_position("Kafka", first, "4711 (in all partitions) or 0:4711,1:4720")
    if first.isdecimal():
        return {None: int(first)}
    return {int(partition): int(offset) for partition, offset in (part.split(":") for part in first.split(","))}


def _raise_if_bad(error: KafkaError | None, address: str) -> None:
    if error is not None and error.code() not in _HARMLESS:
        raise _away(address, error)


def _away(address: str, error: object) -> ServiceError:
    return ServiceError(
        f"Kafka at {address} does not answer as it should ({error}).",
        "Look whether it runs, and at documents.address, user and password; documents wait on disk until then.",
    )

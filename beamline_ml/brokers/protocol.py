"""What beamline-ml asks of a message broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

BATCH = 200
"""Most messages that are taken, written to disk and acknowledged at once."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came.

    Attributes
    ----------
    data
        Its bytes.
    position
        Where it lies in the broker's stream, in the broker's own words; empty where the broker keeps nothing.
    token
        What the adapter needs to acknowledge it.
    """

    data: bytes
    position: str = ""
    token: Any = field(default=None, repr=False)


class Source(Protocol):
    """Where messages come from, in order, each at least once; ServiceError says that the broker is away."""

    def receive(self, timeout_s: float) -> Sequence[Message]:
        """The next messages; none when there is none for ``timeout_s`` seconds."""
        ...

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Say that all that ``receive`` gave last (``messages``, not empty) need not come again."""
        ...

    def close(self) -> None:
        """Let go of the broker; what was not acknowledged comes again to the next one who opens it."""
        ...


class Sink(Protocol):
    """Where messages go."""

    def send(self, run_uid: str, messages: Sequence[bytes]) -> None:
        """Return when the broker has all of these, in this order; a ServiceError means that it may have some.

        DocumentRefused says that it will never take one of them.
        """
        ...

    def close(self) -> None:
        """Let go of the broker."""
        ...

"""Bluesky documents through a message broker: sent by the RunEngine, written to tiled by a process of its own.

NATS JetStream, Kafka, Redis streams and 0MQ are adapters of one small protocol; nothing behind tiled knows which of
them it was. A document is acknowledged when it lies in a journal on the writer's disk, and the journal stays until
tiled has the whole run, so any of the processes may die at any time. What comes twice is written once.

Like :mod:`beamline_ml.acquisition` this room imports neither prefect nor torch.
"""

from beamline_ml.brokers.protocol import Message, Sink, Source
from beamline_ml.brokers.publish import BrokerPublication, subscribe_broker
from beamline_ml.brokers.writer import write_documents

__all__ = ["BrokerPublication", "Message", "Sink", "Source", "subscribe_broker", "write_documents"]

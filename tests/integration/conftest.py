"""A real Kafka for the one test of this folder that uses it."""

from tests.kafka.fixtures import kafka, kafka_bootstrap

__all__ = ["kafka", "kafka_bootstrap"]

"""A real Kafka for the tests of this folder."""

from tests.kafka.fixtures import kafka, kafka_bootstrap, own_kafka

__all__ = ["kafka", "kafka_bootstrap", "own_kafka"]

"""Describe the topics of a Kafka log: partitions, retention, rights, the partition of a key. Pure."""

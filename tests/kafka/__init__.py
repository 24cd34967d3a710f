"""A real Apache Kafka for the tests and for `make kafka`: its jars, brokers as processes, and one shared by a run."""

"""The monitor on Kafka: the only modules of the monitor that connect to a broker."""

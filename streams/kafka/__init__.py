"""The monitor on Kafka: the only modules of the monitor that speak to a broker."""

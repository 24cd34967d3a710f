"""What talks to Kafka: drivers, each of which hands plain facts to the pure modules of `streams`."""

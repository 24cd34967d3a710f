"""The broker that the benchmarks on Kafka share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tests.kafka.cluster import Cluster
from tests.kafka.shared import VARIABLE


@contextmanager
def broker() -> Iterator[str]:
    """Give the address of the broker that the environment names, or of one that lives as long as this."""
    if given := os.environ.get(VARIABLE):
        yield given
        return
    with Cluster(1) as cluster:
        yield cluster.bootstrap

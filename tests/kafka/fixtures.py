"""What tests on a real Kafka are given; a conftest.py names it for the tests of its folder."""

import contextlib
import os

import pytest

from tests.kafka.cluster import Cluster
from tests.kafka.jars import KafkaUnavailable
from tests.kafka.shared import SharedKafka, prefix_of, require_kafka, shared_broker, skip_or_fail


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory):
    """Return the address of a real Kafka broker that all tests of the run share; without one the test is skipped."""
    base = tmp_path_factory.getbasetemp()
    with contextlib.ExitStack() as stack:
        try:
            address = stack.enter_context(shared_broker(base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base))
        except KafkaUnavailable as error:
            skip_or_fail(str(error))
        yield address


@pytest.fixture
def kafka(kafka_bootstrap, request):
    """Return the shared broker with a prefix of topics that belongs to this test alone."""
    return SharedKafka(kafka_bootstrap, prefix_of(request.node.name))


@pytest.fixture(scope="session")
def own_kafka():
    """Return the class of clusters that a test starts, breaks and ends itself; without Kafka the test is skipped."""
    try:
        require_kafka()
    except KafkaUnavailable as error:
        skip_or_fail(str(error))
    return Cluster

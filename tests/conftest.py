"""Settings that hold for every test."""

import contextlib
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.kafka.cluster import Cluster
from tests.kafka.jars import KafkaUnavailable
from tests.kafka.shared import SharedKafka, prefix_of, require_kafka, shared_broker, skip_or_fail

# No deadline in either profile: how long an example takes depends on the machine, not on the code under test.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# In continuous integration the same examples every time: a failure there is one that anybody can repeat.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests on a real Kafka: they wait more than they work, which others may do meanwhile."""
    items.sort(key=lambda item: "kafka" not in item.path.parts and "kafka" not in item.path.name)


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

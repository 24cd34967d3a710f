"""Topics that can lose acknowledged records, against everything that `unship topics apply` makes."""

import asyncio
from collections.abc import Collection

from aiokafka.admin import NewTopic

from streams.config.file import load
from streams.kafka.admin import administering
from streams.topics.plan import Step, specs
from tests.kafka.site import KafkaSite

#: The brokers of a topic that can lose records; the first broker has none of it, so that the cluster lives on.
KEEPER, BEHIND = 2, 3


async def make_weak(site: KafkaSite, partitions: dict[str, int], topics: Collection[str]) -> None:
    """Make topics with two copies of which one is enough, and of which the one that is behind may lead."""
    async with administering(site.access) as admin:
        made = []
        for topic in topics:
            copies = {number: [KEEPER, BEHIND] for number in range(partitions.get(topic, 1))}
            made.append(NewTopic(site.access.names.of(topic), -1, -1, replica_assignments=copies))
        await admin.client.create_topics(made)
    await asyncio.to_thread(site.make_topics)
    weak: dict[str, tuple[str | None, str]] = {
        "unclean.leader.election.enable": (None, "true"),
        "min.insync.replicas": (None, "1"),
    }
    async with administering(site.access) as plain:
        for spec in specs(load(site.folder / "unship.yaml")):
            if spec.topic in topics:
                # All of them, because a broker that has not heard of the others yet would take them away.
                usual: dict[str, tuple[str | None, str]] = {
                    name: (None, it.value) for name, it in spec.settings.items()
                }
                await plain.apply([Step(spec.topic, spec.name, "change", spec.partitions, 2, settings=usual | weak)])

"""One fault each, on three brokers; what is expected beside what always must hold stands with it."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiokafka.protocol.metadata import MetadataRequest

from tests.faults.oracle import check
from tests.faults.scene import Scene
from tests.kafka.cluster import Broker

Fault = Callable[[Scene], Awaitable[None]]
#: How long a broker stays away.
AWAY_S = 12.0


async def leader_of(scene: Scene, topic: str, partition: int) -> Broker:
    """Return the broker that leads a partition."""
    admin = scene.access.admin()
    await admin.start()
    try:
        client = admin._client
        response = await client.send(client.get_random_node(), MetadataRequest([scene.access.names.of(topic)], False))
        (found,) = response.to_object()["topics"]
        (leader,) = (each["leader"] for each in found["partitions"] if each["partition"] == partition)
    finally:
        await admin.close()
    return next(broker for broker in scene.cluster.brokers if broker.node_id == leader)


async def leader_killed(scene: Scene) -> None:
    """The leader of predictions, partition 0, dies and comes back."""
    broker = await leader_of(scene, "predictions", 0)
    scene.breaks()
    broker.kill()
    await asyncio.sleep(AWAY_S)
    broker.start()
    await asyncio.to_thread(scene.cluster.wait_ready)


FAULTS: dict[int, tuple[str, Fault]] = {
    9: ("a leader is killed (`kill -9`)", leader_killed),
}


async def play(scene: Scene, fault: Fault, workers: int = 1) -> None:
    """Let everything run, break it while a version decays, heal it, and check what came of it."""
    await scene.begin(workers)
    scene.decay("fraud", "v2", to="v1")
    await fault(scene)
    healed = time.monotonic()
    scene.figures["progress_s"] = await scene.progress()
    await scene.rolled_back()
    scene.figures["rolled_back_s"] = time.monotonic() - healed
    await scene.end_traffic()
    await check(scene)

"""One fault each, on three brokers; what is expected beside what always must hold stands with it."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple

from aiokafka.protocol.metadata import MetadataRequest

from streams.kafka.admin import administering
from streams.kafka.private_parts import send_request
from tests.faults import truncation
from tests.faults.network import CLIENTS, CutCluster, Way
from tests.faults.oracle import check
from tests.faults.scene import REPLICAS, SOURCES, Scene
from tests.kafka.cluster import Broker, Cluster

Fault = Callable[[Scene], Coroutine[Any, Any, None]]
#: How long a broker stays away.
AWAY_S = 12.0


async def a_leader(scene: Scene) -> Broker:
    """Return the broker that leads some partition of the predictions; the seed says which."""
    topic, partition = "predictions", int(scene.chance.integers(SOURCES))
    async with administering(scene.access) as admin:
        response = await send_request(admin.client, MetadataRequest([scene.access.names.of(topic)], False))
        (found,) = response.to_object()["topics"]
        (leader,) = (each["leader"] for each in found["partitions"] if each["partition"] == partition)
    return scene.broker(leader)


async def leader_killed(scene: Scene) -> None:
    """The leader of a partition dies and comes back."""
    await killed(scene, await a_leader(scene))


async def killed(scene: Scene, broker: Broker) -> None:
    """Kill a broker, and start it again after a while."""
    scene.breaks()
    broker.kill()
    await asyncio.sleep(AWAY_S)
    broker.start()
    await asyncio.to_thread(scene.cluster.wait_ready)


async def coordinator_killed(scene: Scene) -> None:
    """The broker that coordinates the group of readers dies, and with it whatever was being committed."""
    async with administering(scene.access) as admin:
        node = await admin.client.find_coordinator(scene.access.names.prefix + "ingest")
    await killed(scene, scene.broker(node))


async def leader_frozen(scene: Scene) -> None:
    """The leader freezes for longer than the others wait for it, and comes back as one that thinks it still leads."""
    broker = await a_leader(scene)
    scene.breaks()
    broker.pause()
    await asyncio.sleep(AWAY_S)
    broker.resume()
    await asyncio.to_thread(scene.cluster.wait_ready)


async def restarted_one_by_one(scene: Scene) -> None:
    """All brokers are restarted in order, as for a new version."""
    scene.breaks()
    for broker in scene.cluster.brokers:
        await asyncio.to_thread(broker.stop)
        broker.start()
        await asyncio.to_thread(scene.cluster.wait_ready)


async def two_away(scene: Scene) -> None:
    """Two of three die: no record has copies enough, so nothing is acknowledged until they are back."""
    scene.breaks()
    for broker in scene.cluster.brokers[:2]:
        broker.kill()
    await asyncio.sleep(3.0)
    before = [scene.waiting(name) for name in REPLICAS]
    await asyncio.sleep(AWAY_S)
    after = [scene.waiting(name) for name in REPLICAS]
    assert all(b > a for a, b in zip(before, after, strict=True)), f"events went out below two copies: {before} {after}"
    for broker in scene.cluster.brokers[:2]:
        broker.start()
    await asyncio.to_thread(scene.cluster.wait_ready)


async def clients_cut_off(scene: Scene) -> None:
    """Nobody but the other brokers reaches the leader any more: it leads on, and nothing can be written there."""
    broker = await a_leader(scene)
    await cut(scene, [(CLIENTS, broker.node_id)])


async def leader_isolated(scene: Scene) -> None:
    """The other brokers do not reach the leader any more, and clients do: for a while there are two that lead."""
    broker = await a_leader(scene)
    others = [each.node_id for each in scene.cluster.brokers if each is not broker]
    await cut(scene, [way for other in others for way in ((other, broker.node_id), (broker.node_id, other))])


async def cut(scene: Scene, ways: list[Way]) -> None:
    """Cut ways of the network for a while."""
    assert isinstance(scene.cluster, CutCluster)
    scene.breaks()
    scene.cluster.network.cut(ways)
    await asyncio.sleep(AWAY_S)
    scene.cluster.network.heal()
    await asyncio.to_thread(scene.cluster.wait_ready)


async def broken(scene: Scene, fault: Fault, workers: int = 1) -> None:
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


class Row(NamedTuple):
    """A fault: what happens, the whole story, and on which kind of brokers."""

    what: str
    story: Callable[[Scene], Coroutine[Any, Any, None]]
    brokers: Callable[[], Cluster] = partial(Cluster, 3)


def _breaking(fault: Fault, workers: int = 1) -> Fault:
    return partial(broken, fault=fault, workers=workers)


ROWS = {
    "6": Row("the broker that coordinates the group of readers is killed", _breaking(coordinator_killed, 2)),
    "9": Row("a leader is killed (`kill -9`)", _breaking(leader_killed)),
    "10": Row("a leader is frozen for 12 s", _breaking(leader_frozen)),
    "11": Row("all brokers are restarted one by one (SIGTERM)", _breaking(restarted_one_by_one)),
    "12": Row("two of three brokers are killed", _breaking(two_away)),
    "13": Row("a replica of `predictions` that is behind is made leader", truncation.source_gives_offsets_twice),
    "28a": Row("no client reaches a leader for 12 s", _breaking(clients_cut_off), CutCluster),
    "28b": Row("no other broker reaches a leader for 12 s, clients do", _breaking(leader_isolated), CutCluster),
    "29": Row("brokers lose what producers were told is written", truncation.producers_out_of_order),
    "30a": Row("the ledger loses its tail", truncation.ledger_loses_its_tail),
    "30b": Row("the ledger is deleted and made again", truncation.ledger_made_again),
}

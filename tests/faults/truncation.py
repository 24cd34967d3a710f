"""Logs that lose acknowledged records: a replica that is behind is made the leader, and gives offsets out again."""

import asyncio
import os
import signal
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from streams.kafka.admin import LATEST, administering
from tests.faults.oracle import Folded, check, folded
from tests.faults.scene import PROGRESS_S, REPLICAS, SOURCES, Scene
from tests.faults.weak import BEHIND, KEEPER
from unship.commands import Command, decode_command

CUT_OFF = "the ledger was cut off or made again; nothing of it is commanded until"
#: Longer than a heartbeat's distance.
HALT_S = 14.0


async def ends(scene: Scene, topic: str) -> dict[int, int]:
    """Return the ends of a topic's partitions."""
    async with administering(scene.access) as admin:
        name = scene.access.names.of(topic)
        return {number: end for (_, number), end in (await admin.offsets([name], LATEST)).items()}


async def grown(scene: Scene, topic: str, than: dict[int, int]) -> None:
    """Wait until every partition of a topic that holds anything ends beyond an earlier end."""

    async def met() -> Any:
        return all(end > than[number] for number, end in (await ends(scene, topic)).items() if than[number])

    await scene.site.until(met, f"{topic} grows beyond {than}")


async def one_behind(scene: Scene, topics: Iterable[str]) -> None:
    """Take one of the two copies away, and return when the topics have grown without it."""
    scene.broker(BEHIND).kill()
    # Until the broker is known to be dead nothing is acknowledged; what it had is below these ends.
    at = {topic: await scene.site.until(partial(ends, scene, topic), "its ends") for topic in topics}
    for topic, found in at.items():
        await grown(scene, topic, found)


async def elect_the_one_behind(scene: Scene) -> None:
    """Kill the broker that has everything, and let the one that is behind lead."""
    scene.breaks()
    scene.broker(KEEPER).kill()
    scene.broker(BEHIND).start()
    await asyncio.to_thread(scene.cluster.wait_ready)


async def all_back(scene: Scene) -> None:
    """Start the broker that had everything; it throws away what the leader does not have."""
    scene.broker(KEEPER).start()
    await asyncio.to_thread(scene.cluster.wait_ready)


# Stories


async def source_gives_offsets_twice(scene: Scene) -> None:
    """Predictions that were counted are lost, and others come in their places while the worker does not look."""
    await scene.begin(weak=["predictions"])
    await one_behind(scene, ["predictions"])
    await asyncio.sleep(2.0)
    worker = scene.site.workers[0]
    os.kill(worker.pid, signal.SIGSTOP)
    at = await scene.site.until(partial(ends, scene, "predictions"), "its ends")
    await elect_the_one_behind(scene)
    await grown(scene, "predictions", at)
    os.kill(worker.pid, signal.SIGCONT)
    scene.figures["noticed_s"] = await said(scene, "topics renew")
    # What was on its way is told a moment later.
    await asyncio.sleep(3.0)
    scene.before = await scene.site.outcomes()
    await asyncio.sleep(5.0)
    assert await scene.site.outcomes() == scene.before, "something was counted after the alarm"
    shown = await asyncio.to_thread(scene.site.unship, "status")
    assert b"topics renew" in shown.stdout, shown.stdout.decode()
    await all_back(scene)
    for number in range(SOURCES):
        assert (await asyncio.to_thread(scene.site.unship, "topics", "renew", str(number))).returncode == 0
    scene.figures["progress_s"] = await scene.progress()
    shown = await asyncio.to_thread(scene.site.unship, "status")
    assert b"topics renew" not in shown.stdout, shown.stdout.decode()
    scene.decay("fraud", "v2", to="v1")
    await scene.rolled_back()
    await scene.end_traffic()
    scene.brokers_lost = True
    await check(scene)


async def producers_out_of_order(scene: Scene) -> None:
    """What producers were told is written is lost, so the brokers refuse everything that these producers send.

    These are the worker's; the replicas' are refused where predictions are lost.
    """
    await scene.begin(weak=["snapshots", "rewind"])
    await one_behind(scene, ["snapshots"])
    scene.decay("fraud", "v2", to="v1")
    await scene.rolled_back()
    await asyncio.sleep(6.0)
    await elect_the_one_behind(scene)
    await all_back(scene)
    scene.decay("churn", "v2", to="v1")
    scene.figures["progress_s"] = await scene.progress()
    await scene.rolled_back()
    scene.figures["refused"] = scene.site.output().count("OutOfOrderSequence") + scene.site.output().count(
        "UnknownProducer"
    )
    await scene.end_traffic()
    await check(scene)


async def ledger_loses_its_tail(scene: Scene) -> None:
    """A decision was commanded, and the end of the ledger that led to it is lost."""
    await scene.begin(weak=["ledger"])
    await one_behind(scene, ["ledger"])
    scene.decay("fraud", "v2", to="v1")
    await scene.rolled_back()
    fold = await folded(scene)
    await elect_the_one_behind(scene)
    await all_back(scene)
    await halted(scene, fold)


async def ledger_made_again(scene: Scene) -> None:
    """The ledger is deleted and made again, while its worker is stopped and everything else stays."""
    await scene.begin()
    scene.decay("fraud", "v2", to="v1")
    await scene.rolled_back()
    fold = await folded(scene)
    scene.site.stop()
    name = scene.access.names.of("ledger")
    async with administering(scene.access) as admin:
        await admin.client.delete_topics([name])

        async def gone() -> Any:
            return name not in await admin.client.list_topics()

        await scene.site.until(gone, "the ledger is gone")
    scene.breaks()
    await asyncio.to_thread(scene.site.make_topics)
    scene.site.start()
    await halted(scene, fold)


async def halted(scene: Scene, fold: Folded) -> None:
    """Nothing is commanded any more, whatever comes, until a person has looked; the replicas serve on."""
    scene.figures["noticed_s"] = await said(scene, CUT_OFF)
    # The other ledger partition has lost nothing that was decided, and may go on: what it lost is read again.
    count = len(await commands(scene, "fraud"))
    # As long as it takes until a state is asserted again, and longer than any pause between two tries.
    await asyncio.sleep(HALT_S)
    after = await commands(scene, "fraud")
    assert len(after) == count, f"commanded after the halt: {after[count:]}"
    assert all((command.model, command.epoch) in fold.desired for command in await commands(scene))
    shown = await asyncio.to_thread(scene.site.unship, "status")
    lines = shown.stdout.decode().splitlines()
    assert any(line.startswith("halted: ") and CUT_OFF in line for line in lines), lines
    assert all(scene.serving(name)["fraud"] == "v1" for name in REPLICAS)
    await scene.end_traffic()
    scene.figures["commands"] = len(after)


async def said(scene: Scene, words: str) -> float:
    """Wait until a worker says something since the fault; return the seconds from the fault on."""

    async def met() -> Any:
        return any(words in line for line in scene.said_since_broken())

    await scene.site.until(met, f"a line with {words!r}", PROGRESS_S)
    return time.time() - scene.broken_at_ms / 1_000


async def commands(scene: Scene, *models: str) -> list[Command]:
    """Return all commands that were published, or those of some models."""
    found = [decode_command(record.value) for record in await scene.records("control")]
    assert all(isinstance(command, Command) for command in found)
    return [each for each in found if isinstance(each, Command) and (not models or each.model in models)]

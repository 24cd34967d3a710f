"""A long run: versions are deployed and decay while everything is broken at random; then everything is checked."""

import asyncio
import os
import signal
import subprocess
import time
from typing import Any

from tests.faults.network import CLIENTS, CutCluster
from tests.faults.oracle import check
from tests.faults.plan import BROKERS, ROUND_S, WORKERS, Step
from tests.faults.scene import MODELS, Scene

#: Longest wait for anything that has to come in spite of faults.
PATIENT_S = 300.0


class Soak:
    """Runs a plan against a scene, beside a story that goes on in spite of it."""

    def __init__(self, scene: Scene, rounds: list[list[Step]]) -> None:
        assert isinstance(scene.cluster, CutCluster)
        self.scene = scene
        self.cluster = scene.cluster
        self.rounds = rounds
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self._ending = False
        self._progress: list[float] = []

    async def run(self) -> None:
        """Run the whole plan, heal, and check."""
        scene = self.scene
        begun = time.monotonic()
        await scene.begin(workers=WORKERS)
        self.workers = dict(enumerate(scene.site.workers, 1))
        scene.breaks()
        story = asyncio.create_task(self._story())
        try:
            for number, steps in enumerate(self.rounds, 1):
                await self._round(steps)
                self._progress.append(await scene.progress())
                print(
                    f"round {number} of {len(self.rounds)}, {time.monotonic() - begun:.0f} s: progress after "
                    f"{self._progress[-1]:.1f} s, {len(scene.decayed)} versions have decayed",
                    flush=True,
                )
                if story.done():
                    story.result()
            self._ending = True
            await story
        finally:
            story.cancel()
        await scene.rolled_back()
        await scene.end_traffic()
        await check(scene)
        scene.figures |= {"faults": sum(map(len, self.rounds)), "progress_s": max(self._progress)}

    # The story

    async def _story(self) -> None:
        """Let one version after the other decay, of one model or the other, until the end."""
        newest = 2
        serving = dict.fromkeys(MODELS, "v2")
        while not self._ending:
            model = MODELS[int(self.scene.chance.integers(len(MODELS)))]
            if serving[model] == "v1":
                # Enough of the old version for a baseline of the new one.
                await self._more(model, "v1", 800)
                newest += 1
                serving[model] = f"v{newest}"
                await self.scene.deploy(model, serving[model], beside="v1")
            await self._more(model, serving[model], 200)
            self.scene.decay(model, serving[model], to="v1")
            await self.scene.rolled_back(PATIENT_S)
            serving[model] = "v1"

    async def _more(self, model: str, version: str, count: int) -> None:
        before = (await self.scene.site.until(self.scene.site.outcomes)).get(model, {}).get(version, 0)
        await self.scene.counted(model, version, before + count, PATIENT_S)

    # The faults

    async def _round(self, steps: list[Step]) -> None:
        begun = time.monotonic()

        async def at_its_time(step: Step) -> None:
            await asyncio.sleep(max(0.0, step.at_s - (time.monotonic() - begun)))
            await getattr(self, f"_{step.thing}")(step)

        # One after the other for each thing: a fault that took longer to heal than planned holds up the next one.
        things: dict[Any, list[Step]] = {}
        for step in steps:
            things.setdefault(step.thing if step.thing == "broker" else (step.thing, step.number), []).append(step)

        async def one_by_one(these: list[Step]) -> None:
            for step in these:
                await at_its_time(step)

        await asyncio.gather(asyncio.sleep(ROUND_S), *map(one_by_one, things.values()))
        await asyncio.to_thread(self.cluster.wait_ready)

    async def _broker(self, step: Step) -> None:
        broker = self.scene.broker(step.number)
        another = self.scene.broker(step.number % BROKERS + 1)
        others = [each.node_id for each in self.cluster.brokers if each is not broker]
        match step.way:
            case "killed" | "killed with another one":
                broken = [broker] if step.way == "killed" else [broker, another]
                for each in broken:
                    each.kill()
                await asyncio.sleep(step.lasts_s)
                for each in broken:
                    each.start()
            case "frozen":
                broker.pause()
                await asyncio.sleep(step.lasts_s)
                broker.resume()
            case "restarted":
                await asyncio.to_thread(broker.stop)
                await asyncio.sleep(step.lasts_s)
                broker.start()
            case _:
                between = [way for each in others for way in ((each, step.number), (step.number, each))]
                self.cluster.network.cut([(CLIENTS, step.number)] if "clients" in step.way else between)
                await asyncio.sleep(step.lasts_s)
                self.cluster.network.heal()

    async def _worker(self, step: Step) -> None:
        worker = self.workers[step.number]
        if step.way == "frozen":
            await _frozen(worker, step.lasts_s)
            return
        if step.way == "killed":
            self.scene.site.kill(worker)
        else:
            worker.send_signal(signal.SIGTERM)
            self.scene.figures["slowest_stop_s"] = max(
                self.scene.figures.get("slowest_stop_s", 0.0), await asyncio.to_thread(_ended, worker)
            )
        await asyncio.sleep(step.lasts_s)
        self.workers[step.number] = self.scene.site.start()

    async def _replica(self, step: Step) -> None:
        name = f"r{step.number}"
        replica = self.scene.replicas[name]
        if step.way == "frozen":
            await _frozen(replica, step.lasts_s)
            return
        replica.kill()
        replica.wait()
        await asyncio.sleep(step.lasts_s)
        self.scene.start_replica(name)


async def _frozen(process: "subprocess.Popen[bytes]", lasts_s: float) -> None:
    os.kill(process.pid, signal.SIGSTOP)
    await asyncio.sleep(lasts_s)
    os.kill(process.pid, signal.SIGCONT)


def _ended(process: "subprocess.Popen[bytes]") -> float:
    """Wait for the end of a process that was asked to end; return the seconds that it took."""
    begun = time.monotonic()
    try:
        process.wait(90)
    except subprocess.TimeoutExpired:
        raise AssertionError("a worker did not end within 90 s of SIGTERM") from None
    return time.monotonic() - begun

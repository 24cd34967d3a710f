"""The tutorial's agent, run as a reader runs it: it joins a stream whose error rate changes, and says so."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from tests.kafka.shared import SharedKafka
from tests.kafka.site import KafkaSite
from tests.waiting import HANG_S
from unship.events import Feedback, Prediction

APP = Path(__file__).resolve().parents[3] / "examples" / "faust_agent" / "app.py"
COUNT = 1_500


def lines() -> list[bytes]:
    """A version that is right nine times out of ten, then once, beside one that is always right."""
    chance = random.Random(1)
    encode, made = msgspec.json.Encoder().encode, []
    for i in range(COUNT):
        for version, wrong in (("v1", 0.0), ("v2", 0.1 if i < COUNT // 2 else 0.9)):
            id_ = f"{version}-{i}"
            pair = [
                encode(Prediction(id=id_, model="fraud", version=version, output=1)),
                encode(Feedback(id=id_, truth=int(chance.random() >= wrong))),
            ]
            # Some feedback is told before its prediction is.
            made += pair if chance.random() < 0.9 else pair[::-1]
    return made


def test_agent_says_which_version_changed_and_nothing_of_the_other(kafka: SharedKafka, tmp_path: Path) -> None:
    site = KafkaSite(tmp_path, kafka.bootstrap, kafka.prefix, "")
    site.make_topics()
    asyncio.run(site.play(lines()))
    output = tmp_path / "agent.log"
    environment = {
        **os.environ,
        "UNSHIP_LOG": kafka.log,
        "UNSHIP_TOPIC_PREFIX": kafka.prefix,
        "PARTITIONS": str(site.sources),
    }
    with output.open("wb") as stream:
        agent = subprocess.Popen(
            [sys.executable, str(APP), "worker", "-l", "warn"],
            cwd=tmp_path, env=environment, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:

        async def said() -> Any:
            assert agent.poll() is None, output.read_text()
            return [line for line in output.read_text().splitlines() if " drift after " in line]

        (first, *_) = asyncio.run(site.until(said, f"a line on the change; it said {output.read_text()}"))
    finally:
        agent.terminate()
        agent.wait(timeout=HANG_S)
    before, now = (float(first.partition(f"{word} ")[2].split()[0]) for word in ("mean loss", "before and"))
    assert "fraud v2: drift after " in first
    assert before < now, first
    assert "fraud v1: drift" not in output.read_text()

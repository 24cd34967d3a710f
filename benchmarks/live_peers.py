"""What `live.py` measures a worker against, each a process of its own: a plain file of its stages, and a bare floor.

`plain` is what one writes on a morning: aiokafka, orjson, dictionaries, and River's ADWIN for each version. It keeps
nothing, commits nothing and decides nothing. `floor` fetches the same records, checks them, and takes their values.

Run: python benchmarks/live_peers.py plain|floor BOOTSTRAP PREDICTIONS FEEDBACK EVENTS; prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import PartitionRecords


def values_only(self: Any) -> Any:
    """Yield the values of one batch after the other."""
    while self._records.has_next():
        batch = self._records.next_batch()
        assert batch.validate_crc()
        values = [record.value for record in batch]
        self.next_fetch_offset = batch.next_offset
        yield values


class Plain:
    """Joins predictions with truths, and watches the error of each version."""

    def __init__(self) -> None:
        from river.drift import ADWIN

        self._new = ADWIN
        self._predictions: dict[str, Any] = {}
        self._early: dict[str, Any] = {}
        self._detectors: dict[tuple[str, str], Any] = {}
        self.outcomes = 0

    def predicted(self, records: list[Any]) -> int:
        """Take predictions; return how many."""
        for record in records:
            event = orjson.loads(record.value)
            truth = self._early.pop(event["id"], None)
            if truth is None:
                self._predictions[event["id"]] = event
            else:
                self._joined(event, truth)
        return len(records)

    def labelled(self, records: list[Any]) -> int:
        """Take feedback; return how many."""
        for record in records:
            event = orjson.loads(record.value)
            prediction = self._predictions.pop(event["id"], None)
            if prediction is None:
                self._early[event["id"]] = event
            else:
                self._joined(prediction, event)
        return len(records)

    def _joined(self, prediction: Any, truth: Any) -> None:
        key = prediction["model"], prediction["version"]
        detector = self._detectors.get(key)
        if detector is None:
            detector = self._detectors[key] = self._new()  # type: ignore[no-untyped-call]
        detector.update(int(prediction["output"] != truth["truth"]))
        _ = detector.drift_detected
        self.outcomes += 1


class Floor:
    """Counts values."""

    outcomes = 0

    def predicted(self, records: list[Any]) -> int:
        """Return how many values there are."""
        return sum(map(len, records))

    labelled = predicted


def processor_s() -> float:
    """Return the processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def read(what: Plain | Floor, bootstrap: str, topics: list[str], events: int) -> dict[str, float]:
    """Read all events of both topics; return what that took."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        known = await consumer._client.fetch_all_metadata()
        consumer.assign([TopicPartition(topic, n) for topic in topics for n in known.partitions_for_topic(topic)])
        seen, began, used = 0, time.monotonic(), processor_s()
        while seen < events:
            for place, records in (await consumer.getmany(timeout_ms=200)).items():
                seen += (what.predicted if place.topic == topics[0] else what.labelled)(records)
        took, used = time.monotonic() - began, processor_s() - used
    finally:
        await consumer.stop()
    return {
        "us": 1e6 * used / seen,
        "per_s": seen / took,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024,
        "outcomes": what.outcomes,
    }


def main(arguments: list[str]) -> int:
    """Read, and print what it took."""
    if not arguments:
        print(__doc__)
        return 0
    mode, bootstrap, predictions, feedback, events = arguments
    what = Plain() if mode == "plain" else Floor()
    if isinstance(what, Floor):
        PartitionRecords._unpack_records = values_only
    print(json.dumps(asyncio.run(read(what, bootstrap, [predictions, feedback], int(events)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

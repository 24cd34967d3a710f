"""The status of all models on Kafka: each controller tells that of its partitions, and this puts them together."""

from collections import Counter

import msgspec

from streams.fold.status import Status
from streams.kafka.clients import Access, read_all, run
from streams.kafka.rewinds import Rewinds
from streams.kafka.snapshots import HALT, STATUS
from streams.recordings.lines import Taken


def read_status(access: Access) -> tuple[Status, list[Taken]]:
    """Return the status of all models, and the newest ack of each replica in the order of their offsets.

    Raises:
        BrokerUnreachable: no broker answers.
    """
    return run(access, _read(access))


async def _read(access: Access) -> tuple[Status, list[Taken]]:
    told: dict[bytes, bytes] = {}
    halts: dict[bytes, bytes] = {}
    for record in await read_all(access, "snapshots", [0]):
        if record.key is not None and record.key.startswith(STATUS) and record.value is not None:
            told[record.key] = record.value
        elif record.key is not None and record.key.startswith(HALT):
            halts[record.key] = record.value or b""
    statuses = [msgspec.json.decode(value, type=Status) for value in told.values()]
    newest = {record.key: record for record in await read_all(access, "acks")}
    acks = [
        Taken("acks", record.partition, record.offset, record.timestamp, record.key, record.value)
        for record in newest.values()
    ]
    rejected: Counter[str] = Counter()
    for status in statuses:
        rejected.update(status.rejected)
    models = {name: model for status in statuses for name, model in status.models.items()}
    clock = max((status.clock for status in statuses), default=-1)
    sources = Rewinds(access)
    await sources.learn()
    halted = [*sources.standing(), *(why.decode(errors="replace") for _, why in sorted(halts.items()) if why)]
    return Status(clock, dict(sorted(models.items())), dict(sorted(rejected.items())), halted), acks

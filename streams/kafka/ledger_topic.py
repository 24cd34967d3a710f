"""The ledger topic: it begins with the configuration, in every partition, before anything else is appended."""

from __future__ import annotations

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from streams.config.resolved import FOLD_VERSION, Config
from streams.kafka.admin import administering
from streams.kafka.clients import Access, answered, end_consumer, partition_count
from streams.ledger.entries import entry_of, read_entry
from streams.ledger.records import Configured, Record
from streams.pipeline import configuration_record
from unship.errors import ConfigurationError

READ_WHOLE = ("predictions", "feedback", "ledger")

_BAD = {
    "cleanup.policy": ("compact", "expected delete, so the broker takes records away that must be joined"),
    "message.timestamp.type": (
        "CreateTime",
        "expected LogAppendTime, so each writer sets the clock of the monitor",
    ),
}
"""Settings that are looked at: what a value must not hold, and the reason."""


class Shape(msgspec.Struct, frozen=True):
    """How many partitions the sources and the ledger have: with others, other records meet."""

    sources: int
    ledger: int


async def open_ledger(access: Access, producer: AIOKafkaProducer, config: Config) -> Shape:
    """Make sure that every ledger partition begins with this configuration; return the numbers of partitions.

    Two workers may find a partition empty at once; the second one then appends the same again.

    Raises:
        ConfigurationError: the ledger was begun by another version of the fold or with other numbers of partitions,
            the two source topics differ, a broker compacts what has to be read whole, or writers set append times.
    """
    consumer = access.reader()
    try:
        await consumer.start()
        names = [access.names.of(topic) for topic in READ_WHOLE]
        predictions, feedback, ledger = [await partition_count(consumer, name) for name in names]
        if predictions != feedback:
            raise ConfigurationError(
                f"{names[0]} has {predictions} partitions and {names[1]} has {feedback}, so ids do not meet; make them "
                "equal: unship topics plan shows how"
            )
        await check_settings(access)
        shape = Shape(predictions, ledger)
        places = [TopicPartition(names[2], number) for number in range(ledger)]
        begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        for place in places:
            if ends[place] == 0:
                record = configuration_for(config, shape)
                await answered(producer.send_and_wait(names[2], entry_of(record).value, partition=place.partition))
            elif begins[place] == 0:
                _agree(place, await _first(consumer, place), shape)
        return shape
    finally:
        await end_consumer(consumer)


def configuration_for(config: Config, shape: Shape) -> Configured:
    """Return the record that puts a configuration in force."""
    record = configuration_record(config)
    return msgspec.structs.replace(record, partitions=shape.sources, ledger_partitions=shape.ledger)


async def check_settings(access: Access) -> None:
    """Make sure that sources and ledger are kept whole, and that their append times are the broker's.

    With the times of writers, one record of a wrong time ends the judging: nothing is later than that.

    Raises:
        ConfigurationError: A setting of a topic is another one; with the fix.
    """
    names = [access.names.of(topic) for topic in READ_WHOLE]
    wanted = dict.fromkeys(_BAD, "")
    async with administering(access) as admin:
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in names]
        (response,) = await admin.client.describe_configs(asked)
    for _, _, _, name, settings in response.resources:
        # Without the right to read settings there are none in the response, and `unship check` names the right.
        for setting, value, *_ in settings:
            if setting in _BAD and (wrong := setting_fault(setting, value or "")) is not None:
                raise ConfigurationError(
                    f"topic {name}: {setting} is {value}, {wrong}; mend it with: unship topics apply"
                )


def setting_fault(setting: str, value: str) -> str | None:
    """Return why a topic with this setting cannot be read, None if it can.

    Example:
        >>> setting_fault("cleanup.policy", "delete"), setting_fault("message.timestamp.type", "LogAppendTime")
        (None, None)
        >>> setting_fault("message.timestamp.type", "CreateTime")
        'expected LogAppendTime, so each writer sets the clock of the monitor'
    """
    bad, why = _BAD[setting]
    return why if bad in value else None


async def _first(consumer: AIOKafkaConsumer, place: TopicPartition) -> Record:
    consumer.assign([place])
    consumer.seek(place, 0)
    return read_entry((await answered(consumer.getone(place))).value).record


def _agree(place: TopicPartition, record: Record, shape: Shape) -> None:
    if not isinstance(record, Configured):
        raise ConfigurationError(f"{place.topic} {place.partition}: the ledger does not begin with a configuration")
    if (record.partitions, record.ledger_partitions) != (shape.sources, shape.ledger):
        raise ConfigurationError(
            f"the ledger was begun with {record.partitions} source and {record.ledger_partitions} ledger partitions, "
            f"now there are {shape.sources} and {shape.ledger}; begin a new ledger under another prefix"
        )
    if record.fold_version != FOLD_VERSION:
        raise ConfigurationError(
            f"the ledger was begun by version {record.fold_version} of the fold, this is {FOLD_VERSION}; run the "
            "program that began it, or begin a new ledger under another prefix"
        )

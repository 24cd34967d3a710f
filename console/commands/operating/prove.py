"""Run `unship prove`: show from the answers themselves which version serves, and which replica contradicts its ack."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click
import msgspec

from actions.control_records import trusted_commands
from actions.convergence.answers import Answers, Kind, Share
from actions.convergence.conduct import KINDS, OBEYS, Conduct, conducts_of
from actions.facts import ReplicaChange
from actions.replicas import Replica, Replicas
from console.commands.status import living, read_reported, unknown_model
from console.logs import configured_log, is_log, keys_folder, open_topics, settings_for_reading
from console.progress import counting
from console.sentences import clean
from console.settings import Exit, Settings
from console.tables import aligned
from console.times import shown_time
from streams.config.resolved import Config
from streams.recordings.lines import Taken, Topics, records_of
from streams.recordings.opening import open_seekable
from streams.recordings.recorded_topics import RecordedTopics
from streams.topics.partitioner import partition_of
from unship.codec import decode_value
from unship.commands import Command, decode_command
from unship.errors import ConfigurationError, RecordingError
from unship.events import Ack, Epoch, Prediction
from unship.keys import TRUST_FILE, load_trust
from unship.log.link import Record, wall_ms
from unship.log.packed import decode_values

LISTED_MAX = 50
"""Of more replicas only those that do not obey are listed."""


class Ordered(NamedTuple):
    """What should serve since when, what the replicas acknowledged, and the time now, in milliseconds."""

    serve: str
    epoch: Epoch
    since: int
    replicas: dict[str, Replica]
    now: int


class Proof(msgspec.Struct, frozen=True):
    """Hold what the answers since the newest command show."""

    model: str
    ordered: Ordered
    answers: Answers
    replicas: dict[str, Replica]
    conducts: dict[str, Conduct]

    @property
    def holds(self) -> bool:
        """Return whether no living replica contradicts its ack or disobeys; one that still loads does neither."""
        return all(conduct.kind in (OBEYS, "loading") for conduct in self.conducts.values())


def prove_command(settings: Settings, model: str, source: str | None) -> Exit:
    """Print the proof; FINDING if a living replica does not obey."""
    settings, config = settings_for_reading(settings, source)
    if source is not None and is_log(source):
        settings = settings.with_options(log=source)
    source = source or configured_log(settings, config)
    with _opened(settings, config, source) as topics:
        ordered = (
            _on_log(settings, config, topics, model) if is_log(source) else _recorded(settings, config, topics, model)
        )
        with counting("prove: records", settings.quiet) as progress:
            answers = count_answers(topics, model, ordered.since, progress)
    proof = proof_of(model, ordered, answers)
    click.echo(_json(proof) if settings.as_json else "\n".join(_lines(proof)))
    return Exit.GOOD if proof.holds else Exit.FINDING


def proof_of(model: str, ordered: Ordered, answers: Answers) -> Proof:
    """Return what follows from a command and the answers since then."""
    replicas = answers.proven(ordered.replicas, ordered.now)
    conducts = conducts_of(replicas, ordered.serve, ordered.epoch, ordered.since, ordered.now)
    return Proof(model, ordered, answers, replicas, conducts)


@contextmanager
def _opened(settings: Settings, config: Config, source: str) -> Iterator[Topics]:
    if is_log(source):
        with open_topics(settings, config, source) as topics:
            yield topics
    else:
        with open_seekable(source, config.recording_bytes) as stream:
            yield RecordedTopics(stream)


def _on_log(settings: Settings, config: Config, topics: Topics, model: str) -> Ordered:
    """Return what is ordered by the monitor's status."""
    status, acks = read_reported(settings, config)
    found = status.models.get(model)
    if found is None:
        raise unknown_model(model, status)
    if found.desired is None or not found.commanded:
        raise ConfigurationError(
            f"no command is sent for {clean(model)} (mode observe, or nothing was deployed), so nothing can be proven; "
            "unship status shows what its replicas answer with"
        )
    replicas = living(model, found, acks, status.clock)
    now = max([wall_ms(), *(replica.heard for replica in replicas.values())])
    return Ordered(found.desired, found.epoch, _since(topics, model, found.epoch, now), replicas, now)


def _recorded(settings: Settings, config: Config, topics: Topics, model: str) -> Ordered:
    """Return what is ordered by the newest command of a recording."""
    trust_file = keys_folder(settings, config) / TRUST_FILE
    records = [
        taken
        for number in range(topics.partitions("control"))
        for taken in records_of(topics, "control", number)
        if taken.key == model.encode()
    ]
    if trust_file.exists():
        newest, _ = trusted_commands(map(_signed, records), load_trust(trust_file))
        commands = [(record.append_ts, command) for record, command in newest.values()]
    else:
        decoded = [(taken.append_ts, decode_command(taken.value or b"")) for taken in records]
        commands = [(at, command) for at, command in decoded if isinstance(command, Command)]
    if not commands:
        raise RecordingError(f"the recording holds no command for {clean(model)}, so nothing can be proven")
    _, command = max(commands, key=lambda each: each[1].epoch)
    first = min(at for at, each in commands if each.epoch == command.epoch)
    acks = [taken for number in range(topics.partitions("acks")) for taken in records_of(topics, "acks", number)]
    replicas, now = _acknowledged(model, acks)
    now = max(now, *_newest_times(topics), first)
    return Ordered(command.serve, command.epoch, _since(topics, model, command.epoch, first), replicas, now)


def _signed(taken: Taken) -> Record:
    headers = tuple((name, value) for name, value in taken.headers if value is not None)
    return Record(taken.offset, taken.append_ts, taken.key, taken.value, headers)


def _acknowledged(model: str, acks: list[Taken]) -> tuple[dict[str, Replica], int]:
    """Return the replicas by their acks, and the time of the newest."""
    followed, newest = Replicas(), 0
    for taken in sorted(acks, key=lambda each: each.append_ts):
        ack = decode_value("ack", taken.value)
        if isinstance(ack, Ack) and ack.model == model:
            place, newest = ("acks", taken.partition, taken.offset), taken.append_ts
            change = ReplicaChange(
                ack.replica, False, ack.stage, ack.serving, ack.epoch, ack.code, taken.append_ts, place
            )
            followed.take([change], newest, lambda epoch: None, Counter())
    return followed.known, newest


def _newest_times(topics: Topics) -> Iterator[int]:
    """Yield when the newest prediction of each partition was appended."""
    for (topic, number), end in topics.ends().items():
        if topic == "predictions" and end and (page := topics.read(topic, number, end - 1)):
            yield page[-1].append_ts


def _since(topics: Topics, model: str, epoch: Epoch, otherwise: int) -> int:
    """Return when the ledger got the record that an epoch is named after; it is the first that may be known of it."""
    number = partition_of(model.encode(), max(1, topics.partitions("ledger")))
    offset = epoch[1]
    if topics.ends().get(("ledger", number), 0) <= offset or topics.first("ledger", number) > offset:
        return otherwise
    page = topics.read("ledger", number, offset)
    return page[0].append_ts if page else otherwise


def count_answers(topics: Topics, model: str, since: int, progress: Callable[[int], None] | None = None) -> Answers:
    """Return the answers of a model from a time on, in milliseconds of append times."""
    answers = Answers()
    parts = [_from(topics, number, since) for number in range(topics.partitions("predictions"))]
    for taken in heapq.merge(*parts, key=lambda each: each.append_ts):
        for event in decode_values("prediction", taken.value):
            if isinstance(event, Prediction) and event.model == model:
                answers.take(event, taken.append_ts)
        if progress is not None:
            progress(1)
    return answers


def _from(topics: Topics, number: int, since: int) -> Iterator[Taken]:
    """Yield the predictions of a partition that were appended from a time on; append times never fall."""
    end = topics.ends().get(("predictions", number), 0)
    low, high = topics.first("predictions", number), end
    while low < high:
        middle = (low + high) // 2
        page = topics.read("predictions", number, middle)
        if page and page[0].append_ts < since:
            low = max(middle, page[0].offset) + 1
        else:
            high = middle
    while low < end and (page := topics.read("predictions", number, low)):
        yield from (taken for taken in page if since <= taken.append_ts and taken.offset < end)
        low = page[-1].offset + 1


def _lines(proof: Proof) -> Iterator[str]:
    ordered, answers = proof.ordered, proof.answers
    yield (
        f"{clean(proof.model)}: {clean(ordered.serve)} is to serve since {shown_time(ordered.since)}, "
        f"epoch {_epoch(ordered.epoch)}"
    )
    rows = [("ROLE", "VERSION", "EPOCH", "ANSWERS", "SHARE", "NEWEST")]
    live = sum(share.count for kind, share in answers.shares.items() if kind.role == "live")
    for kind, share in sorted(answers.shares.items(), key=lambda each: (each[0].role != "live", -each[1].count)):
        part = f"{100 * share.count / live:.2f} %" if kind.role == "live" else "-"
        rows.append(
            (kind.role, clean(kind.version), _epoch(kind.epoch), f"{share.count:,}", part, shown_time(share.last))
        )
    if len(rows) > 1:
        yield from aligned(rows)
    else:
        yield "no answer since then"
    if answers.others:
        yield f"and {answers.others:,} answers of further versions, epochs or replicas"
    if answers.unnamed:
        yield f"{answers.unnamed:,} live answers name no replica"
    kinds = Counter(conduct.kind for conduct in proof.conducts.values())
    counted = ", ".join(f"{kind} {kinds[kind]:,}" for kind in KINDS if kinds[kind])
    yield f"living replicas: {len(proof.conducts):,}" + (f" ({counted})" if counted else "")
    listed = [
        (clean(name), conduct.kind, clean(conduct.why) or _shown(proof, name))
        for name, conduct in sorted(proof.conducts.items(), key=lambda each: (each[1].kind == OBEYS, each[0]))
        if conduct.kind != OBEYS or len(proof.conducts) <= LISTED_MAX
    ]
    yield from aligned(listed) if listed else ()


def _shown(proof: Proof, name: str) -> str:
    """Return by what a replica obeys: its answers, or only its ack."""
    answered = proof.answers.replicas.get(name)
    return "by its ack alone: no answer since then" if answered is None else f"by {answered.count:,} answers"


def _epoch(epoch: Epoch | None) -> str:
    return "-" if epoch is None else ".".join(map(str, epoch))


def _json(proof: Proof) -> str:
    ordered, answers = proof.ordered, proof.answers
    live = sum(share.count for kind, share in answers.shares.items() if kind.role == "live")

    def shown(kind: Kind, share: Share) -> dict[str, Any]:
        part = share.count / live if kind.role == "live" else None
        times = {"first_ts": share.first, "last_ts": share.last}
        return {**kind._asdict(), "count": share.count, "share": part, **times}

    replicas = {}
    for name, conduct in proof.conducts.items():
        replica, answered = proof.replicas[name], answers.replicas.get(name)
        replicas[name] = {**msgspec.structs.asdict(conduct), "acked": replica.acked, "answered": answered}
    found: dict[str, Any] = {"model": proof.model, "desired": ordered.serve, "epoch": ordered.epoch}
    found |= {"since_ts": ordered.since, "holds": proof.holds}
    found["answers"] = [shown(kind, share) for kind, share in answers.shares.items()]
    found |= {"others": answers.others, "unnamed": answers.unnamed, "replicas": replicas}
    return msgspec.json.encode(found).decode()

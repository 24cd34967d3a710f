"""Whatever is taken out of a complete recording before its newest checkpoint is found and named by an audit.

The kinds that may stay unnoticed are listed in `docs/reference/determinism.md`, "What an audit does not prove": records
of `acks` and `control` that a newer one of their key supersedes are such, because compaction takes them away as well.
"""

import io
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest

from actions.checkpoints import CHECKPOINT_KEY
from streams.audit.ledger_audit import audit_topics
from streams.audit.result import AuditResult
from streams.ledger.entries import read_entry
from streams.ledger.records import Batch
from streams.recordings.lines import Taken, line_of
from streams.recordings.recorded_topics import RecordedTopics
from tests.worlds.complete_recordings import Complete, broker_recording, embedded_recording, proven_ends

SEEDS = 25
NAMES = {"decisions": "decision", "control": "command"}


@cache
def complete(kind: str) -> Complete:
    if kind == "broker":
        return broker_recording()
    with TemporaryDirectory() as folder:
        return embedded_recording(Path(folder))


def audited(records: list[Taken], whole: Complete, *, keys: bool = True) -> AuditResult:
    topics = RecordedTopics(io.BytesIO(b"".join(line_of(taken) + b"\n" for taken in records)))
    return audit_topics(topics, whole.trust if keys else None, topics.damage)


def deletion(rng: np.random.Generator, records: list[Taken]) -> set[int]:
    """Return the places of what is taken out: a record, a range of a topic or of all, a tail, or a whole topic."""
    topic = str(rng.choice(sorted({taken.topic for taken in records})))
    among = [i for i, taken in enumerate(records) if taken.topic == topic]
    match int(rng.integers(6)):
        case 0 | 1:
            return {int(rng.choice(among))}
        case 2:
            begin = int(rng.integers(len(among)))
            return set(among[begin : begin + int(rng.integers(1, 40))])
        case 3:
            return set(among[int(rng.integers(len(among))) :])
        case 4:
            begin = int(rng.integers(len(records)))
            return set(range(begin, min(begin + int(rng.integers(2, 400)), len(records))))
        case _:
            return set(among)


def must_be_found(records: list[Taken], out: set[int]) -> list[Taken]:
    """Return what was taken out before the newest checkpoint that is left, less what compaction may take."""
    left = [taken for i, taken in enumerate(records) if i not in out]
    ends = proven_ends(left, records)
    newest = {(taken.topic, taken.partition, taken.key): taken.offset for taken in left}

    def superseded(taken: Taken) -> bool:
        found = newest.get((taken.topic, taken.partition, taken.key), -1)
        return taken.topic in ("acks", "control") and found > taken.offset

    taken_out = [records[i] for i in sorted(out)]
    return [t for t in taken_out if t.offset < ends.get((t.topic, t.partition), 0) and not superseded(t)]


@pytest.mark.parametrize("kind", ["embedded", "broker"])
def test_complete_recording_is_proven_to_its_end(kind: str) -> None:
    whole = complete(kind)
    result = audited(whole.records, whole)
    assert (result.first_difference, result.missing, result.remarks) == (None, [], [])
    assert len(result.ids) == result.decisions >= 4
    assert all("it has no record after that" in sentence for sentence in result.proof)


@pytest.mark.parametrize("kind", ["embedded", "broker"])
@pytest.mark.parametrize("seed", range(SEEDS))
def test_records_that_were_taken_out_are_found_and_named(kind: str, seed: int) -> None:
    whole, rng = complete(kind), np.random.default_rng(seed)
    out = deletion(rng, whole.records)
    lost = must_be_found(whole.records, out)
    result = audited([taken for i, taken in enumerate(whole.records) if i not in out], whole)
    if lost:
        assert result.first_difference is not None, [(t.topic, t.partition, t.offset) for t in lost]
        sentences = " ".join([result.first_difference.sentence(), *result.missing])
        names = {name for taken in lost for name in (taken.topic, NAMES.get(taken.topic, taken.topic))}
        assert any(name in sentences for name in names), sentences


def taken_out(name: str, records: list[Taken]) -> list[Taken]:
    """Return a recording after an attempt to hide what was decided in it."""
    rollback = next(t for t in records if t.topic == "decisions" and b'"action":"rollback"' in (t.value or b""))
    ledger = [t for t in records if t.topic == "ledger"]
    behind = ledger[json.loads(rollback.value or b"")["epoch"][1] + 1 :]
    batches = [t for t in ledger if isinstance(read_entry(t.value).record, Batch)]

    def decided_by_ledger(t: Taken, end: int) -> bool:
        if t.key == CHECKPOINT_KEY:
            return json.loads(t.value or b"")["ledger"] > end
        return t.topic in ("decisions", "control") and json.loads(t.value or b"{}")["epoch"][1] >= end

    out: dict[str, Callable[[Taken], bool]] = {
        "batches after the 20th, the rollback and its commands": lambda t: (
            t in batches[20:] or decided_by_ledger(t, batches[20].offset)
        ),
        "all of the ledger after its 40th record": lambda t: (
            (t.topic == "ledger" and t.offset >= 40) or decided_by_ledger(t, 40)
        ),
        "a batch after the last decision": lambda t: t is next(t for t in behind if t in batches),
        "a tick after the last decision": lambda t: t is next(t for t in behind if t not in batches),
        "the last ledger record": lambda t: t is ledger[-1],
        "all commands": lambda t: t.topic == "control",
        "the newest command": lambda t: t is [t for t in records if t.topic == "control"][-1],
        "all acks": lambda t: t.topic == "acks",
        "the ledger": lambda t: t.topic == "ledger",
        "the ledger's configuration": lambda t: t is ledger[0],
        "all sources": lambda t: t.topic in ("predictions", "feedback"),
        "all checkpoints and the last ledger records": lambda t: t.key == CHECKPOINT_KEY or t in ledger[-3:],
    }
    return [taken for taken in records if not out[name](taken)]


@pytest.mark.parametrize("keys", [True, False])
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("batches after the 20th, the rollback and its commands", "ledger[0]: record"),
        ("all of the ledger after its 40th record", "are in no batch"),
        ("a batch after the last decision", "ledger[0]: record"),
        ("a tick after the last decision", "ledger[0]: record"),
        ("the last ledger record", "which the checkpoint decisions[0]@"),
        ("all commands", "control[0]: records 0 to "),
        ("the newest command", "control[0]: record"),
        ("all acks", "acks[0]"),
        ("the ledger", "ledger[0]: its configuration, record 0, is absent"),
        ("the ledger's configuration", "ledger[0]: record 0 is absent"),
        ("all sources", "predictions[0]: records 0 to "),
        ("all checkpoints and the last ledger records", "decisions[0]: record"),
    ],
)
def test_evidence_that_was_cut_out_is_named(name: str, named: str, keys: bool) -> None:
    whole = complete("embedded")
    result = audited(taken_out(name, whole.records), whole, keys=keys)
    assert result.first_difference is not None
    assert named in " ".join([result.first_difference.sentence(), *result.missing])

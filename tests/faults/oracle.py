"""What must hold at the end of every fault, computed from what the topics hold and from what the replicas wrote down.

The count of outcomes is computed here by the rule of the join itself, from the two source topics alone; the code of the
monitor has no part in it. What replicas may obey is what a fold of the ledger desires at each of its records.
"""

import asyncio
import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any, NamedTuple

from actions.journal import Decision
from streams.fold.fold import Fold
from streams.ledger.entries import read_entry
from streams.ledger.records import Batch
from streams.topics.partitioner import partition_of
from tests.faults.scene import LEDGER, REPLICAS, Scene
from unship.codec import decode_value
from unship.commands import Command, decode_command
from unship.events import Feedback, Prediction
from unship.keys import load_trust
from unship.signing import COMMAND_TYPE, TrustedKey, verify

HORIZON_MS, EARLY_MS = 10 * 60_000, 2 * 60_000
#: What is counted beside outcomes when nothing is wrong: a replica that has not switched yet, a producer that was made
#: again and sent twice, a deployment that names what is known.
HARMLESS = {"STILL_SERVED", "ROLE_MISMATCH", "DUPLICATE", "DUPLICATE_FEEDBACK", "DUPLICATE_DEPLOYMENT"}
UNMATCHED = "UNMATCHED_FEEDBACK"
Epoch = tuple[int, int, int]


class Placed(NamedTuple):
    """An event with its partition's join clock at it."""

    event: Any
    clock: int


class Sources(NamedTuple):
    """What the source topics hold: distinct events, how many were there twice, and outcomes by model and version.

    Labels are `lonely` whose prediction was never written: its replica was killed with it in its hands.
    """

    predictions: int
    feedback: int
    twice: int
    lonely: int
    outcomes: dict[str, dict[str, int]]
    ids: frozenset[str]
    told: dict[tuple[str, str], list[tuple[int, Epoch, str]]]


async def sources_of(scene: Scene) -> Sources:
    """Join the source topics by the rule: the first answer and the first prediction that may have each other."""
    predictions = _by_id(await scene.records("predictions"), "prediction")
    feedback = _by_id(await scene.records("feedback"), "feedback")
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    twice = distinct = 0
    told: dict[tuple[str, str], list[tuple[int, Epoch, str]]] = defaultdict(list)
    for id_, placed in predictions.items():
        apart: dict[tuple[str, str], list[Placed]] = defaultdict(list)
        for each in placed:
            apart[each.event.model, each.event.version].append(each)
        distinct += len(apart)
        twice += len(placed) - len(apart)
        for (model, version), these in apart.items():
            if joined(these, feedback.get(id_, [])):
                outcomes[model][version] += 1
            event = these[0].event
            if event.role == "live" and event.epoch is not None:
                number = int(id_.rpartition("-")[2])
                told[model, event.replica].append((number, tuple(event.epoch), version))
    twice += sum(len(placed) - 1 for placed in feedback.values())
    shown = {model: dict(sorted(versions.items())) for model, versions in outcomes.items()}
    lonely = len(feedback.keys() - predictions.keys())
    return Sources(distinct, len(feedback), twice, lonely, shown, frozenset(predictions), told)


def _by_id(records: list[Any], kind: str) -> dict[str, list[Placed]]:
    clocks: dict[int, int] = defaultdict(lambda: -1)
    found: dict[str, list[Placed]] = defaultdict(list)
    for record in records:
        clocks[record.partition] = max(clocks[record.partition], record.timestamp)
        event = decode_value(kind, record.value)
        assert isinstance(event, Prediction | Feedback), (record, event)
        found[event.id].append(Placed(event, clocks[record.partition]))
    return found


def joined(predictions: list[Placed], feedback: list[Placed]) -> bool:
    """Whether some answer and some prediction are each the first that the other may have; offsets rise in each list."""

    def may(p: Placed, f: Placed) -> bool:
        return -EARLY_MS <= f.clock - p.clock <= HORIZON_MS

    for p in predictions:
        first = next((f for f in feedback if may(p, f)), None)
        if first is not None and next(q for q in predictions if may(q, first)) is p:
            return True
    return False


class Folded(NamedTuple):
    """What a fold of the ledger gives: each state that was ever desired, the decisions, and what was counted."""

    desired: dict[tuple[str, Epoch], tuple[str | None, str, str | None]]
    decisions: list[Decision]
    rejected: Counter[str]
    gap_s: float


async def folded(scene: Scene) -> Folded:
    """Fold the ledger from its beginning, as whoever audits it does."""
    folds = [Fold(scene.config) for _ in range(LEDGER)]
    desired: dict[tuple[str, Epoch], tuple[str | None, str, str | None]] = {}
    decided: list[Decision] = []
    rows: list[list[int]] = [[] for _ in folds]
    for record in await scene.records("ledger"):
        fold = folds[record.partition]
        fold.offset = record.offset
        entry = read_entry(record.value)
        decided += fold.step(entry)
        if isinstance(entry.record, Batch) and any(part.outcomes.arm.size for part in entry.record.parts):
            rows[record.partition].append(record.timestamp)
        for model, state in fold.commanded().items():
            desired[model, state.epoch] = (state.serve, state.action, state.decision)
    counted = sum((fold.counts() for fold in folds), Counter[str]())
    gaps = [b - a for each in rows for a, b in pairwise(each) if b >= scene.broken_at_ms > 0]
    return Folded(desired, decided, counted, max(gaps, default=0) / 1_000)


async def check(scene: Scene) -> None:
    """Check everything; the traffic has ended.

    Raises:
        AssertionError: with what does not hold.
    """
    sources = await sources_of(scene)
    # Where the sources were begun anew, what they hold now counts beside what was counted until then.
    expected = _sum(scene.before, sources.outcomes)

    async def counted() -> Any:
        return await scene.site.outcomes() == expected

    await scene.site.until(counted, f"status counts {expected}")
    fold = await folded(scene)
    # They are counted once nothing can answer them any more.
    unmatched = fold.rejected.pop(UNMATCHED, 0)
    assert unmatched <= sources.lonely, f"{unmatched} labels of nothing, the topics have {sources.lonely}"
    left = {str(reason): count for reason, count in fold.rejected.items() if count and str(reason) not in HARMLESS}
    assert left == scene.declared, f"counted beside outcomes: {left}"
    journal = await scene.site.decisions()
    assert {d["id"] for d in journal} == {d.id for d in fold.decisions}, "the journal is not what the ledger leads to"
    acts = [(d["model"], d["version"], d["to"]) for d in journal if d["action"] != "none"]
    assert sorted(acts) == sorted(scene.decayed), f"decided {acts}, expected {scene.decayed}"
    await commands_are_desired(scene, fold)
    for name in REPLICAS:
        obeyed_what_was_desired(scene, name, fold, sources)
    everything_sent_is_there(scene, sources)
    audited = await asyncio.to_thread(scene.site.unship, "audit", scene.log)
    assert audited.returncode == 0, audited.stdout.decode() + audited.stderr.decode()
    scene.figures |= {
        "predictions": sources.predictions, "feedback": sources.feedback, "twice": sources.twice,
        "lonely": sources.lonely,
        "outcomes": sum(sum(versions.values()) for versions in sources.outcomes.values()),
        "decisions": len(journal), "rollbacks": len(acts), "gap_s": fold.gap_s,
    }  # fmt: skip


def _sum(one: dict[str, dict[str, int]], other: dict[str, dict[str, int]]) -> dict[str, dict[str, int]]:
    models = sorted(one.keys() | other.keys())
    summed = {model: Counter(one.get(model, {})) + Counter(other.get(model, {})) for model in models}
    return {model: dict(sorted(versions.items())) for model, versions in summed.items()}


async def commands_are_desired(scene: Scene, fold: Folded) -> None:
    """Every command is signed, says what the ledger desires under its epoch, and no older one comes behind it."""
    trust = load_trust(scene.folder / "unship-keys" / "trust.json")
    newest: dict[str, Epoch] = {}
    for record in await scene.records("control"):
        assert isinstance(verify(record.value, record.headers, trust, "controller", COMMAND_TYPE), TrustedKey)
        command = decode_command(record.value)
        assert isinstance(command, Command)
        assert record.partition == partition_of(command.model.encode(), LEDGER)
        assert command.epoch >= newest.get(command.model, command.epoch), f"{command} after {newest[command.model]}"
        newest[command.model] = command.epoch
        wanted = fold.desired.get((command.model, command.epoch))
        assert wanted == (command.serve, command.action, command.decision), f"{command}, desired {wanted}"


def obeyed_what_was_desired(scene: Scene, name: str, fold: Folded, sources: Sources) -> None:
    """What a replica obeyed rises, over its restarts too, and is what the ledger desires; its answers show no other."""
    newest: dict[str, Epoch] = {}
    served: dict[tuple[str, Epoch], str] = {}
    for line in scene.obeyed(name):
        if line.get("epoch") is None:
            # Before its first command, or the end of a life.
            continue
        model, epoch, version = line["model"], tuple(line["epoch"]), line["version"]
        assert (model, epoch) in fold.desired, f"{name} obeyed {line}, which the ledger never desired"
        assert fold.desired[model, epoch][0] == version, f"{name} serves {line}, desired {fold.desired[model, epoch]}"
        again = newest.get(model) == epoch and served[model, epoch] == version
        assert again or epoch > newest.get(model, (-1, -1, -1)), f"{name} went back to {line} from {newest[model]}"
        newest[model], served[model, epoch] = epoch, version
    for (model, replica), answers in sources.told.items():
        if replica == name:
            unknown = [each for each in answers if served.get((model, each[1])) != each[2]]
            assert not unknown, f"{name} answered {unknown[:3]} for {model}, and wrote down {served}"


def everything_sent_is_there(scene: Scene, sources: Sources) -> None:
    """What the replicas were told is written stands in the topics; a life that was killed has said nothing."""
    for name in REPLICAS:
        for line in scene.obeyed(name):
            if "answered" in line:
                assert line["flushed"], f"{name}: {line}"
                assert line["dropped"] == {}, f"{name}: {line}"
                model, boot = line["model"], line["boot"]
                missing = [n for n in range(line["answered"]) if f"{model}-{name}-{boot}-{n}" not in sources.ids]
                if scene.brokers_lost:
                    scene.figures["lost"] = scene.figures.get("lost", 0) + len(missing)
                    continue
                assert not missing, f"{name} lost {len(missing)} predictions of {model}, the first is {missing[0]}"
            elif "labels" in line:
                assert line["labels"], f"{name}: {line}"
                assert line["dropped"] == {}, f"{name}: {line}"


def shown(figures: dict[str, Any]) -> str:
    """Return the figures of a run in one line."""
    return json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in figures.items()})

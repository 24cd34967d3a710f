"""Records that nobody should send: what a stranger, a broken client or an attacker may append to any topic."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from unship.log.link import Message

WRITABLE = ("predictions", "feedback", "deployments", "operator", "acks", "control", "decisions")
"""Topics that somebody beside the monitor may write; on an embedded log everybody may write all of them."""

TIMES = (0, 1, -1, 2**31, 1_700_000_000, 1_700_000_000_000, 4_102_444_800_000, 2**53, 2**63, 1e308, "2096-01-01", None)
HUGE = 2**53

names = st.sampled_from(
    ["m", "fraud", "v1", "x", "", " ", "a/b", "../..", "\x00", "\x1b[2J", "<script>", "\u202eabc", "\ud83d\ude00" * 3]
    + ["n" * size for size in (127, 128, 129, 4_096)]
)
scalars = st.sampled_from([None, True, False, 0, 1, -1, 0.5, 1e308, HUGE, -HUGE, 2**64, "1", "text", "t" * 2_000])
outputs = scalars | st.lists(scalars, max_size=4) | st.dictionaries(names, scalars, max_size=2)
times = st.sampled_from(TIMES)
epochs = st.sampled_from([[0, 0, 0], [HUGE, HUGE, HUGE], [HUGE, 0, 0], [0, HUGE, 0], [-1, 0, 0], [1], "x", None])
slices = st.dictionaries(names, scalars | names, max_size=5) | st.just({f"s{i}": "v" * 100 for i in range(33)})

FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "predictions": {
        "id": names, "model": names, "version": names, "output": outputs, "row": scalars, "target": names,
        "score": scalars, "scores": st.dictionaries(names, scalars, max_size=3), "slices": slices,
        "role": st.sampled_from(["live", "shadow", "holdback", "x", None]), "latency_ms": scalars, "error": names,
        "replica": names, "epoch": epochs, "artifact": names, "unit_hash": scalars,
    },
    "feedback": {
        "id": names, "truth": outputs, "model": names, "row": scalars, "target": names, "source": names,
        "engagement": scalars, "retract": scalars,
    },
    "deployments": {
        "model": names, "version": names, "status": st.sampled_from(["live", "shadow", "holdback", "retired", "x"]),
        "previous": names, "artifact": names, "reference": st.just({"zero_one": {"mean": 0.0, "n": HUGE}}) | scalars,
        "card": outputs, "parts": outputs,
    },
    "operator": {
        "act": st.sampled_from(["hold", "pin", "renew", "rollback", "release", "approve", "x"]), "model": names,
        "reason": names, "by": names, "version": names, "to": names, "incarnation": scalars, "override": scalars,
        "audience": names, "nonce": names, "issued_ts": times, "not_after_ts": times,
    },
    "acks": {
        "model": names, "replica": names, "boot": names, "epoch": epochs, "serving": names, "code": names,
        "stage": st.sampled_from(["received", "serving", "refused", "left", "x"]), "beside": outputs,
    },
    "control": {
        "model": names, "epoch": epochs, "serve": names, "quarantine": outputs, "action": names, "issued_ts": times,
        "not_after_ts": times, "audience": names, "decision": names,
    },
    "decisions": {"type": st.just("decision"), "id": names, "model": names, "epoch": epochs, "digests": outputs},
}  # fmt: skip

headers = st.lists(
    st.tuples(
        st.sampled_from(["unship_sig", "unship_key", "ce_type", ""]), st.binary(max_size=90) | st.just(b"A" * 88)
    ),
    max_size=3,
)
garbage = st.sampled_from(
    [
        None, b"", b"{", b"[]", b"[[]]", b"null", b"1", b'"x"', b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"NaN", b"{} {}",
        b"[" * 70_000, b'{"a":' * 5_000, b"x" * 200_000, b"1" * 6_000, b'{"id":' + b"1" * 6_000 + b"}",
        b"[" + b",".join([b'{"id":"p","truth":1}'] * 65) + b"]",
    ]
)  # fmt: skip


@st.composite
def hostile_records(draw: st.DrawFn) -> tuple[str, Message]:
    """Return a topic and a record for it: odd bytes, an event with odd fields, or many such events in one record."""
    topic = draw(st.sampled_from(WRITABLE))
    key = draw(st.sampled_from([None, b"", b"m", b"fraud", b"fraud/r", b"\xff", b"k" * 2_000]))
    if draw(st.integers(0, 4)) == 0:
        return topic, Message(draw(garbage), key, tuple(draw(headers)))
    events = draw(st.lists(_event(topic), min_size=1, max_size=1 if draw(st.booleans()) else 3))
    value = events[0] if len(events) == 1 else events
    text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return topic, Message(text, key, tuple(draw(headers)))


@st.composite
def _event(draw: st.DrawFn, topic: str) -> dict[str, Any]:
    """Return an event in which each field is there mostly, and right sometimes."""
    event: dict[str, Any] = {}
    for field, values in FIELDS[topic].items():
        if draw(st.integers(0, 9)) < 7:
            event[field] = draw(values)
    if draw(st.booleans()):
        event["ts"] = draw(times)
    return event


def _record(key: str, **fields: Any) -> Message:
    return Message(json.dumps(fields, ensure_ascii=False).encode(), key.encode())


def _prediction(key: str, **fields: Any) -> tuple[str, Message]:
    return "predictions", _record(key, **({"id": key, "model": "m", "version": "v", "output": 1} | fields))


def _label(key: str, **fields: Any) -> tuple[str, Message]:
    return "feedback", _record(key, **({"id": key, "truth": 0} | fields))


def versions_of_one_id(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return many versions, live and shadow in turn, of one request, and its one label."""
    key = f"one-{begin}"
    roles = ("live", "shadow")
    flood = [_prediction(key, model=model, version=f"x{i}", role=roles[i % 2]) for i in range(size - 1)]
    return [*flood, _label(key)]


def repeats(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return one prediction again and again, and labels that contradict each other."""
    key = f"repeat-{begin}"
    flood = [_prediction(key, model=model, output=i % 3) for i in range(size * 9 // 10)]
    return [*flood, *(_label(key, truth=i % 2, source=f"s{i}") for i in range(size - len(flood)))]


def early_labels(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return labels of an id that nobody predicted, then predictions of it."""
    key = f"early-{begin}"
    flood = [_label(key, truth=i % 2) for i in range(size * 9 // 10)]
    return [*flood, *(_prediction(key, model=model, version=f"e{i}") for i in range(size - len(flood)))]


def never_predicted(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return labels, each of an id that nobody predicted, some of them long lists."""
    return [_label(f"never-{begin}-{i}", model=model, truth="t" * 900 if i % 9 == 0 else 1) for i in range(size)]


def long_slices(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return predictions with eight long slice values each, and their labels."""
    flood: list[tuple[str, Message]] = []
    for i in range(size // 2):
        values = dict.fromkeys("abcdefgh", "\U0001f600" * 110 + f"{begin}-{i}")
        flood.append(_prediction(f"long-{begin}-{i}", model=model, slices=values))
    return [*flood, *(_label(f"long-{begin}-{i}") for i in range(size - len(flood)))]


def invented_replicas(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return predictions that each come from a replica of their own."""
    return [_prediction(f"r-{begin}-{i}", model=model, replica=f"{begin}-{i}-" + "x" * 90) for i in range(size)]


def invented_models(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return predictions that each belong to a model of their own, and labels of some."""
    flood = [_prediction(f"m-{begin}-{i}", model=f"{model}-{begin}-{i}") for i in range(size * 9 // 10)]
    return [*flood, *(_label(f"m-{begin}-{i}") for i in range(size - len(flood)))]


def invented_versions(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return predictions that each come from a version of their own, and labels of some."""
    flood = [_prediction(f"v-{begin}-{i}", model=model, version=f"v-{begin}-{i}") for i in range(size * 9 // 10)]
    return [*flood, *(_label(f"v-{begin}-{i}") for i in range(size - len(flood)))]


def invented_holdbacks(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return eight versions that call themselves a holdback, and their labels."""
    half = size // 2
    flood = [_prediction(f"h-{begin}-{i}", model=model, version=f"h{i % 8}", role="holdback") for i in range(half)]
    return [*flood, *(_label(f"h-{begin}-{i}") for i in range(size - half))]


def invented_units(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return answers of a live version and of a holdback, each for a unit of its own, and their labels."""
    half = size // 2
    arms: list[dict[str, Any]] = [{"version": "v"}, {"version": "u", "role": "holdback"}]
    hashes = [(begin + i) * 2_654_435_761 % 2**32 for i in range(half)]
    flood = [_prediction(f"u-{begin}-{i}", model=model, unit_hash=hashes[i], **arms[i % 2]) for i in range(half)]
    return [*flood, *(_label(f"u-{begin}-{i}") for i in range(size - half))]


def many_classes(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return predictions with a score for each of hundreds of classes, or with a long text as output."""
    scores = {f"class-{i}": 0.001 for i in range(200)}
    odd: list[dict[str, Any]] = [{"scores": scores}, {"output": "text" * 250}, {"output": ["item"] * 500}]
    return [_prediction(f"c-{begin}-{i}", model=model, **odd[i % 3]) for i in range(size)]


def forged_orders(model: str, size: int, begin: int) -> list[tuple[str, Message]]:
    """Return deployments, acts, acks and commands of a stranger."""
    deployment = {"model": model, "status": "live", "ts": 946_684_800_000}
    ack = {"model": model, "boot": "b", "epoch": [HUGE, HUGE, HUGE], "stage": "refused", "code": "LOAD_FAILED"}
    flood: list[tuple[str, Message]] = []
    for i in range(begin, begin + size // 4):
        flood += [
            ("deployments", _record(model, **deployment, version=f"evil-{i}")),
            ("operator", _record(model, act="rollback", model=model, to=f"evil-{i}", reason="r", by="b", nonce=f"{i}")),
            ("acks", _record(f"{model}/evil-{i % 3000}", **ack, replica=f"evil-{i % 3000}", serving="v")),
            ("control", _record(model, model=model, epoch=[HUGE, i, 0], serve="evil", audience="prod")),
        ]
    return flood


FLOODS = (
    versions_of_one_id,
    repeats,
    early_labels,
    never_predicted,
    long_slices,
    invented_replicas,
    invented_models,
    invented_versions,
    invented_holdbacks,
    invented_units,
    many_classes,
    forged_orders,
)
"""Floods of one kind each: `flood(model, size, begin)` returns about `size` records; `begin` makes names differ."""

"""Replica facts are compared with every answer of the record that they name."""

from __future__ import annotations

import io

from actions.facts import ReplicaChange
from streams.audit.copies import Copies
from streams.ledger.records import ReplicaFacts
from streams.recordings.lines import Taken, line_of
from streams.recordings.recorded_topics import RecordedTopics
from unship.codec import encode_line
from unship.events import Prediction
from unship.log.packed import pack_values


def copies_of(*events: Prediction) -> Copies:
    ((value, _),) = pack_values(map(encode_line, events))
    line = line_of(Taken("predictions", 0, 0, 1_000, events[0].id.encode(), value))
    return Copies(RecordedTopics(io.BytesIO(line + b"\n")), None)


def answer(number: int, replica: str, version: str = "v1") -> Prediction:
    return Prediction(id=f"p{number}", model="m", version=version, output=1, replica=replica)


def facts(replica: str, version: str = "v1") -> ReplicaFacts:
    change = ReplicaChange(replica, True, "serving", version, None, None, 1_000, ("predictions", 0, 0))
    return ReplicaFacts(1_000, "m", [change])


def test_fact_that_any_answer_of_the_record_shows_is_no_difference():
    copies = copies_of(answer(0, "r0"), answer(1, "r1", "v2"), answer(2, "r2"))
    for shown in (facts("r0"), facts("r1", "v2"), facts("r2")):
        assert copies.check_facts(shown) is None


def test_fact_that_no_answer_of_the_record_shows_is_a_difference():
    copies = copies_of(answer(0, "r0"), answer(1, "r1", "v2"))
    assert copies.check_facts(facts("r1", "v1")) is not None
    assert copies.check_facts(facts("r9")) is not None
    assert copies_of(answer(0, "r0")).check_facts(facts("r1")) is not None

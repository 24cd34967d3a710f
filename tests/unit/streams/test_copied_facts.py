"""What the ledger says of replicas is compared with the answers that showed it, as far as these are still there."""

from collections.abc import Mapping, Sequence
from typing import cast

from streams.copied import Copies
from streams.recording import Taken, Topics
from streams.records import ReplicaChange, ReplicaFacts
from unship.codec import encode_line
from unship.events import Prediction

PLACE = ("predictions", 2)


class OneAnswer:
    """A log that holds one answer of replica r-1."""

    def ends(self) -> Mapping[tuple[str, int], int]:
        return {PLACE: 1}

    def first(self, topic: str, partition: int) -> int:
        return 0

    def read(self, topic: str, partition: int, offset: int) -> Sequence[Taken]:
        value = encode_line(Prediction(id="p", model="m", version="v", output=1, replica="r-1"))
        return [Taken(topic, partition, 0, 5, b"p", value)]


def facts(replica: str) -> ReplicaFacts:
    change = ReplicaChange(replica, True, "serving", "v", None, None, 5, (*PLACE, 0))
    return ReplicaFacts(-1, (0, -1), "", "m", [change])


def test_answer_of_another_replica_than_the_ledger_says_is_a_difference() -> None:
    copies = Copies(cast(Topics, OneAnswer()), None)
    assert copies.check_facts(facts("r-1")) is None
    found = copies.check_facts(facts("r-2"))
    assert found is not None
    assert "predictions[2]@0" in found.what


def test_answers_of_a_partition_that_was_begun_anew_are_not_asked_for() -> None:
    copies = Copies(cast(Topics, OneAnswer()), None)
    assert copies.check_facts(facts("r-2"), {2}) is None
    assert copies.check_facts(facts("r-2"), {1}) is not None

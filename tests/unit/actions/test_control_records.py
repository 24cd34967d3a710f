"""What a monitor believes of the topic `control`: signed by a controller, for this audience, under the model's key."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from actions.control_records import trusted_commands, trusted_decisions
from actions.evidence_tree import Evidence
from actions.journal import Decision, DecisionHead, decision_bytes, read_decision
from actions.reconcile import AHEAD_MAX_MS, SteadyClock
from tests.decisions import decision
from tests.keys import CONTROLLER, TRUST
from unship.commands import Command, encode_command
from unship.events import TS_MS_MAX
from unship.signing import COMMAND_TYPE, DECISION_TYPE, OPERATOR_TYPE, Headers, Trust, sign


class Entry(NamedTuple):
    """A record of a control topic."""

    value: bytes | None
    key: bytes | None
    headers: Headers


def command(model: str = "m", **different: Any) -> Command:
    usual: dict[str, Any] = {
        "model": model,
        "epoch": (0, 1, 0),
        "serve": "v1",
        "quarantine": (),
        "action": "deploy",
        "issued_ts": 1_000,
        "not_after_ts": 2_000,
        "audience": "prod",
    }
    return Command(**(usual | different))


def signed(stated: Command, key: str | None = None, kind: str = COMMAND_TYPE) -> Entry:
    value = encode_command(stated)
    return Entry(value, (key or stated.model).encode(), sign(value, CONTROLLER, kind))


def unsigned(stated: Command) -> Entry:
    return signed(stated)._replace(headers=())


GENUINE = signed(command())


def believed(*records: Entry) -> tuple[list[Command], list[Entry]]:
    """Return the commands that are believed, in the order of their models, and the forged records."""
    newest, forged = trusted_commands(records, TRUST)
    return [stated for _, (_, stated) in sorted(newest.items())], list(forged)


def test_newest_authentic_command_of_each_model_is_believed() -> None:
    newer, other = command(epoch=(0, 2, 0)), command("other")
    assert believed(GENUINE, signed(newer), signed(other)) == ([newer, other], [])


@pytest.mark.parametrize(
    "forged",
    [
        unsigned(command(epoch=(9, 9, 9))),
        GENUINE._replace(value=encode_command(command(epoch=(9, 9, 9)))),
        signed(command(epoch=(9, 9, 9)), kind=OPERATOR_TYPE),
        signed(command(epoch=(9, 9, 9)), kind=DECISION_TYPE),
        signed(command(epoch=(9, 9, 9), audience="test")),
        signed(command("other", epoch=(9, 9, 9)), key="m"),
        Entry(b"no command", b"m", ()),
        Entry(b"", b"m", ()),
    ],
    ids=["unsigned", "changed", "act", "decision", "another-audience", "another-key", "bytes", "nothing"],
)
def test_forged_record_is_counted_and_what_came_before_it_is_believed(forged: Entry) -> None:
    assert believed(GENUINE, forged) == ([command()], [forged])
    assert believed(forged) == ([], [forged])


def test_tombstone_is_no_forgery() -> None:
    assert believed(GENUINE, Entry(None, b"m", ())) == ([command()], [])


def test_signed_record_of_a_newer_contract_is_neither_believed_nor_forged() -> None:
    value = encode_command(command()).replace(b'"schema":1', b'"schema":2')
    newer = Entry(value, b"m", sign(value, CONTROLLER, COMMAND_TYPE))
    assert believed(GENUINE, newer) == ([command()], [])


def test_without_keys_no_command_is_believed() -> None:
    assert trusted_commands([GENUINE], None) == ({}, [])
    assert trusted_commands([GENUINE], Trust((), "prod")) == ({}, [GENUINE])


def journalled(decision: Decision, kind: str | None = DECISION_TYPE) -> Entry:
    value = decision_bytes(decision)
    return Entry(value, decision.model.encode(), () if kind is None else sign(value, CONTROLLER, kind))


def decided(epoch: tuple[int, int, int]) -> Decision:
    return decision(Evidence(), epoch=epoch)


def head_of(entry: Entry) -> DecisionHead | None:
    return read_decision(entry.value)


@pytest.mark.parametrize("kind", [None, COMMAND_TYPE], ids=["unsigned", "signed-as-a-command"])
def test_decision_that_no_controller_signed_as_one_is_not_believed(kind: str | None) -> None:
    genuine, forged = journalled(decided((0, 1, 0))), journalled(decided((0, 2**53, 0)), kind)
    assert trusted_decisions([genuine, forged], TRUST) == ({"m": (genuine, head_of(genuine))}, [forged])


def test_without_keys_the_journal_is_believed_as_it_is() -> None:
    first, second = journalled(decided((0, 1, 0)), None), journalled(decided((0, 2, 0)), None)
    assert trusted_decisions([first, second], None) == ({"m": (second, head_of(second))}, [])


def test_clock_follows_a_published_time_no_further_than_its_limit() -> None:
    clock = SteadyClock()
    clock.reached(TS_MS_MAX, reading_ms=1_000)
    assert clock.at(1_000) == 1_000 + AHEAD_MAX_MS
    clock.reached(0, reading_ms=1_000)
    assert clock.at(1_001) == 1_001 + AHEAD_MAX_MS

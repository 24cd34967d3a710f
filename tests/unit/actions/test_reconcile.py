"""What goes out on the control topic, and when."""

from actions.desired import DesiredState
from actions.reconcile import QUARANTINE_MAX, Timing, command_of, conflicting, due_commands
from actions.versions import VersionFacts, Versions
from unship.commands import Quarantined, decode_command, encode_command

TIMING = Timing(beat_ms=1_000, valid_ms=5_000)


def desired(serve: str | None = "v1", epoch: tuple[int, int, int] = (0, 7, 0)) -> DesiredState:
    return DesiredState(
        Versions({"v1": VersionFacts(artifact="sha256:a")}), serve=serve, artifact="sha256:a", epoch=epoch
    )


def test_nothing_is_commanded_while_nothing_is_desired() -> None:
    assert due_commands({"m": desired(serve=None)}, {}, "prod", 100, TIMING) == []


def test_first_command_states_everything_that_replicas_need() -> None:
    (command,) = due_commands({"m": desired()}, {}, "prod", 100, TIMING)
    assert (command.model, command.serve, command.artifact, command.epoch) == ("m", "v1", "sha256:a", (0, 7, 0))
    assert (command.issued_ts, command.not_after_ts, command.audience) == (100, 5_100, "prod")
    assert decode_command(encode_command(command)) == command


def test_same_state_is_asserted_again_only_when_the_beat_is_due() -> None:
    (first,) = due_commands({"m": desired()}, {}, "prod", 100, TIMING)
    assert due_commands({"m": desired()}, {"m": first}, "prod", 1_099, TIMING) == []
    (again,) = due_commands({"m": desired()}, {"m": first}, "prod", 1_100, TIMING)
    assert (again.epoch, again.issued_ts) == (first.epoch, 1_100)


def test_higher_epoch_goes_out_at_once() -> None:
    (first,) = due_commands({"m": desired()}, {}, "prod", 100, TIMING)
    (second,) = due_commands({"m": desired(epoch=(0, 8, 0))}, {"m": first}, "prod", 101, TIMING)
    assert second.epoch == (0, 8, 0)


def test_command_ahead_of_the_ledger_is_left_alone_and_named() -> None:
    ahead = command_of("m", desired(epoch=(0, 9, 0)), "prod", 0, TIMING)
    assert ahead is not None
    models = {"m": desired(), "n": desired()}
    assert [command.model for command in due_commands(models, {"m": ahead}, "prod", 10_000, TIMING)] == ["n"]
    assert conflicting(models, {"m": ahead}) == ["m"]


def test_quarantine_in_a_command_is_bounded_to_the_newest() -> None:
    state = desired()
    state.quarantine = [Quarantined(f"w{i}", None) for i in range(QUARANTINE_MAX + 10)]
    command = command_of("m", state, "prod", 0, TIMING)
    assert command is not None
    assert len(command.quarantine) == QUARANTINE_MAX
    assert command.quarantine[-1].version == f"w{QUARANTINE_MAX + 9}"


def test_release_changes_the_epoch_so_that_no_two_contents_share_one() -> None:
    state = desired()
    state.quarantine = [Quarantined("w", None)]
    state.release("w", (0, 9, 0))
    assert (state.quarantine, state.epoch, state.action) == ([], (0, 9, 0), "release")

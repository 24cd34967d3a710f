"""What a replica obeys: each verdict, each refusal, what is served meanwhile, and what it says about it."""

from __future__ import annotations

from typing import get_args

import pytest

from tests.unit.sdk.replica.judging import (
    BASE,
    BOOTED,
    CONTROLLER,
    FIRST,
    NEW_CONTROLLER,
    NOW,
    OPERATOR,
    SERVING,
    STRANGER,
    TRUST,
    WHO,
    accepted,
    assert_refused,
    command,
    judged,
    owed,
    trust_of,
)
from unship.codec import decode_value, encode_line
from unship.commands import COMMAND_BYTES_MAX, encode_command
from unship.events import RefusalCode
from unship.replica.fence import (
    Serving,
    Target,
    acks,
    boot,
    encode_state,
    is_stale,
    judge,
    load_failed,
    must_store,
    pending,
    restore,
    serving,
    staged,
    switched,
)
from unship.signing import COMMAND_TYPE, OPERATOR_TYPE, sign

# ------------------------------------------------------------------------------------ accepted and refreshed


def test_first_command_is_accepted_and_serves_only_after_its_load():
    state = accepted(BOOTED, BASE)
    assert state.epoch == (1, 10, 0)
    assert state.serving == Serving("v42", None, "sha256:42")
    assert pending(state) == Target("v41", "sha256:41", (1, 10, 0))
    state = switched(state, Target("v41", "sha256:41", (1, 10, 0)))
    assert state.serving == Serving("v41", (1, 10, 0), "sha256:41")
    assert pending(state) is None


@pytest.mark.parametrize("epoch", [(1, 10, 1), (1, 11, 0), (2, 0, 0)])
def test_higher_epoch_is_accepted_index_offset_and_incarnation(epoch):
    assert accepted(SERVING, command(epoch=epoch, serve="v43", artifact=None)).epoch == epoch


@pytest.mark.parametrize("epoch", [(1, 9, 9), (0, 2**53, 9), (1, 0, 0), (0, 0, 0)])
def test_lower_epoch_is_a_regression_whatever_its_offset(epoch):
    assert_refused(SERVING, judged(SERVING, command(epoch=epoch)), "REGRESSION")


def test_epoch_zero_is_accepted_by_a_replica_that_has_none():
    assert accepted(BOOTED, command(epoch=(0, 0, 0))).epoch == (0, 0, 0)


def test_same_bytes_again_are_a_refresh_that_changes_nothing():
    after, verdict = judged(SERVING, BASE, now_ms=NOW + 5)
    assert verdict.kind == "REFRESH"
    assert after == SERVING


def test_renewal_under_the_same_epoch_is_a_refresh_and_renews_freshness():
    after, verdict = judged(SERVING, command(issued_ts=NOW + 5_000, not_after_ts=NOW + 65_000), now_ms=NOW + 5_001)
    assert verdict.kind == "REFRESH"
    assert (after.issued_ts, after.heard_ts) == (NOW + 5_000, NOW + 5_001)
    assert not must_store(SERVING, after)


@pytest.mark.parametrize(
    "change",
    [
        {"serve": "v40"},
        {"artifact": None},
        {"quarantine": ()},
        {"action": "pin"},
        {"decision": "d-11"},
    ],
)
def test_same_epoch_with_other_content_is_equivocation(change):
    assert_refused(SERVING, judged(SERVING, command(**change)), "EQUIVOCATION")


def test_refresh_of_an_expired_record_is_still_a_refresh_and_never_undoes_what_serves():
    after, verdict = judged(SERVING, BASE, now_ms=NOW + 10**9)
    assert verdict.kind == "REFRESH"
    assert after.serving == SERVING.serving


# ------------------------------------------------------------------------------------------------- refusals


def test_tombstone_means_nothing():
    assert_refused(SERVING, judge(SERVING, None, [], TRUST, NOW), "UNSUPPORTED_SCHEMA")


def test_value_over_the_limit_is_refused_unread():
    assert_refused(SERVING, judge(SERVING, b" " * (COMMAND_BYTES_MAX + 1), [], TRUST, NOW), "UNSUPPORTED_SCHEMA")


def test_unsigned_command_is_refused():
    verdict = assert_refused(BOOTED, judge(BOOTED, encode_command(BASE), [], TRUST, NOW), "BAD_SIGNATURE")
    assert verdict.command is None


def test_command_by_a_stranger_or_an_operator_is_by_an_unknown_key():
    for key in (STRANGER, OPERATOR):
        assert_refused(BOOTED, judged(BOOTED, BASE, key=key), "UNKNOWN_KEY")


def test_signature_of_another_command_is_bad():
    headers = sign(encode_command(BASE), CONTROLLER, COMMAND_TYPE)
    value = encode_command(command(serve="v42"))
    assert_refused(BOOTED, judge(BOOTED, value, headers, TRUST, NOW), "BAD_SIGNATURE")


def test_operator_act_signed_with_the_controllers_key_is_no_command():
    value = encode_command(BASE)
    assert_refused(BOOTED, judge(BOOTED, value, sign(value, CONTROLLER, OPERATOR_TYPE), TRUST, NOW), "BAD_SIGNATURE")


@pytest.mark.parametrize("change", [{"model": "churn"}, {"audience": "test"}])
def test_command_for_another_model_or_audience_is_refused(change):
    verdict = assert_refused(SERVING, judged(SERVING, command(epoch=(9, 9, 9), **change)), "WRONG_AUDIENCE")
    assert verdict.epoch == SERVING.epoch


@pytest.mark.parametrize("old", [b'"schema":1', b'"type":"command"'])
def test_signed_value_of_another_schema_or_type_is_unsupported(old):
    value = encode_command(BASE).replace(old, old.replace(b"1", b"2").replace(b"command", b"order"))
    assert_refused(
        BOOTED, judge(BOOTED, value, sign(value, CONTROLLER, COMMAND_TYPE), TRUST, NOW), "UNSUPPORTED_SCHEMA"
    )


def test_signed_value_with_a_key_twice_is_unsupported():
    value = encode_command(BASE)[:-1] + b',"serve":"v42"}'
    assert_refused(
        BOOTED, judge(BOOTED, value, sign(value, CONTROLLER, COMMAND_TYPE), TRUST, NOW), "UNSUPPORTED_SCHEMA"
    )


def test_new_command_after_its_time_is_expired_and_at_its_last_millisecond_is_not():
    assert_refused(BOOTED, judged(BOOTED, BASE, now_ms=BASE.not_after_ts + 1), "EXPIRED")
    accepted(BOOTED, BASE, now_ms=BASE.not_after_ts)


def test_clock_set_back_does_not_revive_an_expired_command():
    late = accepted(BOOTED, command(issued_ts=NOW + 10**6, not_after_ts=NOW + 2 * 10**6), now_ms=NOW + 10**6)
    old = command(epoch=(1, 11, 0), issued_ts=NOW, not_after_ts=NOW + 60_000)
    assert_refused(late, judged(late, old, now_ms=NOW), "EXPIRED")


def test_one_clock_that_ran_ahead_does_not_make_later_commands_expire():
    """A monitor a day ahead for a while, then corrected; then a replica a day ahead, corrected."""
    day = 86_400_000
    state = accepted(BOOTED, command(issued_ts=NOW + day, not_after_ts=NOW + day + 60_000))
    state = accepted(state, command(epoch=(1, 11, 0)))
    state = accepted(state, command(epoch=(1, 12, 0), not_after_ts=NOW + 2 * day), now_ms=NOW + day)
    accepted(state, command(epoch=(1, 13, 0)))


def test_artifact_that_is_not_registered_is_refused():
    assert_refused(BOOTED, judged(BOOTED, BASE, registered={"sha256:42"}), "UNREGISTERED_ARTIFACT")
    assert_refused(BOOTED, judged(BOOTED, command(artifact=None), registered={"sha256:41"}), "UNREGISTERED_ARTIFACT")
    assert_refused(BOOTED, judged(BOOTED, BASE, registered=()), "UNREGISTERED_ARTIFACT")
    accepted(BOOTED, BASE, registered={"sha256:41"})


@pytest.mark.parametrize(("version", "artifact"), [("v42", "sha256:42"), ("v42-retagged", "sha256:42"), ("v42", None)])
def test_command_to_serve_what_it_quarantines_is_refused(version, artifact):
    assert_refused(BOOTED, judged(BOOTED, command(serve=version, artifact=artifact)), "QUARANTINED")


def test_other_bytes_under_a_quarantined_name_may_serve():
    accepted(BOOTED, command(serve="v42", artifact="sha256:43"))


def test_refused_command_does_not_raise_the_highest_epoch():
    state, _ = judged(BOOTED, command(epoch=(5, 0, 0), serve="v42", artifact=None))
    assert accepted(state, BASE).epoch == (1, 10, 0)


# ---------------------------------------------------------------------------------------------- fail static


def test_failed_load_keeps_the_old_version_and_the_highest_epoch():
    state = accepted(SERVING, command(epoch=(1, 11, 0), serve="v43", artifact="sha256:43"))
    target = owed(state)
    ack = load_failed(state, target, WHO, NOW)
    assert (ack.stage, ack.code, ack.serving, ack.epoch) == ("refused", "LOAD_FAILED", "v41", (1, 11, 0))
    assert state.serving == SERVING.serving
    assert_refused(state, judged(state, BASE), "REGRESSION")
    state, verdict = judged(state, command(epoch=(1, 11, 0), serve="v43", artifact="sha256:43", issued_ts=NOW + 1))
    assert verdict.kind == "REFRESH"
    assert pending(state) == target
    assert acks(state, verdict, WHO, NOW) == []


def test_load_that_ends_after_a_newer_command_does_not_count_as_a_switch():
    state = accepted(SERVING, command(epoch=(1, 11, 0), serve="v43", artifact=None))
    slow = owed(state)
    state = accepted(state, command(epoch=(1, 12, 0), serve="v40", artifact=None))
    assert switched(state, slow) is state
    assert owed(state).version == "v40"


def test_command_for_what_serves_already_needs_no_load():
    state = accepted(SERVING, command(epoch=(1, 11, 0), decision="d-11"))
    assert state.serving == Serving("v41", (1, 11, 0), "sha256:41")
    assert pending(state) is None


def test_same_version_name_with_other_bytes_is_loaded():
    state = accepted(SERVING, command(epoch=(1, 11, 0), artifact="sha256:41b"))
    assert pending(state) == Target("v41", "sha256:41b", (1, 11, 0))


def test_same_bytes_under_another_version_name_are_loaded():
    assert owed(accepted(SERVING, command(epoch=(1, 11, 0), serve="v41b"))).version == "v41b"


def test_replica_that_boots_with_what_was_rolled_back_is_told_to_load_the_target():
    restored, loss = restore(encode_state(SERVING), "fraud", "prod")
    assert loss is None
    assert pending(restored) is None
    assert pending(boot(restored, "v42", "sha256:42")) == Target("v41", "sha256:41", (1, 10, 0))
    assert pending(boot(restored, "v41")) is None


def test_replica_that_died_between_store_and_switch_finishes_after_its_restart():
    restored, _ = restore(encode_state(accepted(BOOTED, BASE)), "fraud", "prod")
    assert pending(boot(restored, "v42", "sha256:42")) == Target("v41", "sha256:41", (1, 10, 0))


def test_everything_that_decides_must_be_stored_and_is_not_stored_for_nothing():
    state = accepted(BOOTED, BASE)
    assert must_store(BOOTED, state)
    assert must_store(state, switched(state, owed(state)))
    assert not must_store(state, state)


def test_newer_epoch_that_says_the_same_must_be_stored_even_while_its_load_fails():
    state = accepted(SERVING, command(epoch=(1, 11, 0), serve="v43", artifact=None))
    assert must_store(state, accepted(state, command(epoch=(1, 12, 0), serve="v43", artifact=None)))


# ---------------------------------------------------------------------------------------------- change of keys


def test_stolen_keys_epoch_is_forgotten_once_the_key_is_no_longer_trusted():
    poisoned = accepted(SERVING, command(epoch=(2**53, 2**53, 2**53), serve="evil", artifact=None))
    honest = command(epoch=(1, 12, 0))
    assert_refused(poisoned, judged(poisoned, honest), "REGRESSION")
    state = accepted(poisoned, honest, key=NEW_CONTROLLER, trust=trust_of(NEW_CONTROLLER))
    assert state.wanted == Target("v41", "sha256:41", (1, 12, 0))


def test_untrusted_key_alone_changes_nothing():
    poisoned = accepted(SERVING, command(epoch=(9, 9, 9), serve="evil", artifact=None))
    result = judged(poisoned, command(epoch=(9, 9, 10)), trust=trust_of(NEW_CONTROLLER))
    assert_refused(poisoned, result, "UNKNOWN_KEY")


def test_same_epoch_by_the_new_key_corrects_what_the_stolen_key_said():
    poisoned = accepted(BOOTED, command(serve="evil", artifact=None))
    state = accepted(poisoned, BASE, key=NEW_CONTROLLER, trust=trust_of(NEW_CONTROLLER))
    assert state.wanted == Target("v41", "sha256:41", (1, 10, 0))


def test_orderly_change_of_keys_forgets_nothing():
    both, after = trust_of(CONTROLLER, NEW_CONTROLLER), trust_of(NEW_CONTROLLER)
    state, verdict = judged(SERVING, command(issued_ts=NOW + 1), key=NEW_CONTROLLER, trust=both)
    assert verdict.kind == "REFRESH"
    assert must_store(SERVING, state)
    old = command(epoch=(1, 9, 0))
    assert_refused(state, judged(state, old, key=NEW_CONTROLLER, trust=after), "REGRESSION")
    # An old heartbeat by the old key, sent again, does not give the epoch back to that key.
    replayed, _ = judged(state, BASE, trust=both)
    assert replayed.key == state.key


# --------------------------------------------------------------------------------------------------- freshness


def test_replica_is_stale_after_two_silent_beats_and_fresh_again_after_a_newer_record():
    assert not is_stale(SERVING, NOW + 2_000, beat_ms=1_000)
    assert is_stale(SERVING, NOW + 2_001, beat_ms=1_000)
    assert not is_stale(SERVING, NOW + 2_001, beat_ms=1_000, beats=3)
    renewed, _ = judged(SERVING, command(issued_ts=NOW + 2_001), now_ms=NOW + 2_001)
    assert not is_stale(renewed, NOW + 2_001, beat_ms=1_000)


def test_repeated_record_is_no_heartbeat():
    state, _ = judged(SERVING, BASE, now_ms=NOW + 9_000)
    assert is_stale(state, NOW + 9_000, beat_ms=1_000)


def test_withheld_records_that_trickle_in_after_their_time_are_no_heartbeat():
    state, _ = judged(SERVING, command(issued_ts=NOW + 1_000, not_after_ts=NOW + 2_000), now_ms=NOW + 9_000)
    assert is_stale(state, NOW + 9_000, beat_ms=1_000)


def test_clock_set_back_a_day_proves_no_freshness():
    assert is_stale(SERVING, NOW - 86_400_000, beat_ms=1_000)


def test_replica_that_never_heard_a_command_is_not_stale():
    assert not is_stale(BOOTED, NOW, beat_ms=1_000)


# -------------------------------------------------------------------------------------------------------- acks


def test_stages_of_an_obeyed_command_in_order():
    state, verdict = judged(BOOTED, BASE)
    said = acks(state, verdict, WHO, NOW)
    target = owed(state)
    said.append(staged(state, target, WHO, NOW + 1))
    state = switched(state, target)
    said.append(serving(state, WHO, NOW + 2))
    assert [(ack.stage, ack.serving, ack.epoch, ack.code) for ack in said] == [
        ("received", "v42", (1, 10, 0), None),
        ("verified", "v42", (1, 10, 0), None),
        ("staged", "v42", (1, 10, 0), None),
        ("serving", "v41", (1, 10, 0), None),
    ]
    for ack in said:
        assert decode_value("ack", encode_line(ack)) == ack
        assert (ack.model, ack.replica, ack.boot) == ("fraud", "r-1", "b-1")


def test_command_for_what_serves_is_acknowledged_up_to_serving_at_once():
    state, verdict = judged(SERVING, command(epoch=(1, 11, 0)))
    assert [ack.stage for ack in acks(state, verdict, WHO, NOW)] == ["received", "verified", "serving"]


def test_refresh_says_serving_again():
    state, verdict = judged(SERVING, BASE)
    assert acks(state, verdict, WHO, NOW) == [serving(SERVING, WHO, NOW)]


def test_refusal_of_an_authentic_command_names_its_epoch_and_code():
    state, verdict = judged(SERVING, command(epoch=(1, 9, 0)))
    (ack,) = acks(state, verdict, WHO, NOW)
    assert (ack.stage, ack.code, ack.epoch, ack.serving) == ("refused", "REGRESSION", (1, 9, 0), "v41")


@pytest.mark.parametrize(("state", "epoch"), [(SERVING, (1, 10, 0)), (BOOTED, (0, 0, 0))])
def test_refusal_of_a_forged_command_repeats_nothing_of_it(state, epoch):
    state, verdict = judged(state, command(epoch=(7, 7, 7)), key=STRANGER)
    (ack,) = acks(state, verdict, WHO, NOW)
    assert (ack.stage, ack.code, ack.epoch) == ("refused", "UNKNOWN_KEY", epoch)
    assert ack.code in get_args(RefusalCode)


# --------------------------------------------------------------------------------------------------- stored form


def test_state_is_restored_as_it_was_stored():
    for state in (FIRST, BOOTED, SERVING, accepted(SERVING, command(epoch=(2, 0, 0)))):
        assert restore(encode_state(state), "fraud", "prod") == (state, None)


def test_every_damaged_byte_of_a_stored_state_is_noticed():
    data = encode_state(SERVING)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x01
        state, loss = restore(bytes(damaged), "fraud", "prod")
        assert (state, loss is not None) == (FIRST, True), position


def test_state_cut_off_anywhere_is_noticed():
    data = encode_state(SERVING)
    for length in range(len(data)):
        assert restore(data[:length], "fraud", "prod") == (FIRST, "STATE_CORRUPT")


def test_state_of_another_format_or_replica_or_no_file_is_lost_with_its_code():
    data = encode_state(SERVING)
    assert restore(None, "fraud", "prod") == (FIRST, "STATE_MISSING")
    assert restore(data.replace(b"fence 1", b"fence 2"), "fraud", "prod") == (FIRST, "STATE_UNSUPPORTED")
    assert restore(data, "churn", "prod")[1] == "STATE_FOREIGN"
    assert restore(data, "fraud", "test")[1] == "STATE_FOREIGN"
    assert restore(data + b" " * 2_000_000, "fraud", "prod")[1] == "STATE_CORRUPT"


def test_replica_that_lost_its_state_obeys_only_what_has_not_expired():
    lost, _ = restore(None, "fraud", "prod")
    lost = boot(lost, "v42")
    assert_refused(lost, judged(lost, BASE, now_ms=BASE.not_after_ts + 1), "EXPIRED")
    assert lost.serving == Serving("v42")

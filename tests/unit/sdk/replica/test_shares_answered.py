"""A version with a share answers its units, is loaded once and acknowledged, and keeps no command from being obeyed."""

from __future__ import annotations

import threading

import pytest

from tests.fleets import following
from tests.waiting import HANG_S, until
from unship import LATER, Fleet
from unship.shares import chosen, hash_of, unit_hash

UNITS = [f"customer-{number}" for number in range(200)]


def ordered(bench, serve="v42", share=0.5, of="v41", **settings):
    """Command shares, dealt out by the epoch of the first command for the version that serves."""
    return bench.command("fraud", serve, shares={of: share}, **settings)


def answering(fleet, version="v41"):
    fleet.choose()
    until(lambda: fleet.stats.shares == {version: "ANSWERING"}, lambda: f"{fleet.stats}")


def dealt(fleet):
    return [fleet.choose(unit).version for unit in UNITS]


def expected(epoch, share=0.5):
    return [chosen(hash_of("fraud", epoch, unit), "v42", {"v41": share}) for unit in UNITS]


def newest(bench):
    ack = [ack for ack in bench.events("acks") if ack.stage in ("serving", "left")][-1]
    return ack.epoch, ack.serving, ack.beside


def acknowledged(bench, epoch, beside):
    bench.until("acks", lambda acks: acks[-1].epoch == epoch and acks[-1].beside == beside)


def test_signed_command_with_shares_is_loaded_acknowledged_answered_and_labelled(unship_embedded):
    with following(unship_embedded, on_version=str.upper) as fleet:
        fleet.choose()
        epoch = ordered(unship_embedded)
        answering(fleet)
        acknowledged(unship_embedded, epoch, ("v41",))
        assert dealt(fleet) == expected(epoch)
        assert [fleet.choose(unit).unit_hash for unit in UNITS] == [
            unit_hash(hash_of("fraud", epoch, unit)) for unit in UNITS
        ]
        by = {choice.version: choice for choice in map(fleet.choose, UNITS)}
        assert (by["v41"].role, by["v41"].loaded, by["v41"].epoch) == ("holdback", "V41", epoch)
        assert (by["v42"].role, by["v42"].loaded, by["v42"].epoch) == ("live", None, epoch)
        assert fleet.current.version == "v42"
        for version, choice in by.items():
            fleet.predicted(1, id=version, as_=choice)
        assert fleet.flush(HANG_S)
    events = {event.version: event for event in unship_embedded.events("predictions")}
    assert {name: (each.role, each.epoch, each.unit_hash) for name, each in events.items()} == {
        "v41": ("holdback", epoch, by["v41"].unit_hash),
        "v42": ("live", epoch, by["v42"].unit_hash),
    }


def test_program_that_never_chooses_loads_no_second_version_and_acknowledges_none(unship_embedded):
    loaded: list[str] = []
    with following(unship_embedded, on_version=loaded.append) as fleet:
        epoch = ordered(unship_embedded)
        acknowledged(unship_embedded, epoch, ())
        assert (fleet.stats.shares, loaded) == ({"v41": "NOT_ASKED"}, [])


def test_raised_share_reloads_nothing_and_only_adds_units(unship_embedded):
    loaded: list[str] = []
    with following(unship_embedded, on_version=loaded.append) as fleet:
        period = ordered(unship_embedded, share=0.1)
        answering(fleet)
        few = dealt(fleet)
        ordered(unship_embedded, share=0.5, period_epoch=period)
        until(lambda: dealt(fleet) == expected(period), lambda: f"{fleet.stats}")
        assert all(after == "v41" for before, after in zip(few, dealt(fleet), strict=True) if before == "v41")
    assert loaded == ["v41"]


def test_command_without_shares_gives_all_units_to_what_serves(unship_embedded):
    with following(unship_embedded, on_version=str) as fleet:
        ordered(unship_embedded)
        answering(fleet)
        epoch = unship_embedded.command("fraud", "v42")
        acknowledged(unship_embedded, epoch, None)
        assert (set(dealt(fleet)), fleet.stats.shares) == ({"v42"}, {})


def test_restarted_replica_and_another_one_deal_out_alike(unship_embedded):
    with following(unship_embedded, on_version=str) as fleet:
        period = ordered(unship_embedded)
        answering(fleet)
        before = dealt(fleet)
    again = following(unship_embedded, on_version=str)
    again.choose()
    with again, following(unship_embedded, on_version=str, replica="r-2") as other:
        # Asked before the start, so the first request finds it loaded.
        assert dealt(again) == before == expected(period)
        answering(other)
        assert dealt(other) == before


def test_version_that_served_is_kept_for_its_share_and_serves_again_without_a_load(unship_embedded):
    loaded: list[str] = []

    def load(version):
        loaded.append(version)
        return version.upper()

    with following(unship_embedded, on_version=load) as fleet:
        fleet.choose()
        unship_embedded.command("fraud", "v43")
        assert fleet.wait_for("v43", HANG_S)
        ordered(unship_embedded, serve="v44", of="v43")
        answering(fleet, "v43")
        assert {(choice.version, choice.loaded) for choice in map(fleet.choose, UNITS)} == {
            ("v43", "V43"),
            ("v44", "V44"),
        }
        unship_embedded.command("fraud", "v43", quarantine=["v44"])
        assert fleet.wait_for("v43", HANG_S)
        assert {(choice.version, choice.loaded, choice.role) for choice in map(fleet.choose, UNITS)} == {
            ("v43", "V43", "live")
        }
    assert loaded == ["v43", "v44"]


def test_load_that_fails_leaves_all_units_with_what_serves_until_a_heartbeat_tries_again(unship_embedded):
    broken = [True]

    def load(version):
        if broken:
            raise OSError("no room")

    with following(unship_embedded, on_version=load) as fleet:
        fleet.choose()
        epoch = ordered(unship_embedded)
        until(lambda: fleet.stats.shares == {"v41": "LOAD_FAILED"}, lambda: f"{fleet.stats}")
        assert "no room" in fleet.stats.detail
        assert set(dealt(fleet)) == {"v42"}
        acknowledged(unship_embedded, epoch, ())
        assert all(ack.stage != "refused" for ack in unship_embedded.events("acks"))
        broken.clear()
        ordered(unship_embedded, epoch=epoch)
        answering(fleet)


def test_load_that_hangs_counts_as_failed_and_the_next_command_is_obeyed(unship_embedded):
    hang = threading.Event()
    try:
        with following(
            unship_embedded, on_version=lambda version: version != "v41" or hang.wait(), load_timeout=0.05
        ) as fleet:
            fleet.choose()
            ordered(unship_embedded)
            until(lambda: fleet.stats.shares == {"v41": "LOAD_FAILED"}, lambda: f"{fleet.stats}")
            unship_embedded.command("fraud", "v43")
            assert fleet.wait_for("v43", HANG_S)
    finally:
        hang.set()


@pytest.mark.parametrize(
    ("settings", "command", "why"),
    [
        ({}, {"quarantine": ["v41"]}, "QUARANTINED"),
        ({"artifacts": {"v42": "sha256:42"}}, {"artifact": "sha256:42"}, "UNREGISTERED_ARTIFACT"),
    ],
)
def test_version_that_must_not_answer_is_not_loaded_and_the_command_is_obeyed(unship_embedded, settings, command, why):
    loaded: list[str] = []
    with following(unship_embedded, on_version=loaded.append, **settings) as fleet:
        fleet.choose()
        epoch = ordered(unship_embedded, **command)
        acknowledged(unship_embedded, epoch, ())
        assert (fleet.stats.shares, fleet.current.epoch, loaded) == ({"v41": why}, epoch, [])


def test_share_of_a_switch_done_elsewhere_is_answered_from_its_confirmation_to_its_withdrawal(unship_embedded):
    with following(unship_embedded, on_version=lambda version: LATER) as fleet:
        fleet.choose()
        epoch = ordered(unship_embedded)
        until(lambda: fleet.stats.shares == {"v41": "CONFIRMING"}, lambda: f"{fleet.stats}")
        assert set(dealt(fleet)) == {"v42"}
        assert fleet.confirm("v41", (9, 9, 9)) == "NOT_WANTED"
        assert fleet.confirm("v41", epoch) == "SWITCHED"
        assert (dealt(fleet), newest(unship_embedded)) == (expected(epoch), (epoch, "v42", ("v41",)))
        assert fleet.confirm("v41", epoch, ok=False, detail="out of memory") == "FAILED"
        assert set(dealt(fleet)) == {"v42"}
        assert newest(unship_embedded) == (epoch, "v42", ())


def test_version_that_served_has_to_be_confirmed_for_its_share_where_the_switch_is_done_elsewhere(unship_embedded):
    with following(unship_embedded, on_version=lambda version: LATER) as fleet:
        fleet.choose()
        epoch = ordered(unship_embedded, serve="v43", of="v42")
        unship_embedded.until("acks", lambda acks: acks[-1].stage == "staged")
        assert fleet.stats.shares == {"v42": "SWITCHING"}
        assert fleet.confirm("v43", epoch) == "SWITCHED"
        assert (set(dealt(fleet)), fleet.stats.shares) == ({"v43"}, {"v42": "CONFIRMING"})
        assert fleet.choose().loaded is None
        assert fleet.confirm("v42", epoch) == "SWITCHED"
        assert set(dealt(fleet)) == {"v42", "v43"}
        assert {choice.loaded for choice in map(fleet.choose, UNITS)} == {None}


def test_choice_without_a_unit_goes_by_the_id_that_its_prediction_gets(unship_embedded):
    with following(unship_embedded, on_version=str) as fleet:
        epoch = ordered(unship_embedded)
        answering(fleet)
        choices = [fleet.choose() for _ in range(50)]
        assert [choice.version for choice in choices] == [
            chosen(hash_of("fraud", epoch, choice.id), "v42", {"v41": 0.5}) for choice in choices
        ]
        assert [fleet.predicted(1, as_=choice) for choice in choices] == [choice.id for choice in choices]
        assert fleet.choose(id="p-1").version == chosen(hash_of("fraud", epoch, "p-1"), "v42", {"v41": 0.5})
        assert fleet.predicted(1, id="p-2", as_=fleet.choose(id="p-1")) == "p-2"
        assert fleet.predicted(1, as_=fleet.choose("ann", id="p-3")) == "p-3"
        assert fleet.flush(HANG_S)
    assert {(event.unit_hash is None, event.role) for event in unship_embedded.events("predictions")[:50]} == {
        (True, "holdback"),
        (True, "live"),
    }


@pytest.mark.parametrize("unit", [None, "", "ann", 4711, "\ud800", object(), b"ann"])
def test_choice_never_raises_and_is_what_serves_where_nothing_is_followed(tmp_path, unit):
    with Fleet("fraud", "v42", log=f"embedded:{tmp_path}", trust=None) as fleet:
        choice = fleet.choose(unit)
        assert (choice.version, choice.role, choice.loaded) == ("v42", "live", None)
        assert fleet.predicted(1, as_=choice)
        assert fleet.flush(HANG_S)
        assert fleet.stats.sent == 1

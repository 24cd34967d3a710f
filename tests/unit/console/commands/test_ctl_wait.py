"""`unship ctl --wait` ends when every living replica obeys, and names those that do not when time is up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from console.settings import Exit
from unship.events import Epoch


def test_wait_ends_with_0_and_the_times_of_the_shares_when_all_replicas_obey(served: Any, capsys: Any) -> None:
    assert served.ctl("rollback", to="v1") is Exit.GOOD
    shown = capsys.readouterr()
    assert shown.out.startswith("rollback fraud (to v1) by ")
    assert "waiting for the monitor to take the act" in shown.err
    assert "live 2: serving 2; 50 % after " in shown.err
    assert shown.err.splitlines()[-1] == "ctl: every living replica of fraud obeys"


def test_wait_without_a_running_monitor_times_out_and_asks_for_it(served: Any, capsys: Any) -> None:
    served.runs = False
    assert served.ctl("rollback", 2.0, to="v1") is Exit.TIMED_OUT
    assert "the monitor has not taken the act, which is in the log" in capsys.readouterr().err


def test_refused_act_ends_the_wait_with_1_and_its_sentence(served: Any, capsys: Any) -> None:
    assert served.ctl("resume") is Exit.FINDING
    assert "ctl: refused: nothing is on hold" in capsys.readouterr().err
    assert served.ctl("approve", as_json=True) is Exit.FINDING
    found = json.loads(capsys.readouterr().out)
    assert found["act"]["act"] == "approve"
    assert found["wait"]["state"] == "refused"
    assert found["wait"]["why"].startswith("no proposal is open")


def test_act_that_changes_nothing_for_replicas_waits_for_the_fold_only(served: Any, capsys: Any) -> None:
    assert served.ctl("hold") is Exit.GOOD
    assert served.live.pipeline.fold.models["fraud"].state.desired.locks.held
    assert "live 2: serving 2" in capsys.readouterr().err


def refusing(served: Any) -> Callable[[Epoch, str], None]:
    return lambda epoch, version: served.ack("bad", "refused", epoch, "v2", "LOAD_FAILED")


def loading(served: Any) -> Callable[[Epoch, str], None]:
    return lambda epoch, version: served.ack("bad", "verified", epoch, "v2")


def lying(served: Any) -> Callable[[Epoch, str], None]:
    def act(epoch: Epoch, version: str) -> None:
        served.ack("bad", "serving", epoch, version)
        served.answer("bad", (0, 1, 0), "v2")

    return act


def forked(served: Any) -> Callable[[Epoch, str], None]:
    def act(epoch: Epoch, version: str) -> None:
        served.ack("bad", "serving", epoch, version)
        served.answer("bad", epoch, version)
        served.answer("bad", (0, 1, 0), "v2")
        served.live.step()
        served.answer("bad", epoch, version)

    return act


def silent(served: Any) -> Callable[[Epoch, str], None]:
    return lambda epoch, version: None


@pytest.mark.parametrize(
    ("behaviour", "kind", "sentence"),
    [
        (refusing, "refused", "LOAD_FAILED"),
        (loading, "loading", "is loading v1"),
        (lying, "lying", "acknowledged v1, but answers with v2 under epoch 0.1.0"),
        (forked, "forked", "answers with v1 under epoch"),
        (silent, "silent", "nothing was received of it for"),
    ],
)
def test_replica_that_does_not_obey_is_named_with_what_it_does_when_time_is_up(
    served: Any, capsys: Any, behaviour: Callable[[Any], Any], kind: str, sentence: str
) -> None:
    served.obeying("bad")
    served.work(1)
    served.replicas["bad"] = behaviour(served)
    assert served.ctl("rollback", 20.0, to="v1") is Exit.TIMED_OUT
    shown = capsys.readouterr().err
    assert f"ctl: bad does not obey ({kind}): " in shown
    assert sentence in shown.splitlines()[-1]
    assert "r-1 does not" not in shown


def test_wait_without_a_living_replica_shows_that_nothing_proves_obedience(unserved: Any, capsys: Any) -> None:
    assert unserved.ctl("rollback", 3.0, to="v1") is Exit.TIMED_OUT
    assert "no replica of fraud is known to live" in capsys.readouterr().err

"""The share of an earlier version in the desired state: of one version, raised once, and ended by what ends it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from actions.desired import SHARE_MAX, DesiredState, deploy
from actions.reconcile import Timing, command_of
from tests.worlds.shares.fleet import check_shares
from unship.events import Deployment

VERSIONS = ("v1", "v2", "v3")
SHARE = 0.05
RELEASED = [("deploy", "v1", "live", None), ("deploy", "v2", "live", None)]


acts = st.one_of(
    st.tuples(
        st.just("deploy"),
        st.sampled_from(VERSIONS),
        st.sampled_from(["live", "live", "shadow", "holdback", "retired"]),
        st.sampled_from([None, "sha256:a", "sha256:b"]),
    ),
    st.tuples(st.sampled_from(["roll back", "pin", "release"]), st.sampled_from(VERSIONS)),
    st.tuples(st.sampled_from(["hold", "resume", "renew", "expire"])),
    st.tuples(st.just("raise"), st.floats(0.01, SHARE_MAX)),
)


@given(steps=st.lists(acts, max_size=30))
def test_share_is_of_one_version_rises_once_and_lasts_no_longer_than_what_serves(steps: list[tuple[Any, ...]]) -> None:
    desired, rises, period = DesiredState(), 0, (0, 0, 0)
    for at, (kind, *more) in enumerate([*RELEASED, *steps], start=1):
        epoch, before, had = (desired.incarnation, at, 0), desired.serve, desired.holdback.shares
        if kind == "deploy":
            event = Deployment(model="m", version=more[0], status=more[1], artifact=more[2])
            result = deploy(desired, event, at, epoch)
            fit = before is not None and desired.facts(before).status == "live" and not desired.is_quarantined(before)
            if result == "live" and before is not None and fit:
                desired.hold_back(before, SHARE, at + 100)
            name = desired.holdback.version
            if name is not None and desired.holdback.is_moot(desired.facts(name), desired.is_quarantined(name)):
                desired.end_holdback(epoch)
        elif kind == "roll back" and more[0] != desired.serve and desired.serve is not None:
            desired.roll_back(more[0], epoch, at, automatic=False)
        elif kind == "pin":
            desired.locks.pin()
            desired.end_holdback(epoch)
            if more[0] != desired.serve:
                desired.change(more[0], epoch, "pin")
        elif kind == "release" and any(entry.version == more[0] for entry in desired.quarantine):
            desired.release(more[0], epoch)
        elif kind == "hold":
            desired.locks.hold()
            desired.end_holdback(epoch)
        elif kind == "resume":
            desired.locks.resume()
            desired.locks.unpin()
        elif kind == "renew":
            desired.renew(desired.incarnation + 1, epoch)
        elif kind == "expire":
            desired.end_holdback(epoch)
        elif kind == "raise" and desired.holdback.may_rise_to(more[0]):
            desired.raise_share(more[0], epoch, "d-1")
            rises += 1
        if desired.holdback.period_epoch != period:
            # It rises with what serves, and is the epoch that ordered that.
            assert desired.holdback.period_epoch == epoch > period
            period, rises = epoch, 0
        assert rises <= 1
        if (before, set(had)) == (desired.serve, set(desired.holdback.shares)):
            assert all(desired.holdback.shares[version] >= share for version, share in had.items()) or not had
        if had != desired.holdback.shares or before != desired.serve:
            assert desired.epoch == epoch
        command = command_of("m", desired, "prod", at, Timing())
        if command is not None:
            check_shares(command)

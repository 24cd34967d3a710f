"""A version decays, and the only version beside it is the one that the monitor holds back itself.

The fleet obeys the commands and deals units out by the shares in them. `UNSHIP_SEEDS=10` runs more of the same.
"""

from __future__ import annotations

import os

import pytest

from streams.config.parse import parse
from tests.worlds.shares.fleet import STEP_MS, DealtFleet

SEEDS = range(int(os.environ.get("UNSHIP_SEEDS", "1")))
USUAL, WORSE = 0.1, 0.2
PATIENCE = 30_000


def outcomes_until_rollback(holdback: str, seed: int) -> int:
    """Return how many answers after its decay v2 was rolled back, by the comparison with the version held back."""
    policy = f"mode: act, deployments: any, confirm_within: 30d, holdback: {holdback}"
    fleet = DealtFleet(parse(f"models: {{m: {{policy: {{{policy}}}}}}}"), seed)
    fleet.deploy("v1").answer(4_000, {"v1": USUAL}).deploy("v2")
    fleet.answer(2_000, {"v1": USUAL, "v2": USUAL})
    assert not fleet.told()
    decayed_at = fleet.now
    fleet.answer(PATIENCE, {"v1": USUAL, "v2": WORSE}, until="rollback")
    last = fleet.decisions[-1]
    assert (last.version, last.action, last.to, last.reason) == ("v2", "rollback", "v1", "TARGET_BETTER")
    assert last.evidence.comparison
    assert (last.evidence.comparison.basis, last.evidence.comparison.role) == ("concurrent", "holdback")
    command = fleet.command()
    assert command is not None
    assert (command.serve, command.shares or None) == ("v1", None)
    # The other version answered nothing but its share.
    assert set(fleet.answered) == {("v1", "live"), ("v2", "live"), ("v1", "holdback")}
    return (last.ts - decayed_at) // STEP_MS


@pytest.mark.parametrize("seed", SEEDS)
def test_decay_is_taken_back_by_the_share_alone_and_faster_where_it_rises(seed: int) -> None:
    kept, raised = (outcomes_until_rollback(each, seed) for each in ("{share: 5%}", "{share: 5%, raise_to: 30%}"))
    print(f"seed {seed}: {kept} answers with 5 %, {raised} where it rises to 30 %, {kept / raised:.1f} times")
    assert raised < kept

"""Define what the policy reads: the findings on one version, and the view of what was ordered and done before."""

from __future__ import annotations

from enum import StrEnum

import msgspec

Scalar = bool | int | float | str


class Quorum(StrEnum):
    """Return whether the label sources agree that a version got worse."""

    AGREED = "agreed"
    WAITING = "waiting"
    FAILED = "failed"


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """Hold everything the fold found out about the live version, at one position of the ledger.

    `target` is the version to go back to, None if none is known to be better. `confirmed` means that it is better now;
    `on_record` that there is no concurrent holdback or shadow, and that the target was better when it was live.
    `quorum` is asked only if one of the two holds; `others_quorum` is about `all_degraded`. `any_target` means that
    there is anything to compare with at all, `all_unfit` that no replica could serve any of it. `learning` means that
    there is no baseline, or that too few outcomes were judged for an absence of alarms to mean anything.
    `only_proposed` means that an operator has to approve, because nobody deployed what would serve, or what would not.
    `few_units` means that predictions name units, and one of the two versions has answered few.
    """

    version: str
    incomputable: bool = False
    learning: bool = False
    blind: bool = False
    implausible: bool = False
    coverage_shift: bool = False
    degraded: bool = False
    degraded_since: int = 0
    slice: dict[str, Scalar] | None = None
    quarantined: bool = False
    target: str | None = None
    any_target: bool = False
    all_unfit: bool = False
    all_degraded: bool = False
    confirmed: bool = False
    on_record: bool = False
    quorum: Quorum = Quorum.AGREED
    others_quorum: Quorum = Quorum.AGREED
    mix: dict[str, Scalar] | None = None
    only_proposed: bool = False
    few_units: bool = False


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what bears on an act besides the evidence. Times are milliseconds; `now` is the ledger's clock.

    `without_control` is how far an act may go that rests on a record only: `propose`, `act` or `page`. `others`
    counts the other models whose automatic rollback is under way, `others_max` is how many may be. `approved` means
    that an operator does.
    """

    now: int
    mode: str = "act"
    held: bool = False
    pinned: bool = False
    last_switch: int | None = None
    cooldown_ms: int = 0
    switches: int = 0
    switches_max: int = 1
    stopped: bool = False
    confirm_within_ms: int = 0
    without_control: str = "propose"
    others: int = 0
    others_max: int = 1
    frozen: bool = False
    approved: bool = False

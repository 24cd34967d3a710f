"""Keep the desired state of one model: which version should serve, and what may not.

Deployments are facts about the world; the desired state is the only order. It follows the newest `live` deployment,
unless an automatic rollback has put that version in quarantine or an operator's pin or hold forbids it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from actions.versions import VersionFacts, Versions
from unship.budgets.table import EARLIER
from unship.commands import Quarantined, is_quarantined
from unship.events import Deployment, Epoch

EARLIER_MAX = EARLIER.limit
#: The largest share of a version beside the one that serves.
SHARE_MAX = 0.5
#: Orders that an ack may still refer to.
ORDERS_MAX = 20


class Proposal(msgspec.Struct, frozen=True):
    """Hold what waits for an operator: a rollback, or where `share` is there, that much of the units for `to`."""

    decision: str
    version: str
    to: str
    made_at: int
    share: float | None = None


class Holdback(msgspec.Struct):
    """Hold which version answers a share of the units next to the one that serves, so that the two can be compared.

    `raised_from` is the share that it had before it was raised, which happens once. It is kept until a time of the
    ledger's clock (ms). Units are dealt out by `period_epoch`, the epoch that ordered what serves.
    """

    version: str | None = None
    share: float = 0.0
    raised_from: float | None = None
    until: int = -1
    period_epoch: Epoch = (0, 0, 0)

    @property
    def shares(self) -> dict[str, float]:
        """Return the share by version, of one version at most."""
        return {} if self.version is None else {self.version: self.share}

    def open(self, version: str, share: float, until: int) -> None:
        """Let a version answer a share until a time, under the epoch that ordered what serves."""
        assert 0.0 < share <= SHARE_MAX, share
        self.version, self.share, self.until = version, share, until

    def may_rise_to(self, share: float) -> bool:
        """Return whether the share may become so much: once, and only more.

        >>> holdback = Holdback("v1", 0.05)
        >>> holdback.may_rise_to(0.3), holdback.may_rise_to(0.05)
        (True, False)
        """
        return self.version is not None and self.raised_from is None and self.share < share <= SHARE_MAX

    def raise_to(self, share: float) -> None:
        """Let the version answer more."""
        assert self.may_rise_to(share), (self, share)
        self.raised_from, self.share = self.share, share

    def is_moot(self, facts: VersionFacts, quarantined: bool) -> bool:
        """Return whether the version answers by an order or a deployment of its own, or may not answer."""
        return self.version is not None and (quarantined or facts.status in ("holdback", "shadow", "retired"))


class Locks(msgspec.Struct):
    """Hold what forbids acts: an operator's pin or hold, or too many rollbacks of this model or of others.

    What is stopped or frozen stays so until an operator resumes it.
    """

    pinned: bool = False
    held: bool = False
    stopped: bool = False
    frozen: bool = False

    def hold(self) -> None:
        """Put automatic and manual acts on hold."""
        self.held = True

    def stop(self) -> None:
        """Forbid automatic acts: there were too many rollbacks of this model."""
        self.stopped = True

    def freeze(self) -> None:
        """Forbid automatic acts: there are too many rollbacks of other models."""
        self.frozen = True

    def resume(self) -> None:
        """Allow automatic and manual acts again."""
        self.held = self.stopped = self.frozen = False

    def pin(self) -> None:
        """Let no deployment and no automatic act change what serves."""
        self.pinned = True

    def unpin(self) -> None:
        """Take the pin off."""
        self.pinned = False


class Changes(msgspec.Struct):
    """Hold what was desired before: versions that were live earlier, newest first, and times of automatic rollbacks.

    `orders` holds which version each of the newest epochs asked for, `live_ts` when the newest `live` deployment was.
    """

    earlier: list[str] = []
    switches: list[int] = []
    orders: list[tuple[Epoch, str]] = []
    live_ts: int = -1

    def replace(self, old: str | None, new: str) -> None:
        """Take over that a version was replaced by another one."""
        if old is not None and old != new:
            self.earlier = [old, *(version for version in self.earlier if version not in (old, new))][:EARLIER_MAX]

    def add_earlier(self, version: str) -> None:
        """Add a version that was live before all others that are known."""
        self.earlier = [*self.earlier, version][:EARLIER_MAX]

    def order(self, epoch: Epoch, version: str) -> None:
        """Note which version an epoch asks for."""
        self.orders = [*self.orders, (epoch, version)][-ORDERS_MAX:]

    def deployed(self, ts: int) -> None:
        """Note when the newest `live` deployment was."""
        self.live_ts = ts

    def switch(self, now: int) -> None:
        """Note an automatic rollback."""
        self.switches = [*self.switches, now]


class DesiredState(msgspec.Struct):
    """Hold the desired state and what bears on it. Times are milliseconds of the ledger's clock.

    `epoch` rises with every change of what replicas have to obey; `action` and `decision` give the last one,
    and `orders` which version each of the newest epochs asked for. Epochs begin with `incarnation`, which only an
    operator raises. `stopped` and `frozen` forbid automatic acts until an operator resumes them: too many rollbacks of
    this model, or of too many models at once. `holdback` is the share of an earlier version.
    """

    versions: Versions = msgspec.field(default_factory=Versions)
    serve: str | None = None
    artifact: str | None = None
    epoch: Epoch = (0, 0, 0)
    action: str = "deploy"
    decision: str | None = None
    quarantine: list[Quarantined] = []
    locks: Locks = msgspec.field(default_factory=Locks)
    changes: Changes = msgspec.field(default_factory=Changes)
    proposal: Proposal | None = None
    incarnation: int = 0
    holdback: Holdback = msgspec.field(default_factory=Holdback)

    def facts(self, version: str) -> VersionFacts:
        """Return what is known of a version."""
        return self.versions.facts(version)

    def dispensable(self) -> Iterator[str]:
        """Yield the deployed versions that may be forgotten, the oldest deployment first."""
        kept = {self.serve, *self.changes.earlier, *(entry.version for entry in self.quarantine)}
        return (version for version in self.versions.deployed if version not in kept)

    @property
    def is_ordered(self) -> bool:
        """Return whether what should serve was deployed, or ordered, and not only seen to answer."""
        if self.serve is None:
            return False
        return self.locks.pinned or self.action != "deploy" or self.facts(self.serve).status is not None

    @property
    def is_followed(self) -> bool:
        """Return whether what answers is taken to be what should serve: nothing was ever deployed, nor ordered."""
        if self.serve is None:
            return not self.locks.pinned and not self.locks.held
        return not self.versions.announced and not self.is_ordered and not self.locks.held

    def is_implied(self, version: str) -> bool:
        """Return whether a version was never deployed."""
        return self.facts(version).status is None

    def is_quarantined(self, version: str) -> bool:
        """Return whether a version is in quarantine: by its artifact, or by its name where either side has none."""
        return is_quarantined(self.quarantine, version, self.facts(version).artifact)

    def why_barred(self, version: str) -> str | None:
        """Return why a version may not serve, None if it may.

        A version without a digest cannot be distinguished from one that is in quarantine with its digest: it may be the
        same bytes under another name. What was live before has shown what it is by its own outcomes.
        """
        if self.is_quarantined(version):
            return f"{version} is in quarantine; release it first"
        digested = next((entry.version for entry in self.quarantine if entry.artifact is not None), None)
        known = self.facts(version).artifact is not None or version in (self.serve, *self.changes.earlier)
        if digested is None or known:
            return None
        return (
            f"{version} has no digest, and {digested} is in quarantine with one, so the two may be the same bytes: "
            f"deploy {version} with its digest (artifact: sha256:...), or release {digested}"
        )

    def change(self, version: str, epoch: Epoch, action: str = "deploy", decision: str | None = None) -> None:
        """Let another version be the desired one."""
        self.changes.replace(self.serve, version)
        self.serve, self.artifact, self.epoch = version, self.versions.know(version).artifact, epoch
        self.action, self.decision = action, decision
        self.proposal = None
        self.holdback = Holdback(period_epoch=epoch)
        self.changes.order(self.epoch, version)

    def hold_back(self, version: str, share: float, until: int) -> None:
        """Let a version answer a share of the units next to the one that was ordered just now, until a time (ms)."""
        self.holdback.open(version, share, until)

    def raise_share(self, share: float, epoch: Epoch, decision: str) -> None:
        """Let the version that has a share answer more units; those that it answered stay with it."""
        self.holdback.raise_to(share)
        self.proposal = None
        self._order_shares(epoch, decision)

    def end_holdback(self, epoch: Epoch) -> None:
        """Let what serves answer all units, if another version has a share of them."""
        if self.holdback.version is not None:
            if self.proposal is not None and self.proposal.share is not None:
                self.proposal = None
            self.holdback = Holdback(period_epoch=self.holdback.period_epoch)
            self._order_shares(epoch, None)

    def _order_shares(self, epoch: Epoch, decision: str | None) -> None:
        self.epoch, self.action, self.decision = epoch, "shares", decision
        if self.serve is not None:
            self.changes.order(self.epoch, self.serve)

    def role_of(self, version: str) -> str | None:
        """Return the role that a version next to the live one was deployed or ordered to answer in, None if none."""
        status = self.facts(version).status
        return "holdback" if version == self.holdback.version and status not in ("shadow", "retired") else status

    def ordered(self, epoch: Epoch) -> str | None:
        """Return the version that the command of an epoch asks for, None if it is none of the newest."""
        return next((version for known, version in reversed(self.changes.orders) if known == epoch), None)

    def ladder(self, answering: Iterable[str]) -> list[str]:
        """Return the versions that could be gone back to, newest first: `EARLIER_MAX`, and those that answer.

        Args:
            answering: versions seen to answer next to the one that serves, whatever was deployed.
        """
        answers = set(answering)
        concurrent = set(answers)
        concurrent.update(v for v, facts in self.versions.deployed.items() if facts.status in ("holdback", "shadow"))
        concurrent = {v for v in concurrent if self.facts(v).status != "retired" and not self._stray(v)}
        fit = [(self.facts(v).deployed_ts, v) for v in concurrent if v != self.serve and self.why_barred(v) is None]
        newest = [version for _, version in sorted(fit, reverse=True)]
        # Each is asked for at every replica, and is part of the evidence.
        return [v for i, v in enumerate(newest) if i < EARLIER_MAX or v in answers]

    def past(self) -> list[str]:
        """Return earlier live versions that could be gone back to, newest first, whether they answer or not."""
        return [v for v in self.changes.earlier if self.facts(v).status != "retired" and not self.is_quarantined(v)]

    def _stray(self, version: str) -> bool:
        """Return whether a version showed up live without having been deployed or desired, where others are deployed:
        it is judged, and no target."""
        facts = self.facts(version)
        unknown = facts.status is None and facts.first_role == "live" and version not in self.changes.earlier
        return self.versions.announced and unknown

    def release(self, version: str, epoch: Epoch) -> None:
        """Take a version out of quarantine."""
        self.quarantine = [entry for entry in self.quarantine if entry.version != version]
        self.epoch, self.action, self.decision = epoch, "release", None
        if self.serve is not None:
            self.changes.order(self.epoch, self.serve)

    def renew(self, incarnation: int, epoch: Epoch) -> None:
        """Order the same under an epoch of a new incarnation: it is higher than all that replicas have seen."""
        self.incarnation = incarnation
        self.epoch = (incarnation, *epoch[1:])
        if self.serve is not None:
            self.changes.order(self.epoch, self.serve)

    def roll_back(
        self,
        to: str,
        epoch: Epoch,
        now: int,
        automatic: bool,
        decision: str | None = None,
        left: str | None = None,
    ) -> None:
        """Go back to `to` and quarantine what served, or `left`, which answered next to it."""
        left = left or self.serve
        if left is not None and left != to and not self.is_quarantined(left):
            # A repeated deployment may have stated another digest than the one that was ordered.
            ordered = self.artifact if left == self.serve else None
            known = {digest: None for digest in (ordered, self.facts(left).artifact) if digest is not None}
            self.quarantine = [*self.quarantine, *(Quarantined(left, digest) for digest in known or (None,))]
        if automatic:
            self.changes.switch(now)
        self.change(to, epoch, "rollback", decision)

    def propose(self, proposal: Proposal) -> None:
        """Open a proposal."""
        self.proposal = proposal

    def close_proposal(self) -> None:
        """Let no proposal be open."""
        self.proposal = None

    def recent_switches(self, now: int, span_ms: int) -> list[int]:
        """Return the times of the automatic rollbacks inside the window that ends now."""
        return [at for at in self.changes.switches if at > now - span_ms]


class DeploymentResult(StrEnum):
    """Name what became of a deployment."""

    RECORDED = "recorded"
    LIVE = "live"
    REPEATED = "repeated"
    STALE = "stale"
    QUARANTINED = "quarantined"
    PINNED = "pinned"


def deploy(desired: DesiredState, event: Deployment, now: int, epoch: Epoch) -> DeploymentResult:
    """Take a deployment; return what became of it.

    Args:
        desired: changed in place.
        event: the deployment.
        now: the source clock, used where the event has no time of its own.
        epoch: the epoch a change of the desired state gets.
    """
    ts = now if event.ts is None else event.ts
    desired.versions.announce()
    facts = desired.versions.know(event.version)
    if ts < facts.deployed_ts:
        return DeploymentResult.STALE
    facts.deploy(event, ts)
    if event.status != "live":
        return DeploymentResult.RECORDED
    if ts < desired.changes.live_ts:
        # An older deployment that arrives late was replaced already: it is an earlier live version, not the desired
        # one.
        if event.version not in (desired.serve, *desired.changes.earlier) and desired.why_barred(event.version) is None:
            desired.changes.add_earlier(event.version)
        return DeploymentResult.STALE
    desired.changes.deployed(ts)
    if event.version == desired.serve:
        return DeploymentResult.REPEATED
    if desired.why_barred(event.version) is not None:
        return DeploymentResult.QUARANTINED
    if desired.locks.pinned or desired.locks.held:
        return DeploymentResult.PINNED
    desired.change(event.version, epoch)
    return DeploymentResult.LIVE

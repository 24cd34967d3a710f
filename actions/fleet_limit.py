"""Keep the limit over all models: rollbacks under way elsewhere, as the ledger holds them.

Many models that get worse together are evidence about the labels they share rather than about the models. So only
`fleet.max_simultaneous` automatic rollbacks of different models may be under way; one is under way for the `cooldown`
of its model. A model learns of the others from the ledger alone, by `FleetFact` records and, inside its own
partition, by what their records led to; so a replay agrees, and a model in another partition can count too.

The driver of the fold appends a `FleetFact` after each automatic rollback (see `FleetState`). Until that record has
come back through the ledger, at most for `ECHO_MS`, it counts against the partition's share of what the limit leaves
free, and one rollback is always such a share: the next one waits. So as long as records come back in that time, the
limit is kept while every partition has a share of its own, and exceeded by at most one for each of the others in the
end. In one partition it is exact whatever happens, even where one tick alarms on every model. A limit far off holds up
nothing: a hundred models that are broken by one deployment are taken back as fast as they are found.
"""

from __future__ import annotations

import msgspec

from actions.facts import FleetFact
from actions.journal import Decision
from actions.reasons import Action, Reason

#: A rollback waits no longer than this for the record of the one before: a driver that lost it must not stop them all.
ECHO_MS = 10_000


class FleetState(msgspec.Struct):
    """Hold what one partition of the ledger knows: rollbacks under way by model, own ones whose record has not come
    back yet by decision, and the models whose rollback waits for that, in their order. `limit` is how many may be under
    way, over all `partitions` of the ledger.
    """

    limit: int
    under_way: dict[str, FleetFact] = {}
    owed: dict[str, FleetFact] = {}
    waiting: dict[str, None] = {}
    partitions: int = 1

    def configure(self, limit: int) -> None:
        """Take how many rollbacks may be under way."""
        self.limit = limit

    def spread(self, partitions: int) -> None:
        """Take over how many ledger partitions the models are spread."""
        self.partitions = partitions

    def owe(self, fact: FleetFact | None) -> None:
        """Count a rollback whose record is not in the ledger yet; None is no rollback."""
        if fact is not None:
            self.owed[fact.decision] = fact

    def take(self, fact: FleetFact, now: int) -> list[str]:
        """Take a record at `now` (ms, the ledger's clock), unless it is a repeat; return the models that waited for
        it."""
        self.owed.pop(fact.decision, None)
        known = self.under_way.get(fact.model)
        if known is None or (fact.until, fact.decision) > (known.until, known.decision):
            self.under_way[fact.model] = fact
        self.under_way = {name: other for name, other in self.under_way.items() if other.until > now}
        waiting = list(self.waiting)
        self.waiting.clear()
        return waiting

    def others(self, model: str, now: int) -> list[FleetFact]:
        """Return the rollbacks of other models that are under way at `now`, in milliseconds of the ledger's clock."""
        # Own ones count before their record has come back: it may come late, behind a backlog.
        newest = self.under_way | {fact.model: fact for fact in self.owed.values()}
        return [fact for name, fact in newest.items() if name != model and fact.until > now]

    def busy_until(self, model: str, now: int) -> int:
        """Return until when (ms) the model's automatic rollback waits for the records of those before; -1 if not."""
        ends = sorted(fact.clock + ECHO_MS for fact in self.owed.values() if fact.clock + ECHO_MS > now)
        if not ends:
            return -1
        free = self.limit - (len(self.others(model, now)) - len(ends))
        share = max(free // self.partitions, 1)
        return -1 if len(ends) < share else ends[len(ends) - share]


def fleet_fact(decision: Decision, cooldown_ms: int) -> FleetFact | None:
    """Return the record that follows a decision, None unless it is an automatic rollback.

    Args:
        decision: what was decided.
        cooldown_ms: how long a rollback of its model is under way.
    """
    ordered = decision.reason in (Reason.APPROVED, Reason.OPERATOR_ROLLBACK)
    if decision.action != Action.ROLLBACK or ordered:
        return None
    until = decision.ts + cooldown_ms
    return FleetFact(decision.ts, decision.id, decision.model, until)

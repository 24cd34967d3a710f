"""Keep what is known of the versions of a model: of those that were deployed or ordered, and of those that only answer.

Predictions name versions freely, so those that only answer, the strangers, have a limited number of places.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from unship.events import Deployment

#: Of so many live predictions, the newest of all versions, it is known which version gave how many.
NEWEST = 1_000
#: A version that gave fewer of them has as good as stopped answering.
ANSWERS_LEAST = 10


class Unannounced(msgspec.Struct):
    """Hold how many live predictions a version gave since `since` (ms) without a deployment, and whether that was
    noticed."""

    predictions: int
    since: int
    noticed: bool = False

    def count(self, predictions: int) -> None:
        """Count live predictions."""
        self.predictions += predictions

    def notice(self) -> None:
        """Take note that it was noticed."""
        self.noticed = True


class NewestAnswers(msgspec.Struct):
    """Hold which versions gave the newest live predictions, as runs (version, count), and since when (ms) each of them
    is among these."""

    runs: list[tuple[str, int]] = []
    counts: dict[str, int] = {}
    since: dict[str, int] = {}
    total: int = 0

    def add(self, runs: Iterable[tuple[str, int]], began: dict[str, int]) -> None:
        """Add predictions in their order; `began` has the time of the first one of each version that is new here.

        >>> newest = NewestAnswers()
        >>> newest.add([("v1", 900), ("v2", 300)], {"v1": 5, "v2": 7})
        >>> newest.runs, newest.counts
        ([('v1', 700), ('v2', 300)], {'v1': 700, 'v2': 300})
        """
        for version, count in runs:
            if self.runs and self.runs[-1][0] == version:
                # A single version is a single run, however many records it answers in.
                self.runs[-1] = (version, self.runs[-1][1] + count)
            else:
                self.runs.append((version, count))
            self.since.setdefault(version, began.get(version, -1))
            self.counts[version] = self.counts.get(version, 0) + count
            self.total += count
        while self.total > NEWEST:
            version, count = self.runs.pop(0)
            gone = min(count, self.total - NEWEST)
            if gone < count:
                self.runs.insert(0, (version, count - gone))
            self.total -= gone
            self.counts[version] -= gone
            if not self.counts[version]:
                del self.counts[version], self.since[version]

    def count(self, version: str) -> int:
        """Return how many of them a version gave."""
        return self.counts.get(version, 0)


class VersionFacts(msgspec.Struct):
    """Hold what deployments and its own predictions show of a version; it last answered at `answered_at`.

    `live` counts its live predictions, `not_judged` the outcomes of it that were not judged.
    """

    status: str | None = None
    first_role: str | None = None
    artifact: str | None = None
    deployed_ts: int = -1
    reference: dict[str, tuple[float, float]] = {}
    answered_at: int = -1
    live: int = 0
    unannounced: Unannounced | None = None
    not_judged: int = 0

    def deploy(self, event: Deployment, ts: int) -> None:
        """Take a deployment that is not older than the one before."""
        self.status, self.deployed_ts = event.status, ts
        self.artifact = event.artifact or self.artifact
        if event.reference:
            self.reference = {name: (entry.mean, float(entry.n)) for name, entry in event.reference.items()}

    def answered(self, role: str, count: int, now: int) -> None:
        """Note answers of the version."""
        if self.first_role is None:
            self.first_role = role
        if role == "live":
            self.live += count
        self.answered_at = max(self.answered_at, now)

    def answered_unannounced(self, count: int, now: int) -> Unannounced:
        """Note live answers of the version that no deployment names; return what is known of such."""
        if self.unannounced is None:
            self.unannounced = Unannounced(0, now)
        self.unannounced.count(count)
        return self.unannounced

    def leave_out(self, outcomes: int) -> None:
        """Count outcomes that were not judged."""
        self.not_judged += outcomes


class Versions(msgspec.Struct):
    """Hold the versions that were `deployed` or ordered, the newest deployment at the end, and the `strangers`, the one
    that answered last at the end.

    `announced` is whether the model ever had a deployment that counts; `newest` are the newest live predictions.
    """

    deployed: dict[str, VersionFacts] = {}
    strangers: dict[str, VersionFacts] = {}
    announced: bool = False
    newest: NewestAnswers = msgspec.field(default_factory=NewestAnswers)

    def announce(self) -> None:
        """Note a deployment of the model: from here on versions are announced."""
        self.announced = True

    def may_notice(self, limit: int) -> bool:
        """Return whether no more than so many versions without a deployment were noticed."""
        noticed = (facts.unannounced is not None and facts.unannounced.noticed for facts in self.strangers.values())
        return sum(noticed) <= limit

    def answers(self, version: str) -> bool:
        """Return whether a version still gives live answers, by the newest of all."""
        return self.newest.count(version) >= ANSWERS_LEAST

    def leave_out(self, version: str, outcomes: int) -> None:
        """Count outcomes of a version that were not judged, as long as it has a place."""
        if self.is_known(version):
            self.facts(version).leave_out(outcomes)

    def not_judged(self) -> dict[str, int]:
        """Return how many outcomes were not judged, by version."""
        known = {**self.deployed, **self.strangers}
        return {version: facts.not_judged for version, facts in sorted(known.items()) if facts.not_judged}

    def facts(self, version: str) -> VersionFacts:
        """Return what is known of a version; nothing is kept of an unknown one."""
        return self.deployed.get(version) or self.strangers.get(version) or VersionFacts()

    def know(self, version: str) -> VersionFacts:
        """Keep a version that is deployed or ordered, as the newest of them; return what is known of it."""
        facts = self.deployed.pop(version, None) or self.strangers.pop(version, None) or VersionFacts()
        self.deployed[version] = facts
        return facts

    def were_deployed(self) -> bool:
        """Return whether any of them was deployed, not only ordered."""
        return any(facts.status is not None for facts in self.deployed.values())

    def is_known(self, version: str) -> bool:
        """Return whether a version has a place."""
        return version in self.deployed or version in self.strangers

    def admit(self, version: str, now: int, limit: int) -> bool:
        """Give a version that answers a place, if one of the `limit` places of strangers is free.

        >>> versions = Versions()
        >>> versions.admit("v1", 0, 1), versions.admit("v2", 0, 1), versions.admit("v1", 0, 1)
        (True, False, True)
        """
        if not self.is_known(version):
            if len(self.strangers) >= limit:
                return False
            self.strangers[version] = VersionFacts(answered_at=now)
        return True

    def answered(self, version: str, role: str, count: int, now: int) -> VersionFacts:
        """Note answers of a version that has a place; return what is known of it."""
        facts = self.strangers.pop(version, None)
        if facts is None:
            facts = self.deployed[version]
        else:
            self.strangers[version] = facts
        facts.answered(role, count, now)
        return facts

    def silent(self, before: int) -> list[str]:
        """Return the strangers of which the last answer came before a time, the longest silent one first."""
        found = []
        for version, facts in self.strangers.items():
            if facts.answered_at >= before:
                break
            found.append(version)
        return found

    def forget(self, version: str) -> None:
        """Forget a version."""
        self.deployed.pop(version, None)
        self.strangers.pop(version, None)

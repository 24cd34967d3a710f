"""Keep what is known of the versions of a model: of those that were deployed or ordered, and of those that only answer.

Predictions name versions freely, so those that only answer, the strangers, have a limited number of places.
"""

from __future__ import annotations

import msgspec

from unship.events import Deployment


class VersionFacts(msgspec.Struct):
    """Hold what deployments and its own predictions show of a version; it last answered at `answered_at`."""

    status: str | None = None
    first_role: str | None = None
    artifact: str | None = None
    deployed_ts: int = -1
    reference: dict[str, tuple[float, float]] = {}
    answered_at: int = -1

    def deploy(self, event: Deployment, ts: int) -> None:
        """Take a deployment that is not older than the one before."""
        self.status, self.deployed_ts = event.status, ts
        self.artifact = event.artifact or self.artifact
        if event.reference:
            self.reference = {name: (entry.mean, float(entry.n)) for name, entry in event.reference.items()}

    def answered(self, role: str, now: int) -> None:
        """Note an answer of the version."""
        if self.first_role is None:
            self.first_role = role
        self.answered_at = max(self.answered_at, now)


class Versions(msgspec.Struct):
    """Hold the versions that were `deployed` or ordered, the newest deployment at the end, and the `strangers`, the one
    that answered last at the end."""

    deployed: dict[str, VersionFacts] = {}
    strangers: dict[str, VersionFacts] = {}

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

    def answered(self, version: str, role: str, now: int) -> VersionFacts:
        """Note an answer of a version that has a place; return what is known of it."""
        facts = self.strangers.pop(version, None)
        if facts is None:
            facts = self.deployed[version]
        else:
            self.strangers[version] = facts
        facts.answered(role, now)
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

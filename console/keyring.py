"""The keys of a monitor that runs: read again when their files are replaced, without a restart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from actions.reconcile import Signer
from unship.errors import ConfigurationError
from unship.keys import CONTROLLER_FILE, TRUST_FILE, TrustFile, file_stamp, load_private_key
from unship.signing import COMMAND_TYPE, DECISION_TYPE, key_id, public_bytes, sign


class Keyring:
    """Hold the signer of a folder of keys, as its files are now."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        """Read the folder; `report` gets a sentence about each thing that is missing.

        Raises:
            ConfigurationError: A file is there and cannot be used.
        """
        self._folder, self._report = folder, report
        self._trust: TrustFile | None = None
        self._seen: object = None
        self._problem = ""
        self.signer = self._read()
        if self.signer is None:
            report(f"run: no keys in {folder}, so nothing is commanded; make them with: unship keys new")
        elif (why := self._unfit(self.signer)) is not None:
            raise ConfigurationError(why)

    def current(self) -> Signer | None:
        """Return the signer, another object once a file was replaced; files that cannot be used change nothing."""
        try:
            if self._is_new():
                self.signer = self._read()
                why = None if self.signer is None else self._unfit(self.signer)
                self._report(f"run: {why or 'the keys were read again'}")
        except ConfigurationError as error:
            self._complain(str(error))
        return self.signer

    def _is_new(self) -> bool:
        if self._trust is None:
            return (self._folder / TRUST_FILE).exists()
        reloaded = self._trust.reload()
        if self._trust.problem:
            self._complain(self._trust.problem)
        return reloaded or file_stamp(self._folder / CONTROLLER_FILE) != self._seen

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._report(f"run: the keys stay as they were: {problem}")

    def _read(self) -> Signer | None:
        path = self._folder / CONTROLLER_FILE
        if self._trust is None:
            if not (self._folder / TRUST_FILE).exists() and not path.exists():
                return None
            self._trust = TrustFile(self._folder / TRUST_FILE)
        trust, self._seen = self._trust.trust, file_stamp(path)
        if self._seen is None:
            return Signer(trust.audience, lambda value: [], trust, may_command=False)
        key = load_private_key(path)
        trusted = public_bytes(key) in [each.public for each in trust.having("controller")]
        return Signer(
            trust.audience,
            lambda value: sign(value, key, COMMAND_TYPE),
            trust,
            (lambda value: sign(value, key, DECISION_TYPE)) if trusted else lambda value: [],
            may_command=trusted,
        )

    def _unfit(self, signer: Signer) -> str | None:
        """Return why a signer may not command, None if it may."""
        path = self._folder / CONTROLLER_FILE
        if signer.may_command:
            return None
        trusted = ", ".join(each.id for each in signer.trust.having("controller")) or "none"
        if not path.exists():
            return f"no {path}, so nothing is commanded; make it with: unship keys new --role controller"
        return (
            f"{self._folder}: controller.key has the id {key_id(public_bytes(load_private_key(path)))}, and trust.json "
            f"has {trusted}: replicas would refuse every command; bring together what one `unship keys new` made"
        )

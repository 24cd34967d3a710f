"""Keys are listed, revoked and made again by commands, and read again by a monitor that runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from console.cli import main
from console.keyring import Keyring
from unship.errors import ConfigurationError
from unship.events import Epoch
from unship.keys import TrustFile, load_private_key, load_trust, new_keys
from unship.signing import COMMAND_TYPE, Revoked, TrustedKey, sign, verify


def _first(epoch: Epoch, value: bytes) -> Epoch:
    return epoch


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    new_keys(tmp_path / "unship-keys", "prod")
    return tmp_path / "unship-keys"


def unship(*arguments: str) -> Result:
    return CliRunner().invoke(main, [*arguments])


def test_list_shows_names_roles_and_what_is_revoked(folder: Path) -> None:
    assert unship("keys", "revoke", "operator", "--from", "7", "--from-epoch", "0.5.1").exit_code == 0
    shown = json.loads(unship("--json", "keys", "list").stdout)
    assert shown["audience"] == "prod"
    assert [(key["name"], key["roles"], key["revoked"]) for key in shown["keys"]] == [
        ("controller", ["controller"], None),
        ("operator", ["operator"], {"from_ts": 7, "from_epoch": [0, 5, 1]}),
        ("deployer", ["deployer"], None),
    ]
    text = unship("keys", "list").stdout
    assert text.startswith("audience prod\n")
    assert text.count("revoked") == 1


def test_revoked_key_is_moved_aside_and_another_one_is_made_and_trusted(folder: Path) -> None:
    old = load_trust(folder / "trust.json").having("controller")[0]
    before = (folder / "controller.key").read_bytes()
    assert unship("keys", "revoke", old.id).exit_code == 0
    assert not (folder / "controller.key").exists()
    assert (folder / f"controller.key.revoked-{old.id}").read_bytes() == before
    assert unship("keys", "new", "--role", "controller").exit_code == 0
    (new,) = load_trust(folder / "trust.json").having("controller")
    assert (new.name, new.id == old.id) == ("controller-2", False)
    again = unship("keys", "new", "--role", "controller")
    assert (again.exit_code, "never overwritten" in again.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [("nobody",), ("operator", "--from-epoch", "7"), ("operator", "--from", "soon")])
def test_revoke_refuses_what_it_cannot_do_and_changes_nothing(folder: Path, arguments: tuple[str, ...]) -> None:
    before = (folder / "trust.json").read_bytes()
    assert unship("keys", "revoke", *arguments).exit_code == 2
    assert (folder / "trust.json").read_bytes() == before


def test_key_that_is_revoked_signs_for_nothing_but_what_came_before(folder: Path) -> None:
    key, trust = load_private_key(folder / "controller.key"), load_trust(folder / "trust.json")
    headers = sign(b"{}", key, COMMAND_TYPE)
    file = TrustFile(folder / "trust.json")
    assert (file.trust, file.reload()) == (trust, False)
    assert unship("keys", "revoke", "controller", "--from", "1000", "--from-epoch", "1.0.0").exit_code == 0
    assert (file.reload(), file.reload()) == (True, False)
    now = file.trust
    assert verify(b"{}", headers, now, "controller", COMMAND_TYPE) == "UNKNOWN_KEY"
    assert isinstance(verify(b"{}", headers, now, "controller", COMMAND_TYPE, at_ms=999), TrustedKey)
    assert verify(b"{}", headers, now, "controller", COMMAND_TYPE, at_ms=1_000) == "UNKNOWN_KEY"
    epochs: list[tuple[Epoch, bool]] = [((0, 9, 9), True), ((1, 0, 0), False)]
    for epoch, expected in epochs:
        found = verify(b"{}", headers, now, "controller", COMMAND_TYPE, epoch_of=partial(_first, epoch))
        assert isinstance(found, TrustedKey) is expected
        assert now.binds(trust.having("controller")[0].id, epoch) is expected


@pytest.mark.parametrize("damage", [b"", b"{", b'{"audience":"prod","keys":{}}', None])
def test_damaged_trust_file_changes_nothing_until_it_is_whole_again(folder: Path, damage: bytes | None) -> None:
    path = folder / "trust.json"
    file, whole = TrustFile(path), path.read_bytes()
    before = file.trust
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    assert (file.reload(), file.trust) == (False, before)
    assert str(path) in file.problem
    path.write_bytes(whole)
    assert (file.reload(), file.trust, file.problem) == (False, before, "")


def test_keyring_reads_keys_again_and_commands_only_with_a_trusted_one(folder: Path) -> None:
    said: list[str] = []
    keys = Keyring(folder, said.append)
    first = keys.current()
    assert first is not None
    assert (keys.current() is first, first.may_command) == (True, True)
    assert unship("keys", "revoke", "controller").exit_code == 0
    second = keys.current()
    assert second is not None
    assert (second is first, second.may_command, second is keys.current()) == (False, False, True)
    assert "unship keys new --role controller" in said[-1]
    assert unship("keys", "new", "--role", "controller").exit_code == 0
    third = keys.current()
    assert third is not None
    assert (third.may_command, third.sign(b"{}") == first.sign(b"{}")) == (True, False)
    (folder / "trust.json").write_text("{")
    assert keys.current() is keys.current() is third
    assert sum("the keys stay as they were" in sentence for sentence in said) == 1


def test_keyring_without_keys_takes_those_that_are_made_later(tmp_path: Path) -> None:
    said: list[str] = []
    keys = Keyring(tmp_path / "keys", said.append)
    assert (keys.current(), len(said)) == (None, 1)
    new_keys(tmp_path / "keys")
    signer = keys.current()
    assert signer is not None
    assert signer.may_command


def test_keyring_refuses_to_start_with_a_key_that_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    new_keys(tmp_path / "others")
    (tmp_path / "others" / "controller.key").replace(folder / "controller.key")
    with pytest.raises(ConfigurationError, match="replicas would refuse every command"):
        Keyring(folder, lambda text: None)


def test_revoked_says_what_it_spares() -> None:
    assert not Revoked().spares(0, (0, 0, 0))
    assert Revoked(from_ts=5).spares(4)
    assert not Revoked(from_ts=5).spares(None, (0, 0, 0))

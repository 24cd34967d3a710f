"""Keys on disk: made once, kept from others, never overwritten, and refused with the next step if they are wrong."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from unship.errors import ConfigurationError
from unship.keys import FILE_BYTES_MAX, encode_trust, load_private_key, load_trust, new_keys
from unship.signing import COMMAND_TYPE, DEPLOYMENT_TYPE, OPERATOR_TYPE, Role, TrustedKey, public_bytes, sign, verify

posix_only = pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX's")

KEY_FILES = ("controller.key", "operator.key", "deployer.key")


def pem(key, password: bytes | None = None) -> bytes:
    cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)


def private_file(folder: Path, data: bytes) -> Path:
    path = folder / "some.key"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def test_new_keys_sign_what_the_trust_file_verifies(tmp_path):
    made = new_keys(tmp_path / "keys", audience="prod")
    trust = load_trust(tmp_path / "keys" / "trust.json")
    assert trust == made
    assert trust.audience == "prod"
    uses: list[tuple[Role, str]] = [
        ("controller", COMMAND_TYPE), ("operator", OPERATOR_TYPE), ("deployer", DEPLOYMENT_TYPE),
    ]  # fmt: skip
    for role, kind in uses:
        key = load_private_key(tmp_path / "keys" / f"{role}.key")
        found = verify(b"{}", sign(b"{}", key, kind), trust, role, kind)
        assert isinstance(found, TrustedKey)
        assert found.name == role


def test_operator_key_of_new_keys_may_not_sign_commands(tmp_path):
    trust = new_keys(tmp_path / "keys")
    operator = load_private_key(tmp_path / "keys" / "operator.key")
    assert verify(b"{}", sign(b"{}", operator, COMMAND_TYPE), trust, "controller", COMMAND_TYPE) == "UNKNOWN_KEY"


@posix_only
def test_private_keys_are_for_the_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        new_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()}
    assert modes == {**dict.fromkeys(KEY_FILES, 0o600), "trust.json": 0o644}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_trust_file_holds_no_private_key(tmp_path):
    new_keys(tmp_path / "keys")
    text = (tmp_path / "keys" / "trust.json").read_text()
    assert set(json.loads(text)) == {"audience", "keys"}
    for name in KEY_FILES:
        secret = load_private_key(tmp_path / "keys" / name).private_bytes_raw()
        assert secret.hex() not in text
        assert "PRIVATE" not in text


def test_two_calls_make_different_keys(tmp_path):
    assert new_keys(tmp_path / "a").keys != new_keys(tmp_path / "b").keys


@pytest.mark.parametrize("name", ["controller.key", "operator.key", "trust.json"])
def test_existing_file_is_never_overwritten_and_nothing_is_written_beside_it(tmp_path, name):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    (folder / name).write_text("precious")
    with pytest.raises(ConfigurationError, match=rf"{name}: exists.*name another folder, or move"):
        new_keys(folder)
    assert [path.name for path in folder.iterdir()] == [name]
    assert (folder / name).read_text() == "precious"


def test_dangling_link_is_not_written_through(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    (folder / "controller.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="exists"):
        new_keys(folder)
    assert not (tmp_path / "elsewhere").exists()


@posix_only
def test_folder_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path):
    folder = tmp_path / "keys"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(ConfigurationError, match=rf"mode 0755 .*expected 0700; run: chmod 700 {folder}"):
        new_keys(folder)
    assert list(folder.iterdir()) == []


def test_folder_that_is_a_file_is_an_error_with_its_path(tmp_path):
    (tmp_path / "keys").write_text("")
    with pytest.raises(ConfigurationError, match="keys: cannot be made"):
        new_keys(tmp_path / "keys")


@pytest.mark.parametrize("audience", ["", "x" * 129])
def test_audience_without_or_with_too_many_characters_is_an_error(tmp_path, audience):
    with pytest.raises(ConfigurationError, match="audience"):
        new_keys(tmp_path / "keys", audience)
    assert not (tmp_path / "keys").exists()


@posix_only
@pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o601])
def test_private_key_open_to_others_is_refused(tmp_path, mode):
    path = private_file(tmp_path, pem(Ed25519PrivateKey.generate()))
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"mode {mode:04o}.*chmod 600"):
        load_private_key(path)


@posix_only
@pytest.mark.parametrize("name", ["", "trust.json"])
def test_trust_that_everybody_may_replace_is_refused_with_the_command_that_closes_it(tmp_path, name):
    keys = tmp_path / "keys"
    new_keys(keys)
    path = keys / name if name else keys
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o002)
    with pytest.raises(ConfigurationError, match=rf"{path}: mode 07?.*; run: chmod o-w {path}$"):
        load_trust(keys / "trust.json")
    if not name:
        with pytest.raises(ConfigurationError, match=rf"{path}: mode 0702 .*expected 0700"):
            load_private_key(keys / "controller.key")
        # In a folder like /tmp nobody replaces what is another's.
        path.chmod(0o1777)
        assert public_bytes(load_private_key(keys / "controller.key")) == load_trust(keys / "trust.json").keys[0].public


@posix_only
def test_private_key_that_its_group_may_read_is_read(tmp_path):
    """Secrets mounted into containers belong to a group."""
    key = Ed25519PrivateKey.generate()
    path = private_file(tmp_path, pem(key))
    path.chmod(0o440)
    assert public_bytes(load_private_key(path)) == public_bytes(key)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"secret words",
        b"\xff" * 100,
        pem(Ed25519PrivateKey.generate())[:60],
        pem(Ed25519PrivateKey.generate(), b"password"),
        pem(ec.generate_private_key(ec.SECP256R1())),
    ],
    ids=["empty", "words", "binary", "cut off", "encrypted", "another curve"],
)
def test_file_that_is_no_ed25519_key_is_an_error_that_does_not_quote_it(tmp_path, data):
    path = private_file(tmp_path, data)
    with pytest.raises(ConfigurationError, match=r"some\.key: .*unship keys new") as caught:
        load_private_key(path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("load", [load_private_key, load_trust])
def test_missing_oversized_or_unfit_path_is_an_error_with_path_and_fix(tmp_path, load):
    with pytest.raises(ConfigurationError, match=r"gone: no such file; .*unship keys new"):
        load(tmp_path / "gone")
    with pytest.raises(ConfigurationError, match="no such file"):
        load(tmp_path)
    with pytest.raises(ConfigurationError, match=f"more than {FILE_BYTES_MAX} bytes"):
        load(private_file(tmp_path, b"x" * (FILE_BYTES_MAX + 1)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`"),
        ('{"audience":"a"}', "keys"),
        ('{"audience":"a","keys":{}}', "length"),
        ('{"audience":"","keys":{"a":{"public":"","roles":["controller"]}}}', "audience"),
        ('{"audience":"a","keys":{"a":{"public":"","roles":[]}}}', "roles"),
        ('{"audience":"a","keys":{"a":{"public":"","roles":["root"]}}}', "root"),
        ('{"audience":"a","keys":{"a":{"public":"","roles":["controller"],"x":1}}}', "x"),
        ('{"audience":"a","keys":{"a":{"public":"!","roles":["controller"]}}}', r"keys\.a\.public"),
        ('{"audience":"a","keys":{"a":{"public":"AAAA","roles":["controller"]}}}', r"keys\.a\.public: expected 32"),
        ("[" * 60_000, "Expected `object`"),
    ],
)
def test_trust_file_that_is_none_is_an_error_with_path_and_what_is_wrong(tmp_path, text, says):
    path = tmp_path / "trust.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"(?s)trust\.json: .*({says})"):
        load_trust(path)


def test_trust_file_is_read_back_as_it_was_written(tmp_path):
    trust = new_keys(tmp_path / "keys", "prod")
    copy = tmp_path / "trust.json"
    copy.write_bytes(encode_trust(trust))
    assert load_trust(copy) == trust

"""Who signed these bytes: signatures over exact bytes, for one type, by a key with the role."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from unship.signing import (
    COMMAND_TYPE,
    KEY_HEADER,
    OPERATOR_TYPE,
    SIGNATURE_HEADER,
    Role,
    Trust,
    TrustedKey,
    key_id,
    pae,
    public_bytes,
    sign,
    verify,
)

CONTROLLER, SECOND, OPERATOR, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(1, 5))
VALUE = b'{"model":"fraud"}'


def trusted(name: str, key: Ed25519PrivateKey, *roles: Role) -> TrustedKey:
    return TrustedKey(name, public_bytes(key), roles)


TRUST = Trust(
    (
        trusted("first", CONTROLLER, "controller"),
        trusted("second", SECOND, "controller"),
        trusted("people", OPERATOR, "operator"),
    )
)


def asked(headers, value=VALUE, trust=TRUST, role: Role = "controller", kind=COMMAND_TYPE) -> str:
    """Return the key's name or the refusal."""
    found = verify(value, headers, trust, role, kind)
    return found if isinstance(found, str) else found.name


def signed(key: Ed25519PrivateKey = CONTROLLER, value: bytes = VALUE, kind: str = COMMAND_TYPE):
    return sign(value, key, kind)


def with_header(headers, name: str, *values):
    return [*(pair for pair in headers if pair[0] != name), *((name, value) for value in values)]


def test_encoding_to_sign_is_that_of_the_specification():
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("", b"") == b"DSSEv1 0  0 "
    assert pae("ö", b"\x00 1") == b"DSSEv1 2 \xc3\xb6 3 \x00 1"


def test_lengths_keep_type_and_payload_apart():
    assert pae("a 1", b"b") != pae("a", b"1 b")


def test_signature_is_ed25519_of_the_encoding():
    """RFC 8032, section 7.1, test 1 fixes key and public half; the signature is checked by the library's own words."""
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = Ed25519PrivateKey.from_private_bytes(secret)
    assert public_bytes(key).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    headers = dict(sign(VALUE, key, COMMAND_TYPE))
    key.public_key().verify(base64.b64decode(headers[SIGNATURE_HEADER]), pae(COMMAND_TYPE, VALUE))
    assert headers[KEY_HEADER].decode() == key_id(public_bytes(key))
    assert sign(VALUE, key, COMMAND_TYPE) == sign(VALUE, key, COMMAND_TYPE)


@pytest.mark.parametrize(("key", "name"), [(CONTROLLER, "first"), (SECOND, "second")])
def test_value_signed_by_a_trusted_key_gives_its_name(key, name):
    assert asked(signed(key)) == name


@pytest.mark.parametrize("position", range(len(VALUE)))
def test_one_changed_byte_of_the_value_is_a_bad_signature(position):
    changed = bytearray(VALUE)
    changed[position] ^= 1
    assert asked(signed(), value=bytes(changed)) == "BAD_SIGNATURE"


def test_signature_for_another_type_is_bad():
    assert asked(signed(kind=OPERATOR_TYPE)) == "BAD_SIGNATURE"
    assert asked(signed(OPERATOR, kind=OPERATOR_TYPE), role="operator", kind=OPERATOR_TYPE) == "people"


@pytest.mark.parametrize(
    "hint", [(), (b"",), (b"\xff\xfe",), (None,), (key_id(public_bytes(SECOND)).encode(),), (b"x", b"y")]
)
def test_hint_that_is_wrong_or_missing_does_not_stop_a_good_signature(hint):
    assert asked(with_header(signed(), KEY_HEADER, *hint)) == "first"


def test_unknown_hint_does_not_stop_a_good_signature():
    assert asked(with_header(signed(), KEY_HEADER, b"0123456789abcdef")) == "first"


def test_hint_of_a_trusted_key_does_not_make_a_strangers_signature_good():
    hint = key_id(public_bytes(CONTROLLER)).encode()
    assert asked(with_header(signed(STRANGER), KEY_HEADER, hint)) == "BAD_SIGNATURE"


def test_key_that_nobody_trusts_is_unknown():
    assert asked(signed(STRANGER)) == "UNKNOWN_KEY"


def test_stranger_without_a_hint_has_a_bad_signature():
    assert asked(with_header(signed(STRANGER), KEY_HEADER)) == "BAD_SIGNATURE"


def test_trusted_key_without_the_role_is_unknown():
    assert asked(signed(OPERATOR)) == "UNKNOWN_KEY"


def test_trust_without_the_role_knows_no_key():
    assert asked(signed(), trust=Trust((trusted("people", OPERATOR, "operator"),))) == "UNKNOWN_KEY"
    assert asked(signed(), trust=Trust(())) == "UNKNOWN_KEY"


def test_key_with_both_roles_signs_for_both():
    trust = Trust((trusted("one", CONTROLLER, "controller", "operator"),))
    assert asked(signed(kind=OPERATOR_TYPE), trust=trust, role="operator", kind=OPERATOR_TYPE) == "one"


@pytest.mark.parametrize(
    "signature",
    [
        (),
        (None,),
        (b"",),
        (b"=" * 88,),
        (b"\xff" * 88,),
        (base64.b64encode(bytes(63)),),
        (base64.b64encode(bytes(65)),),
        (base64.b64encode(bytes(64)),),
        (dict(signed())[SIGNATURE_HEADER] + b"\n",),
        (b" " + dict(signed())[SIGNATURE_HEADER][:-1],),
        (dict(signed())[SIGNATURE_HEADER], dict(signed())[SIGNATURE_HEADER]),
        (b"A" * 1_000_000,),
    ],
)
def test_signature_that_is_missing_doubled_or_misshapen_is_bad(signature):
    assert asked(with_header(signed(), SIGNATURE_HEADER, *signature)) == "BAD_SIGNATURE"


def test_key_in_the_trust_that_is_no_key_verifies_nothing_and_stops_nothing():
    broken = TrustedKey("broken", b"short", ("controller",))
    assert asked(signed(), trust=Trust((broken, *TRUST.keys))) == "first"
    assert asked(signed(), trust=Trust((broken,))) == "UNKNOWN_KEY"

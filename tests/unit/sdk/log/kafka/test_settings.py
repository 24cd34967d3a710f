"""Addresses of Kafka logs, and the security settings that every client is given."""

import datetime
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from unship.errors import ConfigurationError
from unship.log.kafka.settings import Security, TopicNames, client_options, parse_log, topic_names
from unship.topics import TOPICS

LOG = "kafka://127.0.0.1:9092"


@pytest.fixture
def certificate(tmp_path):
    """Write a self-signed certificate and its key; return both paths and the key itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=36_500))
    certificate_file, key_file = tmp_path / "client.pem", tmp_path / "client.key"
    certificate_file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(pem(key, serialization.NoEncryption()))
    return certificate_file, key_file, key


def pem(key, encryption):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    "log",
    [
        "kafka://",
        "kafka://h:0",
        "kafka://h:65536",
        "kafka://h:x",
        "kafka://h:9092/topic",
        "kafka://h:9092,",
        "kafka://a b",
        "kafka://h?x=1",
        "kafka://::1",
        "embedded:x",
        "",
        "kafka://h:٣",
    ],
)
def test_address_that_names_no_broker_is_refused(log):
    with pytest.raises(ConfigurationError, match="expected kafka://HOST:PORT"):
        parse_log(log)


def test_credentials_in_the_address_are_refused_without_being_repeated():
    with pytest.raises(ConfigurationError, match="no credentials in the address") as caught:
        parse_log("kafka://monitor:hunter2@h:9092")
    assert "hunter2" not in str(caught.value)


def test_too_many_brokers_are_refused():
    with pytest.raises(ConfigurationError, match="65 brokers > 64"):
        parse_log("kafka://" + ",".join(f"h{number}" for number in range(65)))


def test_client_without_settings_sends_nothing_secret():
    assert client_options(LOG, environment={}) == {
        "bootstrap_servers": ["127.0.0.1:9092"],
        "client_id": "unship",
        "security_protocol": "PLAINTEXT",
    }


def test_username_alone_means_encryption_too(tmp_path):
    (tmp_path / "secret").write_text("pass word\n")
    options = client_options(LOG, Security(username="fleet", password_file="secret"), folder=tmp_path)
    assert options["security_protocol"] == "SASL_SSL"
    assert options["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("fleet", "pass word")
    assert options["ssl_context"].check_hostname
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED


def test_environment_says_the_same_as_the_configuration(tmp_path, certificate):
    authority, key, _ = certificate
    by_hand = Security("SASL_SSL", "PLAIN", "u", "p", None, str(authority), str(authority), str(key))
    names = {f"UNSHIP_SECURITY_{field.upper()}": getattr(by_hand, field) or "" for field in Security.__struct_fields__}
    options, expected = client_options(LOG, environment=names), client_options(LOG, by_hand)
    contexts = options.pop("ssl_context"), expected.pop("ssl_context")
    assert options == expected
    assert [context.cert_store_stats()["x509"] for context in contexts] == [1, 1]


@pytest.mark.parametrize(
    ("security", "message"),
    [
        (Security(username="u"), "username: there is no password"),
        (Security(password="p"), "username: missing, and a password needs it"),
        (Security("SASL_PLAINTEXT"), "username: missing, and SASL_PLAINTEXT needs it"),
        (Security(username="u", password="p", password_file="f"), "password: both password and password_file"),
        (Security("SSL", username="u", password="p"), "protocol: SSL sends no username; write SASL_SSL"),
        (Security(cert_file="c"), "cert_file: a certificate needs its key"),
        (Security("PLAINTEXT", ca_file="c"), "protocol: PLAINTEXT uses no certificates; write SSL"),
        (Security("SASL_PLAINTEXT", username="u", password="p", ca_file="c"), "protocol: .*; write SASL_SSL"),
        (Security(username="u", password_file="missing"), "password_file: .*missing cannot be read"),
        (Security(ca_file="missing"), "ca_file: .*missing holds no certificates"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(security, message, tmp_path):
    with pytest.raises(ConfigurationError, match=rf"^kafka\.security\.{message}"):
        client_options(LOG, security, folder=tmp_path)


def test_variable_with_a_wrong_value_is_named():
    with pytest.raises(ConfigurationError, match="UNSHIP_SECURITY_PROTOCOL: expected one of PLAINTEXT, SSL"):
        client_options(LOG, environment={"UNSHIP_SECURITY_PROTOCOL": "TLS"})
    with pytest.raises(ConfigurationError, match=r"UNSHIP_SECURITY_PASSWORD_FILE: .*x cannot be read"):
        client_options(LOG, environment={"UNSHIP_SECURITY_USERNAME": "u", "UNSHIP_SECURITY_PASSWORD_FILE": "x"})


@pytest.mark.parametrize(("content", "found"), [("", "nothing"), ("\n", "nothing"), ("x" * 5_000, "more than 4096")])
def test_file_that_holds_no_password_is_refused(tmp_path, content, found):
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ConfigurationError, match=f"holds {found}"):
        client_options(LOG, Security(username="u", password_file="secret"), folder=tmp_path)


def test_encrypted_key_is_refused_instead_of_asking_on_the_terminal(tmp_path, certificate):
    authority, key_file, key = certificate
    key_file.write_bytes(pem(key, serialization.BestAvailableEncryption(b"secret")))
    with pytest.raises(ConfigurationError, match="the key is encrypted"):
        client_options(LOG, Security(cert_file=str(authority), key_file=str(key_file)))


def test_key_of_another_certificate_is_refused(tmp_path, certificate):
    authority, key_file, _ = certificate
    key_file.write_bytes(pem(ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption()))
    with pytest.raises(ConfigurationError, match="do not belong together"):
        client_options(LOG, Security(cert_file=str(authority), key_file=str(key_file)))


def test_password_is_in_no_representation():
    assert "hunter2" not in repr(Security(username="u", password="hunter2"))
    assert "'u'" in repr(Security(username="u", password="hunter2"))


def test_topic_names_carry_the_prefix_and_lose_it_again():
    for names in (TopicNames(), TopicNames(""), TopicNames("a.b-c_")):
        assert [names.plain(names.of(topic)) for topic in TOPICS] == list(TOPICS)
    assert topic_names({"UNSHIP_TOPIC_PREFIX": "x-"}).of("ledger") == "x-ledger"
    assert topic_names({}).of("ledger") == "unship.ledger"


@pytest.mark.parametrize("prefix", ["a b", "a/", "ü", "x" * 201, "a\n"])
def test_prefix_that_a_broker_refuses_is_refused(prefix):
    with pytest.raises(ConfigurationError, match="prefix of the topics"):
        TopicNames(prefix)

"""The keys that tests sign with: the same in every run, so that what they signed is the same too."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from unship.signing import Trust, TrustedKey, public_bytes

CONTROLLER, OPERATOR, STRANGER = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
TRUST = Trust(
    (
        TrustedKey("controller", public_bytes(CONTROLLER), ("controller",)),
        TrustedKey("operator", public_bytes(OPERATOR), ("operator",)),
    ),
    "prod",
)

"""Who signs for a monitor in tests."""

from __future__ import annotations

from actions.reconcile import Signer
from tests.keys import CONTROLLER, TRUST
from unship.signing import COMMAND_TYPE, DECISION_TYPE, sign

SIGNER = Signer(
    "prod",
    lambda value: sign(value, CONTROLLER, COMMAND_TYPE),
    TRUST,
    lambda value: sign(value, CONTROLLER, DECISION_TYPE),
)

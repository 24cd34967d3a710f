"""`import unship` stays light, and its public names are pinned."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import unship
from unship.errors import ConfigurationError, RecordingError, SnapshotError, UnshipError


def test_import_loads_nothing_but_the_package_itself() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(Path(unship.__file__).parents[1])!r}); "
        "before = set(sys.modules); import unship; "
        "print(sorted(m for m in set(sys.modules) - before if m.split('.')[0] in "
        "{'unship', 'msgspec', 'orjson', 'aiokafka', 'cryptography', 'numpy', 'river', 'faust', 'asyncio'}))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['unship']"


def test_public_names_are_pinned_and_all_load() -> None:
    assert unship.__all__ == [
        "LATER",
        "Ack",
        "ConfigurationError",
        "Deployment",
        "Event",
        "Feedback",
        "Fleet",
        "Limits",
        "OperatorAct",
        "OtherLine",
        "Prediction",
        "RecordingError",
        "RejectCode",
        "Rejection",
        "SnapshotError",
        "UnshipError",
        "decode_line",
        "decode_value",
        "encode_line",
        "event_schemas",
    ]
    for name in unship.__all__:
        assert getattr(unship, name) is not None
        assert name in dir(unship)


def test_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Fraud'"):
        unship.Fraud  # noqa: B018


@pytest.mark.parametrize("error", [ConfigurationError, RecordingError, SnapshotError])
def test_one_class_catches_every_error_of_operation(error: type[UnshipError]) -> None:
    with pytest.raises(UnshipError, match="fact"):
        raise error("fact")
    assert error.__doc__

"""What other programs rely on: exported names, a light library, two distributions that belong together."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import detectors
import unship

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("sdk/unship", "streams", "detectors", "actions", "console")

# A change here is a change for everybody who imports the library: it belongs in the changelog.
LIBRARY_EXPORTS = [
    "Ack",
    "ConfigurationError",
    "Deployment",
    "Event",
    "Feedback",
    "Fleet",
    "LATER",
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
LIBRARY_DEPENDENCIES = {"aiokafka", "cryptography", "msgspec"}

LOADED_AFTER_IMPORT = """
import sys
import unship
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""
LOADED_AFTER_ALL_NAMES = """
import sys
import unship
for name in unship.__all__:
    getattr(unship, name)
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def project(folder: Path) -> dict[str, object]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def loaded_by(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "sdk", capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_library_exports_exactly_the_pinned_names():
    assert sorted(unship.__all__) == LIBRARY_EXPORTS


@pytest.mark.parametrize("name", LIBRARY_EXPORTS)
def test_every_exported_name_loads_and_is_listed(name):
    assert getattr(unship, name) is not None
    assert name in dir(unship)


def test_unknown_name_of_the_library_raises_attribute_error_with_the_name():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = unship.no_such_name


def test_detectors_export_exactly_the_pinned_names():
    assert sorted(detectors.__all__) == ["Detector", "create", "names", "restore"]


def test_importing_the_library_loads_neither_a_client_nor_a_decoder():
    """A serving process pays for what it uses: the names load on first use."""
    assert not loaded_by(LOADED_AFTER_IMPORT) & {"aiokafka", "asyncio", "msgspec", "orjson", "numpy", "river", "faust"}


def test_using_every_name_of_the_library_loads_no_numeric_library_and_no_client():
    loaded = loaded_by(LOADED_AFTER_ALL_NAMES)
    assert "msgspec" in loaded
    assert not loaded & {"aiokafka", "asyncio", "numpy", "scipy", "river", "faust", "mode", "click", "rich", "yaml"}


def test_library_depends_on_its_client_its_decoders_and_its_signatures_only():
    asked = project(ROOT / "sdk")["dependencies"]
    assert isinstance(asked, list)
    assert {text.partition(">")[0] for text in asked} == LIBRARY_DEPENDENCIES


def test_each_distribution_brings_its_one_command():
    assert project(ROOT / "sdk")["scripts"] == {"unship-replica": "unship.sidecar.cli:main"}
    assert project(ROOT)["scripts"] == {"unship": "console:main"}


def test_command_of_the_library_loads_no_heavy_library():
    loaded = loaded_by("import sys, unship.sidecar.cli, unship.sidecar.http\nprint(*sys.modules)")
    assert "unship.sidecar.http" in loaded
    assert not loaded & {"aiohttp", "aiokafka", "asyncio", "numpy", "click", "rich", "yaml"}


def test_both_distributions_have_one_version():
    assert project(ROOT)["version"] == project(ROOT / "sdk")["version"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_marked_as_typed(package):
    assert (ROOT / package / "py.typed").is_file()

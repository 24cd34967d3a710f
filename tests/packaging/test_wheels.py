"""What the two wheels hold: the packages, all of them, and nothing of the repository around them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTENTS = {
    "unship": (ROOT / "sdk", {"unship": ROOT / "sdk" / "unship"}),
    "unship_monitor": (ROOT, {name: ROOT / name for name in ("streams", "detectors", "actions", "console")}),
}


def build(project, folder):
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


@pytest.fixture(scope="module", params=sorted(CONTENTS))
def wheel(request, tmp_path_factory):
    """Return (distribution, its packages' folders, the open wheel)."""
    project, packages = CONTENTS[request.param]
    with build(project, tmp_path_factory.mktemp(request.param)) as archive:
        yield request.param, packages, archive


def test_wheel_holds_its_packages_and_nothing_else(wheel):
    name, packages, archive = wheel
    top = {entry.partition("/")[0] for entry in archive.namelist()}
    (metadata,) = [entry for entry in top if entry.endswith(".dist-info")]
    assert top - {metadata} == set(packages)
    assert metadata.startswith(f"{name}-")


def test_wheel_holds_every_file_of_its_packages(wheel):
    """Data files too: a recording that the demo reads must not stay behind."""
    _, packages, archive = wheel
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in packages.items()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected <= set(archive.namelist())


def test_wheel_holds_the_licence_and_no_tests(wheel):
    _, _, archive = wheel
    names = archive.namelist()
    (licence,) = [name for name in names if name.endswith("/licenses/LICENSE")]
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert not [
        name for name in names if "tests" in Path(name).parts or Path(name).name.startswith(("test_", "conftest"))
    ]

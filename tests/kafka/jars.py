"""Find Apache Kafka's jars, get them with Maven where that is asked for, and say what is missing otherwise."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
JAVA_MIN = 17
HOW = "run: make tools"


class KafkaUnavailable(Exception):
    """There is no Kafka on this machine; the message says what is missing and how to get it."""


def version() -> str:
    """Return the version of Kafka that the tests run against."""
    match = re.search(r"<kafka\.version>([\d.]+)<", POM.read_text(encoding="utf-8"))
    assert match is not None, POM
    return match[1]


def cache() -> Path:
    """Return the folder of the jars: the same for every checkout, because they are 54 MB and never change."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "unship-kafka" / version()


def java() -> str:
    """Return the path of a Java that is new enough.

    Raises:
        KafkaUnavailable: There is none.
    """
    found = shutil.which("java")
    if found is None:
        raise KafkaUnavailable(f"Kafka needs Java >= {JAVA_MIN}, and there is none; {HOW}")
    told = subprocess.run([found, "-version"], capture_output=True, text=True, check=False)
    match = re.search(r'version "(\d+)', told.stderr + told.stdout)
    if match is None or int(match[1]) < JAVA_MIN:
        raise KafkaUnavailable(f"Kafka needs Java >= {JAVA_MIN}, was {match[1] if match else 'unusable'}; {HOW}")
    return found


def jars() -> Path:
    """Return the folder that holds Kafka's jars. No test gets them by itself: that is a download.

    Raises:
        KafkaUnavailable: They are not on this machine.
    """
    folder = cache()
    if not folder.is_dir():
        raise KafkaUnavailable(f"Kafka's jars are not on this machine; {HOW}")
    return folder


def fetch() -> None:
    """Get the jars, once per machine.

    Raises:
        KafkaUnavailable: Maven is missing or could not get them.
    """
    folder = cache()
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several test runs of one machine may get here at once; the first one fetches, the others find it done.
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _fetch(folder)


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable(f"Kafka's jars are fetched with Maven (mvn), and there is none; {HOW}")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as name:
        command = [maven, "-B", "-q", "-Dstyle.color=never", "-f", str(POM), "dependency:copy-dependencies"]
        command += ["-DincludeScope=runtime", f"-DoutputDirectory={name}/jars"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise KafkaUnavailable(f"mvn could not fetch Kafka {version()}: {(done.stdout + done.stderr)[-2_000:]}")
        # Renamed when complete, so that an interrupted fetch leaves nothing that looks whole.
        (Path(name) / "jars").rename(folder)

"""Run the README's commands as a newcomer would: in a fresh copy of the repository, word for word.

A fenced `sh` block is run if the line before it is the comment `<!-- runs in CI -->`. All blocks run in one copy, in
order, each as one shell script that stops at the first failing command. The copy has no environment yet, so
the commands do all their own set-up.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tree import ROOT, name_of, tracked

BLOCK = re.compile(r"^<!-- runs in CI -->\n+```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 900
# Set while the README's commands run: a README with `make check` must not start itself again.
INSIDE = "UNSHIP_README_RUNS"
# What a newcomer's shell does not hold, although ours may.
OURS = {"VIRTUAL_ENV", "MAKE", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}


def blocks(text: str) -> list[str]:
    """Return the marked blocks' text.

    >>> blocks("# Title\\n\\n<!-- runs in CI -->\\n```sh\\nmake demo\\n```\\n\\n```sh\\ngit clone\\n```\\n")
    ['make demo\\n']
    """
    return BLOCK.findall(text)


def fresh_copy(folder: Path) -> str:
    """Put a copy of the repository into the folder and return how: a clone of HEAD, if HEAD is what is here."""
    status = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    if not status.stdout.strip():
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], check=True)
        return "a clone of HEAD"
    for path in tracked():
        target = folder / name_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
    # The commands may ask git for the files, as the checks do.
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    return "a copy of the working tree, which has changes"


def run(block: str, folder: Path) -> tuple[int, str]:
    """Run one block; return its exit code and its output, both streams together."""
    inherited = {name: value for name, value in os.environ.items() if name not in OURS}
    try:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", block],
            cwd=folder,
            env={**inherited, INSIDE: "yes"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        return 124, (output.decode(errors="replace") if isinstance(output, bytes) else output)
    return done.returncode, done.stdout


def main() -> int:
    """Run all blocks; return 1 if there are none or one fails."""
    if os.environ.get(INSIDE):
        print("the README's commands are running already")
        return 0
    found = blocks((ROOT / "README.md").read_text(encoding="utf-8"))
    if not found:
        print("README.md has no block marked <!-- runs in CI -->: nothing would be checked")
        return 1
    with tempfile.TemporaryDirectory(prefix="unship-readme-") as folder:
        copy = Path(folder) / "unship"
        copy.mkdir()
        print(f"in {fresh_copy(copy)}", flush=True)
        for block in found:
            print("\n".join(f"  $ {line}" for line in block.splitlines()), flush=True)
            began = time.monotonic()
            code, output = run(block, copy)
            print(f"  exit {code}, {time.monotonic() - began:.0f} s", flush=True)
            if code:
                print(output)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

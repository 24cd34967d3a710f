"""Run every scenario of the demo as its processes, on several seeds, and say how each ended.

python -m tests.demos --seeds 5
python -m tests.demos decay slice --seeds 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.demos import ENDS, End, wrong

UNSHIP = Path(sys.executable).with_name("unship")


def run(name: str, end: End, seed: int) -> tuple[dict[str, Any], str]:
    """Run one scenario; return its summary and what is wrong with it."""
    more = [] if end.holdback else ["--no-holdback"]
    command = [str(UNSHIP), "-q", "demo", "--json", "--no-web", "--scenario", end.scenario or name, "--seed", str(seed)]
    done = subprocess.run([*command, "--speed", "1000", *more], capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        return {}, f"exit {done.returncode}: {done.stderr.strip()[-500:]}"
    summary: dict[str, Any] = json.loads(done.stdout)
    Path(summary["recording"]).unlink()
    found = wrong(end, summary["decisions"])
    found += [
        f"{name} serves {it['version']}" for name, it in summary["replicas"].items() if it["version"] != end.serves
    ]
    if not summary["converged"] or summary["audit"]["decisions"] != summary["audit"]["reproduced"]:
        found.append(f"converged {summary['converged']}, audit {summary['audit']}")
    return summary, "; ".join(found)


def main() -> int:
    """Run them all; return 1 if one did not end as named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(ENDS), help="scenarios; default: all")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 1 to this one; default: 5")
    asked = parser.parse_args()
    failed = 0
    print(f"{'scenario':<22} seed  {'last decision':<32} {'converged':<9} seconds")
    for name in asked.names:
        for seed in range(1, asked.seeds + 1):
            summary, complaint = run(name, ENDS[name], seed)
            acts = [f"{it['action']} {it['reason']}" for it in summary.get("decisions", []) if it["action"] != "none"]
            last, converged = acts[-1] if acts else "-", str(summary.get("converged"))
            seconds = summary.get("seconds", 0.0)
            print(f"{name:<22} {seed:<5} {last:<32} {converged:<9} {seconds:.1f}  {complaint}", flush=True)
            failed += bool(complaint)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run seeds of the simulation of readers: `python -m tests.simulation FIRST [LAST]`; prints what went wrong and what
was reached."""

import sys
from collections import Counter

from tests.simulation.readers import Site, verdict_of


def main() -> int:
    """Run the seeds; return 1 if one of them is not clean."""
    first = int(sys.argv[1])
    last = int(sys.argv[2]) if len(sys.argv) > 2 else first
    reached: Counter[str] = Counter()
    outcomes = failed = 0
    for seed in range(first, last + 1):
        site = Site(seed)
        site.run()
        verdict = verdict_of(site)
        outcomes += sum(site.applied().values())
        reached += site.reached
        if not verdict.clean:
            failed += 1
            sys.stdout.write(f"seed {seed}: {verdict}\n")
    sys.stdout.write(f"{last - first + 1} seeds, {failed} not clean, {outcomes} outcomes, {dict(reached)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run seeds of the simulation of readers, and print what went wrong and what was reached.

python -m tests.simulation FIRST [LAST]                    the readers alone
python -m tests.simulation FIRST LAST --faults retention   with faults of the logs beside them; several, or `all`
python -m tests.simulation --mutants                       the first seed that catches each tempting shortcut
"""

import argparse
import sys
from collections import Counter

from tests.simulation.harsh import LOST, HarshSite, harsh_verdict
from tests.simulation.mutants import MUTANT_SEEDS, MUTANTS, is_caught
from tests.simulation.readers import Site, verdict_of


def main() -> int:
    """Run the seeds; return 1 if one of them is not clean, or a mutant survives."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("first", type=int, nargs="?", default=0)
    parser.add_argument("last", type=int, nargs="?")
    parser.add_argument("--faults", nargs="+", choices=[*sorted(LOST), "all"], default=[])
    parser.add_argument("--mutants", action="store_true")
    arguments = parser.parse_args()
    if arguments.mutants:
        return _mutants()
    faults = LOST if "all" in arguments.faults else frozenset(arguments.faults)
    seeds = range(arguments.first, (arguments.first if arguments.last is None else arguments.last) + 1)
    reached: Counter[str] = Counter()
    outcomes = failed = 0
    for seed in seeds:
        site = HarshSite(seed, faults) if faults else Site(seed)
        site.run()
        verdict = harsh_verdict(site) if isinstance(site, HarshSite) else verdict_of(site)
        outcomes += sum(site.applied().values())
        corners = max(reached["corners"], site.reached["corners"])
        reached += site.reached
        reached["corners"] = corners
        if not verdict.clean:
            failed += 1
            sys.stdout.write(f"seed {seed}: {verdict}\n")
    told = dict(sorted(reached.items()))
    sys.stdout.write(f"{len(seeds)} seeds of {sorted(faults)}, {failed} not clean, {outcomes} outcomes, {told}\n")
    return 1 if failed else 0


def _mutants() -> int:
    survived = 0
    for mutant in MUTANTS:
        seed = next((seed for seed in range(MUTANT_SEEDS) if is_caught(mutant, seed)), None)
        survived += seed is None
        sys.stdout.write(f"{mutant.__name__}: {'survives' if seed is None else f'caught by seed {seed}'}\n")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

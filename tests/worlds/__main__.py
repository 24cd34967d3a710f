"""Write recordings, configurations and expectations to a folder, for runs by hand.

python -m tests.worlds decay --seed 3 --lines 230000 --out DIR
python -m tests.worlds --all --noise --out DIR
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import orjson

from tests.worlds.generator import generate
from tests.worlds.noise import spoil
from tests.worlds.scenarios import FULL_LINES, SCENARIOS, scenario


def write(name: str, seed: int, lines: int, folder: Path, noisy: bool) -> None:
    """Write NAME.ndjson, NAME.yaml and NAME.expect.json, and with noise NAME.noisy.ndjson and NAME.added.json."""
    made = scenario(name, seed, lines)
    recording = generate(made.world)
    (folder / f"{name}.ndjson").write_bytes(recording.to_bytes())
    (folder / f"{name}.yaml").write_text(made.config)
    (folder / f"{name}.expect.json").write_bytes(orjson.dumps(asdict(made.expect), option=orjson.OPT_INDENT_2))
    if noisy:
        spoiled = spoil(recording, seed)
        (folder / f"{name}.noisy.ndjson").write_bytes(spoiled.to_bytes())
        (folder / f"{name}.added.json").write_bytes(orjson.dumps(spoiled.added, option=orjson.OPT_INDENT_2))


def main() -> None:
    """Read the arguments and write what they name."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--all", action="store_true", help="every scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int, default=FULL_LINES)
    parser.add_argument("--noise", action="store_true", help="a spoiled recording beside each clean one")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    names = list(SCENARIOS) if arguments.all else arguments.names
    unknown = sorted(set(names) - set(SCENARIOS))
    if unknown or not names:
        parser.error(f"unknown scenario {', '.join(unknown)}" if unknown else "name a scenario, or --all")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        write(name, arguments.seed, arguments.lines, arguments.out, arguments.noise)
        print(arguments.out / f"{name}.ndjson")


if __name__ == "__main__":
    main()

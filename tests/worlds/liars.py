"""Let a part of the labels lie, under names that are chosen to escape notice, in worlds whose truth is known.

The liar reports a share of all labels from the first one on, at first truly. From the change on it calls right answers
of one version wrong. What differs between the attacks is the name that it reports under, and which version it is about.

python -m tests.worlds.liars --seeds 3

prints for each attack what share of the labels it takes to have a healthy version rolled back.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import orjson

from streams.config.parse import parse
from tests.pipelines import Run
from tests.worlds.generator import (
    FEEDBACK,
    HOUR_MS,
    MINUTE_MS,
    SOURCES,
    Labels,
    Recording,
    World,
    generate,
    prediction_id,
)

THROWN_AWAY = tuple(f"t{i}" for i in range(8))
"""Names that take all places before an honest source has one."""

FIRST_LABELS = 400


@dataclass(frozen=True, slots=True)
class Attack:
    """Name the liar's label number `i`, whose honest name is `source`; lies are about `version`, as in `Facts`.

    `first` are names under which the very first labels are reported, truly. With `hides` it is the wrong answers that
    are called right.
    """

    name: Callable[[int, str], str]
    version: int = 1
    first: tuple[str, ...] = ()
    hides: bool = False


ATTACKS: dict[str, Attack] = {
    # One name of its own.
    "one": Attack(lambda i, source: "crm"),
    # Four names, none of which reports much.
    "split": Attack(lambda i, source: f"crm-{i % 4}"),
    # Eight names first, so that everybody else shares a place.
    "seats": Attack(lambda i, source: "crm", first=THROWN_AWAY),
    # The names of honest sources.
    "alias": Attack(lambda i, source: source),
    # A new name for each label.
    "pool": Attack(lambda i, source: f"crm-{i}"),
    # The name of one honest source alone.
    "stolen": Attack(lambda i, source: SOURCES[0]),
    # One name that calls wrong answers right.
    "silent": Attack(lambda i, source: "crm", hides=True),
    # One name, about the holdback.
    "holdback": Attack(lambda i, source: "crm", version=0),
}


def calm(seed: int, lines: int = 16_000, rise: float = 0.0, both: bool = False) -> World:
    """Return a world in which v42 gets worse by `rise` in the middle; `both` is whether the holdback v41 does too."""
    return World(
        seed=seed,
        lines=lines,
        span_ms=8 * HOUR_MS,
        errors_v41=(0.1,) * 6,
        errors_v42=(0.1,) * 6,
        rise_v42=(rise,) * 6,
        rise_v41=(rise if both else 0.0,) * 6,
        switch_at=0.2,
        change_at=0.5,
        holdback=0.25,
        labels=Labels(median_ms=MINUTE_MS, sigma=0.5),
    )


def configuration(listed: bool, mode: str = "act") -> str:
    """Return `unship.yaml` for these worlds, with the honest sources listed or no list."""
    sources = f", sources: [{', '.join(SOURCES)}]" if listed else ""
    return f"models: {{fraud: {{labels: {{mature_after: 10m{sources}}}, policy: {{mode: {mode}}}}}}}"


def attacked(world: World, attack: str, share: float) -> Recording:
    """Return the world's recording with a share of its labels reported by the liar."""
    recording, how = generate(world), ATTACKS[attack]
    facts, rng = recording.facts, np.random.default_rng((world.seed, 7))
    place = {prediction_id(row): row for row in range(facts.ts.size)}
    mine = rng.random(facts.ts.size) < share
    lied = mine & (facts.ts >= world.change_ms) & (facts.version == how.version)
    lied &= (facts.output == facts.truth) != how.hides
    lines, number, seen = list(recording.lines), 0, 0
    for i in np.flatnonzero(recording.kinds == FEEDBACK).tolist():
        event = orjson.loads(lines[i])
        row, seen = place[event["id"]], seen + 1
        if seen <= FIRST_LABELS and how.first:
            event["source"] = how.first[seen % len(how.first)]
        elif mine[row]:
            event["source"] = how.name(number, event["source"])
            event["truth"] = 1 - event["truth"] if lied[row] else event["truth"]
            number += 1
        lines[i] = orjson.dumps(event)
    return replace(recording, lines=lines)


def outcome(recording: Recording, listed: bool) -> str:
    """Return what came of an attack: `rolled back`, the reason of the first page, or `nothing`."""
    run = Run(parse(configuration(listed)))
    run.take(recording.lines)
    run.rest()
    if any(decision.action == "rollback" for decision in run.decisions):
        return "rolled back"
    return next((decision.reason.value for decision in run.decisions if decision.action == "page"), "nothing")


def table(attacks: list[str], shares: list[float], seeds: int) -> Iterator[str]:
    """Yield rows of a table in Markdown: how often each attack succeeds at each share of the labels."""
    yield "| attack | list | " + " | ".join(f"{100 * share:.0f} %" for share in shares) + " |"
    yield "|---|---|" + "---|" * len(shares)
    for attack in attacks:
        for listed in (False, True):
            cells = []
            for share in shares:
                ends = [outcome(attacked(calm(seed), attack, share), listed) for seed in range(1, seeds + 1)]
                cells.append(", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends))))
            yield f"| {attack} | {'yes' if listed else 'no'} | " + " | ".join(cells) + " |"


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.worlds.liars", description=__doc__)
    parser.add_argument("attacks", nargs="*", metavar="ATTACK", help=f"of {', '.join(ATTACKS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    arguments = parser.parse_args()
    for row in table(
        arguments.attacks or ["one", "split", "seats", "pool", "alias"], arguments.shares, arguments.seeds
    ):
        print(row, flush=True)


if __name__ == "__main__":
    main()

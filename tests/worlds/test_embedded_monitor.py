"""An embedded monitor on worlds in which a version is rolled back: it decides as a replay does, whatever befalls it."""

import json
from pathlib import Path

import numpy as np
import pytest

from actions.journal import decision_bytes
from streams.config.parse import parse
from streams.config.resolved import Config
from streams.embedded.monitor import EmbeddedMonitor
from streams.ledger.entries import read_entry
from streams.ledger.lines import ledger_line
from streams.recordings.replay import Replay
from tests.sites import Site
from tests.worlds.generator import generate
from tests.worlds.scenarios import scenario


@pytest.fixture(scope="module")
def decay() -> tuple[list[bytes], Config]:
    world = scenario("decay", seed=1, lines=40_000)
    return list(generate(world.world).lines), parse(world.config)


@pytest.fixture(scope="module", params=["decay", "chargebacks", "slow"])
def world(request: pytest.FixtureRequest) -> tuple[list[bytes], Config]:
    """A world in which v42 is rolled back: by its labels, by bad news alone, by how long it takes."""
    made = scenario(request.param, seed=1, lines=40_000)
    return list(generate(made.world).lines), parse(made.config)


def brief(lines: list[bytes]) -> list[tuple[str, str, int, int]]:
    return [(d["reason"], d["action"], d["ts"], d["outcomes"]) for d in map(json.loads, lines)]


def oracle(
    lines: list[bytes], config: Config, tmp_path: Path
) -> tuple[list[tuple[str, str, int, int]], dict[str, int]]:
    (tmp_path / "r.ndjson").write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in lines))
    replay = Replay(config)
    with (tmp_path / "r.ndjson").open("rb") as stream:
        decided = [decision_bytes(decision) for decision in replay.decisions(stream)]
    return brief(decided), replay.folds[0].models["fraud"].state.outcomes


def test_live_decides_as_a_replay_does_with_restarts_at_random_rounds(
    world: tuple[list[bytes], Config], tmp_path: Path
) -> None:
    lines, config = world
    expected, counts = oracle(lines, config, tmp_path)
    assert "rollback" in [action for _, action, _, _ in expected]
    site, rng = Site(tmp_path / "log", lines, config), np.random.default_rng(3)
    live, restarts = site.monitor(), 0
    while site.sent < len(lines):
        site.send(int(rng.integers(1, 1_500)))
        if rng.random() < 0.8:
            live.step()
        if rng.random() < 0.15:
            live.save_snapshot()
        if rng.random() < 0.3:
            live, restarts = site.monitor(), restarts + 1
    live = site.monitor()
    live.step()
    assert restarts >= 5
    assert brief(site.journal()) == expected
    assert live.pipeline.fold.models["fraud"].state.outcomes == counts
    assert site.log.end("ledger") == live.pipeline.fold.offset


def test_ledger_alone_replays_to_the_journal_bit_for_bit(world: tuple[list[bytes], Config], tmp_path: Path) -> None:
    lines, config = world
    site = Site(tmp_path / "log", lines, config)
    live = site.monitor()
    while site.sent < len(lines):
        site.send(3_000)
        live.step()
    recording = tmp_path / "ledger.ndjson"
    recording.write_bytes(b"".join(ledger_line(read_entry(value).record) + b"\n" for value in site.ledger()))
    with recording.open("rb") as stream:
        assert [decision_bytes(d) for d in Replay(parse("")).decisions(stream)] == site.journal()


def played(site: Site, change_at: int, config: Config) -> EmbeddedMonitor:
    """Play all lines, with a restart under another configuration on the way."""
    live = site.monitor()
    while site.sent < len(site.lines):
        if site.config is not config and site.sent >= change_at:
            live.save_snapshot()
            site.config = config
            live = site.monitor()
        site.send(1_000)
        live.step()
    return live


def test_restart_in_mode_act_goes_on_from_what_was_observed_and_rolls_back_as_ever(
    decay: tuple[list[bytes], Config], tmp_path: Path
) -> None:
    lines, config = decay
    expected, counts = oracle(lines, config, tmp_path)
    watching = parse(scenario("decay", seed=1, lines=40_000).config.replace("mode: act", "mode: observe"))
    site = Site(tmp_path / "log", lines, watching)
    live = played(site, 10_000, config)
    assert brief(site.journal()) == expected
    assert live.pipeline.fold.models["fraud"].state.outcomes == counts
    # Whoever reads the ledger later takes both configurations from it.
    recording = tmp_path / "ledger.ndjson"
    recording.write_bytes(b"".join(ledger_line(read_entry(value).record) + b"\n" for value in site.ledger()))
    with recording.open("rb") as stream:
        assert [decision_bytes(d) for d in Replay(parse("")).decisions(stream)] == site.journal()


def test_restart_with_other_losses_judges_afresh_and_loses_no_outcome(
    decay: tuple[list[bytes], Config], tmp_path: Path
) -> None:
    lines, config = decay
    _, counts = oracle(lines, config, tmp_path)
    other = parse(scenario("decay", seed=1, lines=40_000).config.replace("[zero_one, brier]", "[brier]"))
    site = Site(tmp_path / "log", lines, config)
    live = played(site, 6_000, other)
    assert live.pipeline.fold.models["fraud"].state.outcomes == counts
    assert [loss.name for loss in live.pipeline.fold.models["fraud"].config.losses] == ["brier"]
    assert "rollback" in [action for _, action, _, _ in brief(site.journal())]

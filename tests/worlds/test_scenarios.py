"""The monitor against worlds whose right answer is known: `unship replay`, on recordings it did not make.

The recordings have 80,000 lines or the few more that their evidence needs; UNSHIP_WORLD_LINES=230000 asks for the full
size. A decision is compared with what the world calls for, never with an earlier output of the monitor. Where two
outputs are compared byte for byte, a shorter recording that leads to the same decisions does. The command runs in the
process of the tests, whose start it would spend most of its time on, and is compared with the program itself.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
import pytest

from console.cli import main
from tests.waiting import HANG_S
from tests.worlds.expectations import brief, violations
from tests.worlds.generator import Recording, generate
from tests.worlds.noise import Spoiled, spoil
from tests.worlds.scenarios import SCENARIOS, Scenario, scenario

UNSHIP = Path(sys.executable).parent / "unship"
LINES = int(os.environ.get("UNSHIP_WORLD_LINES", "80000"))
SHORT = 14_000
#: Without `outcomes`: bad lines move the others to other places, whose hashes are the order inside a cohort, so that
#: evidence may reach its threshold in a cohort next to the one before.
SETTLED = ("model", "version", "action", "to", "verdict", "reason", "slice")
SPOILED = ("decay", "mix_shift", "poison", "no_change")


@dataclass(frozen=True, slots=True)
class Files:
    """Hold a scenario with its files on disk."""

    scenario: Scenario
    recording: Recording
    config: Path
    source: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Files]:
    """Return a function that writes a scenario's files once and remembers them."""
    folder = tmp_path_factory.mktemp("worlds")

    @lru_cache(maxsize=2)
    def write(name: str, seed: int = 1, lines: int = LINES) -> Files:
        made = scenario(name, seed, lines)
        recording = generate(made.world)
        config, source = folder / f"{name}-{seed}-{lines}.yaml", folder / f"{name}-{seed}-{lines}.ndjson"
        config.write_text(made.config)
        source.write_bytes(recording.to_bytes())
        return Files(made, recording, config, source)

    return write


def call(config: Path, source: Path | str, options: tuple[str, ...] = ()) -> bytes:
    """Replay and return standard output; a finding is a good end, anything else is not."""
    out, errors = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with redirect_stdout(out), redirect_stderr(errors), pytest.raises(SystemExit) as ended:
        main(["-c", str(config), "replay", str(source), *options])
    assert ended.value.code in {0, 1}, errors.getvalue()[-2000:]
    out.flush()
    return out.buffer.getvalue()


def run(files: Files, *options: str, source: Path | str | None = None) -> bytes:
    """Replay a scenario's recording, or the given source, under its configuration."""
    return call(files.config, source or files.source, options)


def program(files: Files, source: Path | str | None = None, given: bytes | None = None) -> bytes:
    """Replay as a program."""
    command = [str(UNSHIP), "-c", str(files.config), "replay", str(source or files.source)]
    done = subprocess.run(command, input=given, capture_output=True, timeout=HANG_S)
    assert done.returncode in {0, 1}, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout


remembered = lru_cache(maxsize=4)(call)


def whole(files: Files) -> bytes:
    """Return the output of one plain run, which is made once."""
    return remembered(files.config, files.source)


def read(output: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("name", SCENARIOS)
def test_world_leads_to_the_decisions_it_calls_for(world: Callable[..., Files], name: str) -> None:
    files = world(name)
    decisions = read(whole(files))
    assert violations(files.scenario.expect, decisions) == [], [brief(decision) for decision in decisions]


@pytest.mark.parametrize("seed", [2])
@pytest.mark.parametrize("name", ["no_change", "decay", "slice_decay", "poison"])
def test_other_seeds_lead_to_the_same_answer(world: Callable[..., Files], name: str, seed: int) -> None:
    files = world(name, seed)
    decisions = read(whole(files))
    assert violations(files.scenario.expect, decisions) == [], [brief(decision) for decision in decisions]


@pytest.mark.parametrize("name", ["mix_shift", "label_outage"])
def test_replaying_twice_gives_the_same_bytes(world: Callable[..., Files], name: str) -> None:
    files = world(name)
    first = whole(files)
    assert first
    assert program(files) == first


@pytest.mark.parametrize("batch", [1, 100_000])
def test_batch_size_changes_no_byte(world: Callable[..., Files], batch: int) -> None:
    files = world("decay", lines=SHORT)
    assert run(files, "--batch", str(batch)) == whole(files)


def test_compressed_and_standard_input_change_no_byte(world: Callable[..., Files], tmp_path: Path) -> None:
    files = world("decay", lines=SHORT)
    plain, content = whole(files), files.source.read_bytes()
    packed = tmp_path / "recording.ndjson.gz"
    packed.write_bytes(gzip.compress(content, compresslevel=1))
    assert program(files, source=packed) == plain
    assert program(files, source="-", given=content) == plain


def stops(files: Files) -> list[int]:
    """Return line numbers worth stopping at: the ends, the deployments, the change, and some in between."""
    lines, times = len(files.recording.lines), files.recording.ts
    switch = int(times.searchsorted(files.scenario.world.switch_ms))
    change = int(times.searchsorted(files.scenario.world.change_ms))
    return [1, 2, switch + 1, switch + 2, change, lines // 3, lines // 2, lines * 5 // 7, lines - 1, lines]


@pytest.mark.parametrize("part", range(10))
def test_stop_and_resume_give_the_bytes_of_one_run(world: Callable[..., Files], tmp_path: Path, part: int) -> None:
    files, saved = world("decay", lines=SHORT), str(tmp_path / "saved")
    first = run(files, "--stop-after", str(stops(files)[part]), "--save", saved)
    assert first + run(files, "--from", saved) == whole(files)


def test_many_stops_give_the_bytes_of_one_run(world: Callable[..., Files], tmp_path: Path) -> None:
    files = world("mix_and_decay", lines=SHORT)
    output = b""
    resume: list[str] = []
    for number, line in enumerate(sorted(stops(files))):
        saved = str(tmp_path / f"saved-{number}")
        output += run(files, *resume, "--stop-after", str(line), "--save", saved)
        resume = ["--from", saved]
    assert output + run(files, *resume) == whole(files)


def noisy(files: Files, folder: Path) -> tuple[Spoiled, Path]:
    spoiled, path = spoil(files.recording, seed=7), folder / "noisy.ndjson"
    path.write_bytes(spoiled.to_bytes())
    return spoiled, path


@pytest.mark.parametrize("name", SPOILED)
def test_bad_lines_change_no_decision(world: Callable[..., Files], tmp_path: Path, name: str) -> None:
    files = world(name)
    _, source = noisy(files, tmp_path)
    clean, spoiled = (
        [{key: decision[key] for key in SETTLED} for decision in read(output)]
        for output in (whole(files), run(files, source=source))
    )
    assert spoiled == clean


def test_bad_lines_change_no_byte_across_batches_and_stops(world: Callable[..., Files], tmp_path: Path) -> None:
    files, saved = world("decay", lines=SHORT), str(tmp_path / "saved")
    spoiled, source = noisy(files, tmp_path)
    once = run(files, source=source)
    assert run(files, "--batch", "13", source=source) == once
    first = run(files, "--stop-after", str(len(spoiled.lines) // 2), "--save", saved, source=source)
    assert first + run(files, "--from", saved, source=source) == once

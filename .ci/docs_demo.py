"""Write the parts of the documentation that show a real run.

The README shows the output of one real run of `unship demo`. It runs as several processes, so another run differs in
some of its numbers; its sentences must not differ, and only if they changed is the page stale. The numbers of the
worked example are the same at every run: they come from a recording of the same story, made without processes.

Ids and digests are shortened, because they would only be noise on a page; `unship audit` compares them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from string import Template
from typing import Any

from console.census import config_yaml, make_recording

UNSHIP = Path(sys.executable).parent / "unship"
Line = dict[str, Any]
COHORT_MS, MATURITY_MS = 180_000, 3_600_000

STEPS = """
**A prediction.** At $asked a replica answers request `$id`:
$prediction
$version answers $output, with a probability of $score for 1. The line is decoded, and the join keeps it.

**Its feedback.** $delay minutes later the source `$source` reports the truth:
$feedback

**The outcome.** The two belong together. Loss `zero_one` is 1, because $output is not $truth; loss `brier` is
($score−$truth)² = $brier. The outcome waits in the cohort of all predictions from $begin to $end. That cohort
closes an hour after its end, at $close: by then every one of its labels has had the same hour to come.

**The baseline.** $version was deployed with a $basis: its offline error. Healthy outcomes have joined it since, so that
by now it is $usual, from $usual_n outcomes.

**The alarm.** When a cohort closes at $alarm, the evidence on `$loss` over $where has reached $evidence; the
threshold of that row is $threshold (the promise of 1,000,000, divided by the row's share of a quarter). The
change is dated to $change. Since then $now of $now_n judged answers were wrong.

**Would going back help?** $target answered $concurrent_n requests as $role in the same time, and $concurrent of them
were wrong. That looks better, but it is few: the comparison's evidence is $compared of $promise. So the first
decision is `$first`, with reason `$first_reason`.

**The proof.** $wait minutes later, at $decided, the comparison has $proof_target_n answers of $target
($proof_target wrong) and $proof_n of $version ($proof wrong). Its evidence is $proved: confirmed.

**The quorum.** No single label source carries the rise alone: it is $rises.

**The decision.** No guard objects. `$action` to $to, verdict `$verdict`, reason `$reason`, after $outcomes
judged answers of $version. From now on $to serves and $version is in quarantine.
"""


RUNS = {"demo-output", "explain-output", "audit-output"}
"""The parts whose numbers differ from run to run."""


def demo_parts() -> dict[str, Callable[[], str]]:
    """Run the demo and return its parts, ready to be put into pages."""
    with tempfile.TemporaryDirectory(prefix="unship-docs-") as name:
        folder = Path(name)
        recording = folder / "demo.ndjson"
        shown = output_of("demo", "--record", str(recording), folder=folder)
        page = output_of("explain", "last", "--in", str(recording), folder=folder)
        altered = folder / "altered.ndjson"
        altered.write_bytes(recording.read_bytes().replace(b'"losses":[[1.0', b'"losses":[[0.0', 1))
        found = output_of("audit", str(altered), folder=folder, code=1)
        example = worked_example(story(folder))
    parts = {
        "demo-output": fenced(shown.replace(str(recording), "recordings/demo.ndjson")),
        "explain-output": fenced(page),
        "audit-output": fenced(found),
        "worked-example": example,
    }
    return {name: (lambda text=text: text) for name, text in parts.items()}  # type: ignore[misc]


def story(folder: Path) -> Path:
    """Return the complete recording of the demo's story without its processes: the same bytes at every run."""
    events, recording = folder / "events.ndjson", folder / "story.ndjson"
    make_recording("decay", 1, events)
    (folder / "unship.yaml").write_text(config_yaml("decay"), encoding="utf-8")
    output_of("replay", str(events), "--record", str(recording), folder=folder)
    return recording


def same_story(one: str, other: str) -> bool:
    """Return whether two outputs are equal but for their numbers.

    >>> same_story("wrong:  28 in 100", "wrong: 27 in 100"), same_story("28 wrong", "28 right")
    (True, False)
    """
    return skeleton(one) == skeleton(other)


def skeleton(text: str) -> set[str]:
    """Return the lines of an output without what depends on the run: numbers, widths, and which slices come first."""
    found = set()
    for line in text.splitlines():
        words = re.sub(r"evidence\.[\w.\[\]]+", "FIELD", line)
        words = re.sub(r"\b(?:RELP|SEX|RAC1P)=\d+", "SLICE", words)
        words = re.sub(r"\b[0-9a-f]{8}…|[\d.,:-]*\d(?:e[+-]?\d+)?", "#", words)
        found.add(re.sub(r"[\s━─]+", " ", words).strip())
    return found


def output_of(*arguments: str, folder: Path, code: int = 0) -> str:
    """Run a command away from the repository and return what it prints on standard output."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    done = subprocess.run(
        [UNSHIP, "-q", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != code:
        sys.exit(f"unship {' '.join(arguments)}: exit {done.returncode}, expected {code}\n{done.stdout}{done.stderr}")
    return done.stdout


def fenced(text: str) -> str:
    """Return output as a block, with ids and digests shortened.

    >>> fenced("d-12-0-44e680  x  ")
    '```text\\nd-12-0-…  x\\n```'
    """
    short = re.sub(r"\b(d-\d+-\d+)-[0-9a-f]{6}\b", r"\1-…", re.sub(r"\b([0-9a-f]{8})[0-9a-f]{8,56}\b", r"\1…", text))
    return "\n".join(["```text", *(line.rstrip() for line in short.strip("\n").splitlines()), "```"])


def clock(ts: int) -> str:
    """Return a time of the demo's day.

    >>> clock(1_767_571_200_000)
    '00:00:00'
    """
    return datetime.fromtimestamp(ts / 1000, UTC).strftime("%H:%M:%S")


def worked_example(recording: Path) -> str:
    """Return the story of the demo's recording, as numbered steps with its own numbers."""
    with recording.open(encoding="utf-8") as lines:
        entries: list[Line] = [json.loads(line) for line in lines if '"type":"ledger"' not in line]
    decisions = [entry for entry in entries if entry["type"] == "decision"]
    first, last = [decision for decision in decisions if decision["verdict"] == "DEGRADED"]
    prediction, feedback = wrong_answer(entries, first)
    words = {**words_of_outcome(prediction, feedback), **words_of_alarm(first), **words_of_rollback(first, last)}
    steps = []
    for number, step in enumerate(Template(STEPS).substitute(words).strip().split("\n\n"), start=1):
        # A line of JSON gets a block of its own; the text around it is filled.
        parts = [part.strip() for part in re.split(r"^(\{.*\})$", step, flags=re.MULTILINE)]
        shown = [f"```json\n{part}\n```" if part[:1] == "{" else textwrap.fill(part, 110) for part in parts if part]
        steps.append(textwrap.indent("\n\n".join(shown), "   ").replace("  ", f"{number}.", 1))
    return "\n".join(steps)


def wrong_answer(entries: list[Line], decision: Line) -> tuple[Line, Line]:
    """Return the first wrong answer after the change and its truth: its losses are easy to check by hand."""
    truths = {entry["id"]: entry for entry in entries if entry["type"] == "feedback"}
    for entry in entries:
        if entry["type"] != "prediction" or entry["version"] != decision["version"]:
            continue
        truth = truths.get(entry["id"])
        if entry["ts"] >= decision["evidence"]["alarm"]["change_ts"] and truth and truth["truth"] != entry["output"]:
            return entry, truth
    sys.exit("the demo has no wrong answer after the change")


def words_of_outcome(prediction: Line, feedback: Line) -> dict[str, str]:
    """Return the words of the steps up to the outcome."""
    begin = prediction["ts"] - prediction["ts"] % COHORT_MS
    return {
        "asked": clock(prediction["ts"]),
        "id": prediction["id"],
        "version": prediction["version"],
        "output": str(prediction["output"]),
        "score": str(prediction["score"]),
        "prediction": json.dumps(prediction, separators=(",", ":")),
        "feedback": json.dumps(feedback, separators=(",", ":")),
        "delay": f"{(feedback['ts'] - prediction['ts']) / 60_000:.1f}",
        "source": feedback["source"],
        "truth": str(feedback["truth"]),
        "brier": f"{(prediction['score'] - feedback['truth']) ** 2:.4f}",
        "begin": clock(begin),
        "end": clock(begin + COHORT_MS),
        "close": clock(begin + COHORT_MS + MATURITY_MS),
    }


def words_of_alarm(first: Line) -> dict[str, str]:
    """Return the words of the steps up to the first decision."""
    alarm, comparison = first["evidence"]["alarm"], first["evidence"]["comparison"]
    concurrent = comparison["target_since_change"]
    return {
        "basis": alarm["basis"],
        "usual": f"{alarm['baseline']['mean']:.4f}",
        "usual_n": f"{alarm['baseline']['n']:,.0f}",
        "alarm": clock(alarm["ts"]),
        "loss": alarm["loss"],
        "where": "all requests" if alarm["slice"] is None else "one slice",
        "evidence": f"{alarm['evidence']:,.0f}",
        "threshold": f"{alarm['threshold']:,.0f}",
        "change": clock(alarm["change_ts"]),
        "now": f"{alarm['since_change']['mean']:.4f}",
        "now_n": f"{alarm['since_change']['n']:.0f}",
        "target": comparison["target"],
        "role": comparison["role"],
        "concurrent": f"{concurrent['mean']:.4f}",
        "concurrent_n": f"{concurrent['n']:.0f}",
        "compared": f"{comparison['evidence']:,.0f}",
        "promise": f"{comparison['threshold']:,.0f}",
        "first": first["action"],
        "first_reason": first["reason"],
    }


def words_of_rollback(first: Line, last: Line) -> dict[str, str]:
    """Return the words of the steps up to the last decision."""
    comparison, sources = last["evidence"]["comparison"], last["evidence"]["sources"]
    target, candidate = comparison["target_since_change"], comparison["candidate"]
    return {
        "wait": f"{(last['ts'] - first['ts']) / 60_000:.0f}",
        "decided": clock(last["ts"]),
        "proof_target": f"{target['mean']:.4f}",
        "proof_target_n": f"{target['n']:.0f}",
        "proof": f"{candidate['mean']:.4f}",
        "proof_n": f"{candidate['n']:,.0f}",
        "proved": f"{comparison['evidence']:,.0f}",
        "rises": ", ".join(f"{entry['without']['rise']:.3f} without `{name}`" for name, entry in sources.items()),
        "action": last["action"],
        "to": last["to"],
        "verdict": last["verdict"],
        "reason": last["reason"],
        "outcomes": f"{last['outcomes']:,}",
    }

"""The documentation says what is true: generated parts are fresh, links lead somewhere, commands and names exist."""

import contextlib
import importlib
import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import get_args

import click
import pytest
from click.testing import CliRunner

from actions.policy import GUARDS
from actions.reasons import Reason, Verdict
from console.census import config_yaml, make_recording
from console.cli import main as command_line
from console.web.verdict import NOT_KNOWN
from streams.config.parse import parse
from streams.recordings.lines import unpacked
from unship.codec import decode_line
from unship.emitter import BAD_ARGUMENT, CLOSED, NOT_SENT, QUEUE_FULL
from unship.events import RefusalCode
from unship.log.kafka.access import VARIABLES, Mechanism, Protocol, Security
from unship.log.kafka.settings import PREFIX_VARIABLE
from unship.log.kafka.writer import REFUSALS
from unship.log.packed import decode_values
from unship.rejections import RejectCode, Rejection
from unship.replica.follower import ControlHealth
from unship.replica.forked import NOT_FOLLOWING
from unship.replica.holdback import HoldbackState
from unship.replica.loading import LOADS_HANG
from unship.schema import event_schemas
from unship.topics import TopicNames

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "sdk/README.md")),
    ]
)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
names = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def text_of(page):
    return page.read_text(encoding="utf-8")


def blocks(page, *languages):
    return [body for language, body in BLOCK.findall(text_of(page)) if language in languages]


def prose(page):
    return BLOCK.sub("", text_of(page))


def anchors(page):
    """Return the anchors of a page's headings, made as GitHub and GitLab make them."""
    heads = re.findall(r"^#+ +(.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", head).lower()).replace(" ", "-") for head in heads}


def shell_commands(page):
    """Return every command of a page's shell blocks, split into words."""
    for body in blocks(page, "sh"):
        for line in body.splitlines():
            for part in re.split(r"\|\||&&|\||;", re.sub(r"\\\"|'[^']*'", "x", line)):
                words = shlex.split(part.split(">")[0], comments=True)
                if words:
                    yield words


def test_reference_tables_are_as_the_code_says(script):
    docs = script("docs")
    stale = [page.name for page in PAGES if docs.refreshed(text_of(page), docs.PARTS) != text_of(page)]
    assert stale == [], "run .venv/bin/python .ci/docs.py"


def test_every_generated_part_stands_on_exactly_one_page(script):
    docs = script("docs")
    found = [name for page in PAGES for _, name, _, _ in docs.PART.findall(text_of(page))]
    demo = {"demo-output", "explain-output", "audit-output", "worked-example"}
    assert sorted(found) == sorted({*docs.PARTS, *demo})


def test_changed_table_is_called_stale(script, tmp_path, monkeypatch, capsys):
    docs = script("docs")
    page = tmp_path / "README.md"
    monkeypatch.setattr(docs, "ROOT", tmp_path)
    page.write_text("<!-- generated: reasons -->\nold\n<!-- end of reasons -->\n", encoding="utf-8")
    assert docs.main(["--check", "--without-demo"]) == 1
    assert "README.md: stale" in capsys.readouterr().out
    assert docs.main(["--without-demo"]) == 0
    assert "TARGET_BETTER" in text_of(page)
    assert docs.main(["--check", "--without-demo"]) == 0


def module_or_attribute_exists(name):
    """Whether a dotted name is a module, or something inside one."""
    module, _, attribute = name.rpartition(".")
    with contextlib.suppress(ModuleNotFoundError):
        if importlib.util.find_spec(name) is not None:
            return True
    with contextlib.suppress(ModuleNotFoundError):
        return hasattr(importlib.import_module(module), attribute)
    return False


@names
def test_links_lead_to_files_and_headings_that_exist(page):
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (page.parent / target).resolve() if target else page
        assert file.is_file(), link
        assert ROOT in file.parents, link
        if anchor:
            assert anchor in anchors(file), link


@names
def test_every_page_is_reached_from_the_readme(page):
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        at = waiting.pop()
        if at not in reached:
            reached.add(at)
            links = [link.partition("#")[0] for link in LINK.findall(prose(at))]
            waiting += [(at.parent / link).resolve() for link in links if link.endswith(".md") and "://" not in link]
    assert page in reached or page.name in ("CHANGELOG.md", "README.md")


@names
def test_commands_in_shell_blocks_exist_with_their_options(page):
    for words in shell_commands(page):
        if Path(words[0]).name != "unship":
            continue
        group = {option for param in command_line.params for option in param.opts}
        rest = words[1:]
        while rest and rest[0].startswith("-"):
            assert rest[0] in group, words
            rest = rest[2:] if rest[0] in ("-c", "--config", "-l", "--log") else rest[1:]
        command = command_line.commands[rest[0]]
        if isinstance(command, click.Group):
            rest = rest[1:]
            command = command.commands[rest[0]]
        known = {"-h", "--help", *(option for param in command.params for option in param.opts)}
        assert {word for word in rest[1:] if re.match(r"--?[a-z]", word)} <= known, words


@names
def test_make_targets_in_shell_blocks_exist(page):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in shell_commands(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= targets, words


@names
def test_files_and_modules_named_in_the_text_exist(page):
    folders = r"\.ci|streams|detectors|actions|console|tests|benchmarks|examples|docs"
    for name in re.findall(rf"`((?:{folders})/[^`\s]*)`", prose(page)):
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not test or re.search(rf"^(?:async )?def {test}\(", text_of(ROOT / path), re.MULTILINE), name
    if page.name == "decisions.md":
        return  # paths inside a decision look like modules
    for name in re.findall(r"`((?:streams|detectors|actions|console|unship)\.[a-z_.]+)`", prose(page)):
        if name != "unship.yaml" and TopicNames().plain(name) is None:
            assert module_or_attribute_exists(name), name


OF_THE_LIBRARY = {
    *get_args(ControlHealth),
    *get_args(HoldbackState),
    *("LATER", "STATIC", "SPLIT"),
    "UNSEEN_OUTCOMES",
    *(QUEUE_FULL, CLOSED, BAD_ARGUMENT, NOT_SENT, LOADS_HANG, NOT_FOLLOWING, *REFUSALS.values()),
    *(
        "UNSHIP_LOG",
        "UNSHIP_TRUST",
        PREFIX_VARIABLE,
        *(VARIABLES + each.upper() for each in Security.__struct_fields__),
    ),
    *get_args(Protocol),
    *get_args(Mechanism),
}


def test_matrix_of_faults_numbers_its_rows_and_names_a_test_in_each():
    page = text_of(ROOT / "docs/reference/faults.md")
    rows = re.findall(r"^\| (\d+) \|(.*)$", page, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert all(re.search(r"`tests/[a-z_/]+\.py(::test_[a-z0-9_]+)?`", row) for _, row in rows)


@names
def test_codes_and_reasons_named_in_the_text_exist(page):
    known = {
        *Reason,
        *RejectCode,
        *Verdict,
        *get_args(RefusalCode),
        *OF_THE_LIBRARY,
        *NOT_KNOWN,
        "UNSEEN_OUTCOMES",
        "CI",
    }
    assert set(re.findall(r"`([A-Z]{2,}(?:_[A-Z]+)*)`", prose(page))) <= known


@names
def test_page_has_one_title_no_badge_and_no_picture_from_elsewhere(page):
    text = prose(page)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    assert not re.findall(r"!\[[^\]]*\]\((?:https?:)?//", text)
    assert not re.findall(r"[\U0001F300-\U0001FAFF\u2600-\u27BF]", text)


@names
def test_words_that_do_not_belong_are_not_there(page, script):
    assert list(script("words").complaints(page)) == []


def test_readme_begins_with_one_sentence_one_picture_and_two_commands(script):
    lines = [line for line in text_of(ROOT / "README.md").splitlines() if line]
    assert lines[0].startswith("# unship ")
    assert re.match(r"!\[.+\]\(docs/pictures/.+\.svg\)$", lines[1])
    shown = [line for line in lines[2:10] if not line.startswith(("```", "<!--"))]
    assert shown[:2] == ["make demo", "make test"]
    assert script("readme").blocks(text_of(ROOT / "README.md"))[0] == "make demo\n"


def test_picture_needs_no_font_and_no_file_from_elsewhere():
    text = (ROOT / "docs/pictures/loop.svg").read_text(encoding="utf-8")
    assert not re.search(r"<image|@import|@font-face|url\((?!#)|href=", text)
    assert "<title" in text
    assert "<desc" in text


def test_example_configuration_is_accepted():
    (example,) = blocks(ROOT / "docs/reference/configuration.md", "yaml")
    fraud = parse(example).of("fraud")
    assert [loss.name for loss in fraud.losses] == ["zero_one", "brier", "log"]
    assert fraud.mature_after_ms == 3_600_000


def decoded(line):
    return decode_values("prediction", line) if line.startswith(b"[") else [decode_line(line)]


def test_example_events_are_accepted():
    examples = blocks(ROOT / "docs/reference/events.md", "json")
    lines = [line.encode() for example in examples for line in example.splitlines()]
    events = [event for line in lines for event in unpacked(line) or decoded(line)]
    assert len(events) == 4 + 2 + 2
    assert not [event for event in events if isinstance(event, Rejection)]


def test_operators_acts_are_all_described():
    acts = set(event_schemas()["$defs"]["OperatorAct"]["properties"]["act"]["enum"])
    text = text_of(ROOT / "docs/reference/events.md").partition("### Operators' acts")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z]+)` \|", text, re.MULTILINE)) == acts


def documented(section):
    text = text_of(ROOT / "docs/reference/decisions.md").partition(f"## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def paths(value, path=""):
    """Yield the path of every number and word inside a decision's evidence."""
    if isinstance(value, dict) and path not in ("alarm.slice", "slices[].slice"):
        for key, entry in value.items():
            yield from paths(entry, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for entry in value:
            yield from paths(entry, f"{path}[]")
    else:
        yield path


def test_every_field_of_a_decision_is_described(tmp_path):
    events, configuration = tmp_path / "events.ndjson", tmp_path / "unship.yaml"
    make_recording("decay", 1, events)
    configuration.write_text(config_yaml("decay"), encoding="utf-8")
    result = CliRunner().invoke(command_line, ["-q", "-c", str(configuration), "replay", str(events)])
    assert result.exit_code == 0
    decisions = [json.loads(line) for line in result.output.splitlines()]
    assert [each["action"] for each in decisions].count("rollback") == 1
    assert list(decisions[0]) == documented("Fields")
    known = [re.escape(path).replace(r"\*", r"[\w ]+") for path in documented("Evidence")]
    found = {path for decision in decisions for path in paths(decision["evidence"])}
    assert [path for path in found if not any(re.fullmatch(pattern, path) for pattern in known)] == []
    described = zip(documented("Evidence"), known, strict=True)
    silent = [path for path, pattern in described if not any(re.fullmatch(pattern, name) for name in found)]
    only_sometimes = (
        "mix.", "comparison.record.", "comparison.units.", "unfit.", "fleet.", "operator.", "missing", "serving",
        "deployed", "together", "sources.*.listed", "sources.*.target", "classes.", "lost.", "implied",
        "holdback.",
    )  # fmt: skip
    silent = [path for path in silent if "ignored_reference" not in path and path != "sources"]
    assert [path for path in silent if not path.startswith(only_sometimes)] == []


def test_glossary_has_each_word_once_and_in_order():
    words = re.findall(r"^\| (?!word |---)([^|]+?) \|", text_of(ROOT / "docs/glossary.md"), re.MULTILINE)
    assert words == sorted(set(words), key=str.lower)
    entries = {word.lower() for word in words} | {f"{word}s" for word in words}
    text = prose(ROOT / "docs/glossary.md")
    used = {word.lower().removesuffix("'s") for word in re.findall(r"\*([^*\n]+)\*", text)} - {"italics"}
    assert {word for word in used if word not in entries and word.removesuffix("es") not in entries} == set()


def test_each_guard_has_a_sentence():
    assert [guard.__name__ for guard in GUARDS if not guard.__doc__] == []

"""Write the parts of the documentation that the code knows better: tables of the vocabulary, options and fields.

A generated part is enclosed by `<!-- generated: NAME -->` and `<!-- end of NAME -->`; the text around it is written by
people. Run it after a change of a reason, a key, a field, an option or a number of the demo; with `--check` it only
names the files that are stale, and returns 1. `--without-demo` leaves out the parts that take a run of the demo.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
import msgspec

from actions.policy import GUARDS
from actions.reasons import Action, Reason
from console.cli import main as command_line
from docs_decisions import decision_rows, evidence_rows
from docs_demo import RUNS, demo_parts, same_story
from docs_words import EVENT_FIELDS, KEYS
from streams.config.sections import ConfigFile, ModelSection
from streams.fold.deciding import WRITTEN_ONCE_PER_PERIOD
from streams.topics.rights import GROUPS, ROLES, SINKS_PREFIX, TRANSACTION_PREFIX
from tree import ROOT
from unship.budgets.table import BUDGETS
from unship.rejections import DECODING_CODES, RejectCode
from unship.schema import event_schemas
from unship.topics import TOPICS

PART = re.compile(r"(<!-- generated: (\S+) -->\n)(.*?)(<!-- end of \2 -->)", re.DOTALL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table.

    >>> print(table(["a", "b"], [["1", "x|y"]]))
    | a | b |
    |---|---|
    | 1 | x\\|y |
    """
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(("|" + "|".join(line) + "|") if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def code(value: Any) -> str:
    """Return a value as inline code, as it is written in JSON or YAML."""
    text = value if isinstance(value, str) and value else msgspec.json.encode(value).decode()
    return f"`{text}`"


def reasons() -> str:
    """Return the table of reasons, in the order of the vocabulary."""
    follows = {
        Action.ROLLBACK: "`rollback`, `propose` or `observe`, by the mode",
        Action.PAGE: "`page`",
        Action.NONE: "`none`",
    }
    capped = "`propose` or `observe`; `rollback` only with `policy.without_control: act`, `page` with `page`"
    by_order = {
        Reason.FEW_UNITS: "`propose` or `observe`",
        Reason.RECORD_BETTER: capped,
        Reason.APPROVED: "`rollback`",
        Reason.OPERATOR_ROLLBACK: "`rollback`",
    }
    rows = [
        [code(reason.value), code(reason.verdict.value), by_order.get(reason, follows[reason.action]), reason.meaning]
        for reason in Reason
    ]
    return table(["reason", "verdict", "action", "meaning"], rows)


def guards() -> str:
    """Return the policy's guards in the order in which they are asked."""
    rows = []
    for number, guard in enumerate(GUARDS, start=1):
        given = dict.fromkeys(re.findall(r"Reason\.([A-Z_]+)", inspect.getsource(guard)))
        rows.append([str(number), code(guard.__name__), inspect.getdoc(guard) or "", ", ".join(map(code, given))])
    return table(["", "guard", "it decides when", "reason it gives"], rows)


def decision() -> str:
    """Return the fields of a decision."""
    return table(["field", "meaning"], ([code(name), meaning] for name, meaning in decision_rows()))


def evidence() -> str:
    """Return everything that the evidence of a decision can hold."""
    rows = ([code(path), kind, meaning] for path, kind, meaning in evidence_rows())
    return table(["path", "type", "meaning"], rows)


def rejections() -> str:
    """Return the table of reject codes."""
    rows = [
        [code(entry.value), "the decoder" if entry in DECODING_CODES else "the join or the fold", entry.meaning]
        for entry in RejectCode
    ]
    return table(["code", "given by", "meaning"], rows)


def written_once() -> str:
    """Return the reasons that are written once in a live period."""
    return ", ".join(code(reason.value) for reason in WRITTEN_ONCE_PER_PERIOD) + "."


def budgets() -> str:
    """Return the table of budgets."""
    rows = []
    for each in BUDGETS:
        beyond = code(each.beyond) if each.beyond in RejectCode.__members__ else each.beyond
        size = "-" if each.bytes is None else f"{each.bytes:,}"
        key = "-" if each.key is None else code(f"limits.{each.key}")
        rows.append([each.what, f"{each.limit:,} {each.unit}", size, key, beyond, each.back, each.why])
    head = ["what", "limit", "in bytes", "set by", "beyond it", "places are free again", "arithmetic"]
    return table(head, rows)


def keys() -> str:
    """Return every key of the configuration with its default and meaning."""
    rows = []
    for path, default in _keys(msgspec.to_builtins(ConfigFile()), ""):
        rows.append([code(path), code(default), KEYS[path]])
    assert len(rows) == len(KEYS), sorted(KEYS.keys() - {row[0].strip("`") for row in rows})
    return table(["key", "default", "meaning"], rows)


def _keys(section: dict[str, Any], path: str) -> Iterable[tuple[str, Any]]:
    for name, value in section.items():
        full = f"{path}.{name}".lstrip(".")
        if full == "models":
            yield "models", value
            yield from _keys(msgspec.to_builtins(ModelSection()), "models.NAME")
        elif isinstance(value, dict) and full != "defaults":
            yield from _keys(value, full)
        else:
            yield full, ({} if full == "defaults" else value)


def roles() -> str:
    """Return what each role may do with the topics of a broker."""
    rows = []
    for name, role in ROLES.items():
        reads = "all" if role.reads == TOPICS else ", ".join(map(code, role.reads)) or "-"
        others = []
        if role.groups:
            sinks = f"and on those that begin with {code(SINKS_PREFIX)}"
            others.append(f"READ on the groups {', '.join(map(code, GROUPS))}, {sinks}")
        if role.fences:
            others.append(f"WRITE on transactional ids that begin with {code(TRANSACTION_PREFIX)}")
        if role.makes:
            others.append("CREATE, ALTER, ALTER_CONFIGS on all topics")
        if role.looks:
            others.append("DESCRIBE_CONFIGS on all topics")
        writes = ", ".join(map(code, role.writes)) or "-"
        rows.append([code(name), role.meaning, reads, writes, "; ".join(others) or "-"])
    return table(["role", "who", "READ", "WRITE", "besides"], rows)


def event_fields(name: str) -> Callable[[], str]:
    """Return a function that gives the table of an event's fields."""

    def fields() -> str:
        schema = event_schemas()["$defs"][name]
        meanings = {**EVENT_FIELDS[""], **EVENT_FIELDS[name]}
        rows = []
        for field, spec in schema["properties"].items():
            default = "required" if field in schema["required"] else code(spec["default"])
            rows.append([code(field), kind_of(spec), default, meanings[field]])
        return table(["field", "type", "default", "meaning"], rows)

    return fields


def kind_of(spec: dict[str, Any]) -> str:
    """Return a JSON Schema in words.

    >>> kind_of({"type": "string", "minLength": 1, "maxLength": 128})
    'text, 1 to 128 characters'
    """
    if "anyOf" in spec:
        return " or ".join(kind_of(part) for part in spec["anyOf"] if part.get("type") != "null")
    if "enum" in spec:
        return ", ".join(map(code, spec["enum"]))
    if "$ref" in spec:
        return "`{mean, n}`"
    if spec["type"] == "array":
        if "prefixItems" in spec:
            return f"list of {len(spec['prefixItems'])}"
        return f"list of at most {spec['maxItems']:,} of these"
    if spec["type"] == "object":
        inner = spec.get("additionalProperties")
        return f"object of at most {spec['maxProperties']:,}" + (f" {kind_of(inner)}" if inner else " entries")
    return _plain(spec)


def _plain(spec: dict[str, Any]) -> str:
    if spec["type"] == "string" and spec.get("description"):
        return str(spec["description"])
    if spec["type"] == "string" and spec.get("pattern"):
        return f"text like `{spec['pattern']}`"
    if spec["type"] == "string":
        return f"text, {'1' if spec.get('minLength') else '0'} to {spec['maxLength']:,} characters"
    if spec["type"] == "integer" and spec.get("description"):
        return "milliseconds"
    name = {"integer": "integer", "number": "number", "boolean": "true or false"}[spec["type"]]
    low, high = spec.get("minimum"), spec.get("maximum")
    if low is None or abs(low) >= 2**53:
        return name
    return f"{name}, {low:g} or more" if high is None or high >= 2**53 else f"{name}, {low:g} to {high:,.0f}"


def commands() -> str:
    """Return every command with its arguments and options."""
    parts = [_command("unship", command_line)]
    for name, command in sorted(command_line.commands.items()):
        parts.append(_command(f"unship {name}", command))
        if isinstance(command, click.Group):
            parts += [_command(f"unship {name} {inner}", each) for inner, each in sorted(command.commands.items())]
    return "\n\n".join(parts)


def _command(name: str, command: click.Command) -> str:
    options = [entry for entry in command.params if isinstance(entry, click.Option) and not entry.hidden]
    arguments = [
        entry.make_metavar(click.Context(command)) for entry in command.params if isinstance(entry, click.Argument)
    ]
    usage = " ".join([name, "[OPTIONS]", *arguments, *(["COMMAND"] if isinstance(command, click.Group) else [])])
    rows = []
    for option in options:
        takes = "" if option.is_flag else option.make_metavar(click.Context(command))
        default = (
            f" Default: {code(option.default)}." if isinstance(option.default, int | float | str) and takes else ""
        )
        rows.append([code(f"{', '.join(option.opts)} {takes}".strip()), (option.help or "") + default])
    text = inspect.cleandoc(command.help or "")
    head = f"## {name}\n\n```text\n{usage}\n```\n\n{text}"
    return f"{head}\n\n{table(['option', 'meaning'], rows)}" if rows else head


PARTS: dict[str, Callable[[], str]] = {
    "reasons": reasons,
    "guards": guards,
    "written-once": written_once,
    "decision": decision,
    "evidence": evidence,
    "rejections": rejections,
    "budgets": budgets,
    "keys": keys,
    "roles": roles,
    "commands": commands,
    **{f"fields-of-{name}": event_fields(name) for name in EVENT_FIELDS if name},
}


def refreshed(text: str, parts: dict[str, Callable[[], str]]) -> str:
    """Return a page with the named parts made again; other parts stay as they are.

    The parts that show a run stay as well if another run would only have other numbers; all show the same run.

    >>> refreshed("<!-- generated: a -->\\nold\\n<!-- end of a -->", {"a": lambda: "new"})
    '<!-- generated: a -->\\n\\nnew\\n\\n<!-- end of a -->'
    """
    shown = [(name, body) for _, name, body, _ in PART.findall(text) if name in RUNS and name in parts]
    kept = RUNS if all(same_story(parts[name](), body.strip("\n")) for name, body in shown) else set()

    def part(match: re.Match[str]) -> str:
        if match[2] not in parts or match[2] in kept:
            return match[0]
        return f"{match[1]}\n{parts[match[2]]()}\n\n{match[4]}"

    return PART.sub(part, text)


def main(arguments: Sequence[str]) -> int:
    """Write the generated parts, or with `--check` return 1 if one is stale."""
    parts = PARTS if "--without-demo" in arguments else {**PARTS, **demo_parts()}
    stale = []
    for path in sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]):
        text = path.read_text(encoding="utf-8")
        fresh = refreshed(text, parts)
        if fresh != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in arguments:
                path.write_text(fresh, encoding="utf-8")
    if "--check" in arguments:
        print("\n".join(f"{name}: stale; run .venv/bin/python .ci/docs.py" for name in stale) or "all parts are fresh")
        return 1 if stale else 0
    print("\n".join(f"{name}: written" for name in stale) or "all parts were fresh")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

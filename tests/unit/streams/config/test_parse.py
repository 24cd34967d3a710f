"""The configuration: what is absent has a default, what is wrong is refused with its place and what is expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

import detectors
from streams.config import file as config_file
from streams.config.file import load
from streams.config.parse import DETECTORS_OF_ERRORS, DETECTORS_READY, parse
from streams.config.resolved import Config, ModelConfig
from streams.fold.fold import Fold
from streams.ledger.encoding import pack
from streams.ledger.entries import entry_of
from streams.losses.columns import LossSpec
from streams.pipeline import configuration_record
from unship.errors import ConfigurationError

DEFAULTS = ModelConfig(
    kind="binary",
    losses=[LossSpec("zero_one")],
    horizon_ms=7 * 86_400_000,
    mature_after_ms=0,
    early_ms=600_000,
    slices_by=[],
    slices_cap=50,
    worse_by=0.02,
    promise=1_000_000.0,
    promise_in_time=False,
    detectors=["e_detector", "adwin", "page_hinkley"],
    mode="observe",
    cooldown_ms=1_800_000,
    switches_max=2,
    switches_span_ms=86_400_000,
    without_control="propose",
    confirm_within_ms=86_400_000,
    proposal_ttl_ms=86_400_000,
)

FULL = """
log: embedded:./data
keys: ./k
defaults: {labels: {mature_after: 1h}}
models:
  fraud:
    target: {kind: multiclass}
    losses: [brier, {log: {cap: 3}}]
    labels: {horizon: 2d, mature_after: 40m, early: 5m, missing: ignore}
    slices: {by: [country, channel], cap: 7}
    worse_by: 0.1
    one_false_alarm_per: 90d
    detectors: [adwin, e_detector]
    policy:
      {mode: act, cooldown: 1m, max_switches: 3 per 2d, without_control: page, confirm_within: 2h, proposal_ttl: 3h}
fleet: {max_simultaneous: 5}
"""


def fault(text: str, **environment: str) -> str:
    with pytest.raises(ConfigurationError) as found:
        parse(text, environment)
    return str(found.value)


# What it says


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "log: embedded:./unship-data", "models: {fraud: {}}", "models: {fraud: }", "defaults: {}"],
)
def test_what_is_absent_has_the_defaults_of_the_contract(text: str) -> None:
    config = parse(text)
    assert config.of("fraud") == DEFAULTS
    assert config.of("never seen") == DEFAULTS
    assert (config.log, config.keys, config.max_simultaneous) == ("embedded:./unship-data", "./unship-keys", 3)


def test_everything_that_can_be_said_is_read() -> None:
    config = parse(FULL)
    assert (config.log, config.keys, config.max_simultaneous) == ("embedded:./data", "./k", 5)
    assert config.of("fraud") == ModelConfig(
        kind="multiclass",
        losses=[LossSpec("brier"), LossSpec("log", 3.0)],
        horizon_ms=2 * 86_400_000,
        mature_after_ms=2_400_000,
        early_ms=300_000,
        slices_by=["country", "channel"],
        slices_cap=7,
        worse_by=0.1,
        promise=90 * 86_400.0,
        promise_in_time=True,
        detectors=["adwin", "e_detector"],
        mode="act",
        cooldown_ms=60_000,
        switches_max=3,
        switches_span_ms=2 * 86_400_000,
        without_control="page",
        confirm_within_ms=7_200_000,
        proposal_ttl_ms=10_800_000,
        deployments="signed",
    )


def test_models_take_what_they_do_not_say_from_the_defaults() -> None:
    config = parse(
        "defaults: {labels: {mature_after: 1h, horizon: 2d}, worse_by: 0.1, losses: [brier], policy: {mode: act}}\n"
        "models: {a: {labels: {mature_after: 2h}, losses: [zero_one]}, b: }"
    )
    a, b, other = config.of("a"), config.of("b"), config.of("other")
    assert (a.mature_after_ms, a.horizon_ms, a.early_ms, a.worse_by, a.mode) == (
        7_200_000,
        172_800_000,
        600_000,
        0.1,
        "act",
    )
    assert a.losses == [LossSpec("zero_one")]
    assert b == other
    assert (b.mature_after_ms, b.losses) == (3_600_000, [LossSpec("brier")])


@pytest.mark.parametrize(
    ("mature_after", "width"), [("0s", 1_000), ("10s", 1_000), ("20s", 1_000), ("21s", 1_050), ("1h", 180_000)]
)
def test_cohort_is_a_twentieth_of_the_maturity_and_at_least_a_second(mature_after: str, width: int) -> None:
    assert parse(f"defaults: {{labels: {{mature_after: {mature_after}}}}}").defaults.cohort_ms == width


@pytest.mark.parametrize(
    ("value", "promise", "in_time"),
    [
        ("100", 100.0, False),
        ("1000000000000", 1e12, False),
        ("1e6", 1e6, False),
        ("1.5e6", 1.5e6, False),
        ("1m", 60.0, True),
        ("90d", 7_776_000.0, True),
    ],
)
def test_promise_is_a_count_of_outcomes_or_seconds(value: str, promise: float, in_time: bool) -> None:
    found = parse(f"defaults: {{one_false_alarm_per: {value}}}").defaults
    assert (found.promise, found.promise_in_time) == (promise, in_time)


def test_maturity_may_be_as_long_as_the_horizon() -> None:
    assert parse("defaults: {labels: {horizon: 1h, mature_after: 1h}}").defaults.mature_after_ms == 3_600_000


def test_yaml_anchors_and_merges_are_read() -> None:
    config = parse(
        "models:\n  a: &base {worse_by: 0.1, labels: {early: 1m}}\n  b: *base\n  c:\n    <<: *base\n    worse_by: 0.2\n"
    )
    assert config.of("b") == config.of("a")
    assert (config.of("c").worse_by, config.of("c").early_ms) == (0.2, 60_000)


# The environment


SECRET = "sEcReT-4711"


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "a number": ("defaults: {worse_by: '${TOKEN}'}", "defaults.worse_by: Expected `float`, got `str`"),
        "a duration": ("defaults: {labels: {horizon: '${TOKEN}'}}", "'${TOKEN}'"),
        "part of a duration": ("defaults: {labels: {early: '1${TOKEN}h'}}", "'1${TOKEN}h'"),
        "a limit": ("defaults: {policy: {max_switches: '${TOKEN}'}}", "'${TOKEN}'"),
        "a promise": ("defaults: {one_false_alarm_per: '${TOKEN}'}", "'${TOKEN}'"),
        "a size": ("limits: {window: '${TOKEN}'}", "'${TOKEN}'"),
        "a word": ("defaults: {policy: {mode: '${TOKEN}'}}", "'${TOKEN}'"),
        "a detector": ("defaults: {detectors: ['${TOKEN}']}", "'${TOKEN}'"),
        "a loss": ("models: {m: {losses: ['${TOKEN}']}}", "'${TOKEN}'"),
        "slices": ("defaults: {slices: {by: ['${TOKEN}', '${TOKEN}']}}", "['${TOKEN}', '${TOKEN}']"),
        "a protocol": ("kafka: {security: {protocol: '${TOKEN}', password: '${TOKEN}'}}", "'${TOKEN}'"),
        "a prefix": ("kafka: {topics: {prefix: ' ${TOKEN}'}}", "' ${TOKEN}'"),
    }.values(),
)
def test_value_of_the_environment_is_not_in_an_error_its_name_is(text: str, message: str) -> None:
    found = fault(text, TOKEN=SECRET)
    assert SECRET not in found
    assert message in found


def test_long_or_quoted_value_of_the_environment_is_not_in_an_error_in_part() -> None:
    found = fault("limits: {window: '${TOKEN}'}", TOKEN=f"it's {SECRET} {'x' * 80}\n")
    assert "${TOKEN}" in found
    assert [part for part in ("4711", "xx") if part in found] == []
    assert fault("fleet: {max_simultaneous: '${N}'}", N="0").endswith("expected at least 1, was ${N}")


def test_error_of_another_part_of_the_program_does_not_show_it_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unship.yaml").write_text("log: 'embedded:data/${TOKEN}'\n")
    monkeypatch.setenv("TOKEN", SECRET)
    shown = config_file.hidden(f"data/{SECRET}/log.sqlite3: the disk is full", tmp_path / "unship.yaml")
    assert shown == "data/${TOKEN}/log.sqlite3: the disk is full"


def test_environment_variables_are_filled_in_wherever_a_value_stands() -> None:
    text = "log: 'kafka://${HOST}:${PORT}'\nmodels: {m: {slices: {by: ['${FIELD}']}, policy: {mode: '${MODE}'}}}"
    config = parse(text, {"HOST": "broker", "PORT": "9092", "FIELD": "country", "MODE": "act"})
    assert config.log == "kafka://broker:9092"
    assert (config.of("m").slices_by, config.of("m").mode) == (["country"], "act")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("${SET:-x}", "set"),
        ("${UNSET:-./x:y}", "./x:y"),
        ("${EMPTY:-x}", "x"),
        ("${UNSET:-}/${SET}", "/set"),
        ("$${SET}", "${SET}"),
        ("$SET", "$SET"),
    ],
)
def test_variable_may_have_a_default_and_a_text_may_look_like_one(written: str, expected: str) -> None:
    assert parse(f"keys: '{written}'", {"SET": "set", "EMPTY": ""}).keys == expected


@pytest.mark.parametrize("written", ["a${HOME", "a${}", "a${1X}", "a${X:?no}", "a${X:-{}}", "a${ X }", "${X}a${"])
def test_dollar_brace_that_begins_no_variable_is_an_error_with_its_place(written: str) -> None:
    place = 6 if written.startswith("${X}") else 2
    message = fault(f"keys: '{written}'", X="x", HOME="h")
    assert message.startswith(
        f"keys: character {place}: `${{` begins no variable; write ${{NAME}} or ${{NAME:-default}}"
    )


@pytest.mark.parametrize(
    ("key", "value", "expected"), [("worse_by", "0.05", 0.05), ("one_false_alarm_per", "5000", 5_000.0)]
)
def test_number_from_the_environment_is_a_number(key: str, value: str, expected: float) -> None:
    found = parse(f"models: {{m: {{{key}: '${{NUMBER}}'}}}}", {"NUMBER": value}).of("m")
    assert {"worse_by": found.worse_by, "one_false_alarm_per": found.promise}[key] == expected


def test_value_of_a_variable_is_text_and_never_more_yaml() -> None:
    config = parse("log: ${A}\nkeys: ${B}", {"A": "x: {y: 1}", "B": "${A}"})
    assert (config.log, config.keys) == ("x: {y: 1}", "${A}")


def test_variable_that_is_not_set_is_named_with_its_path() -> None:
    message = fault("models: {m: {slices: {by: [a, '${MISSING}']}}}")
    assert message.startswith("models.m.slices.by[1]: ")
    assert "MISSING is not set" in message


def test_label_sources_are_listed_in_their_order_and_may_be_absent() -> None:
    models = "{a: {labels: {sources: [desk, crm]}}, b: , c: {labels: {sources: null}}}"
    config = parse(f"defaults: {{labels: {{sources: [crm]}}}}\nmodels: {models}")
    assert [config.of(name).sources for name in ("a", "b", "c", "other")] == [["desk", "crm"], ["crm"], [], ["crm"]]
    assert parse("").of("m").sources == []


# What is refused

LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)
"""Nine lines that mean a thousand million values."""

MERGED_LAUGHS = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{','.join([f'*a{level - 1}'] * 10)}]}}\n" for level in range(1, 9)
)

WRONG: dict[str, list[str]] = {
    # The file as a whole.
    "- a": ["expected a mapping", "list"],
    "just text": ["expected a mapping", "str"],
    "a: [": ["not valid YAML"],
    "a: 1\n---\nb: 2": ["not valid YAML"],
    "log: !!python/object/apply:os.system [x]": ["not valid YAML"],
    LAUGHS: ["more than 100000 values", "aliases", "line"],
    MERGED_LAUGHS: ["more than 100000 values", "aliases", "line"],
    "models: &m {a: *m}": ["an alias inside of what it repeats", "line 1"],
    "models: " + "[" * 50_000 + "]" * 50_000: ["nested deeper than 50 levels", "line 1"],
    "? {a: b}\n: c\n": ["not valid YAML"],
    "fleet: {max_simultaneous: 1" + "0" * 5_000 + "}": ["an integer of 5001 characters", "64 bits"],
    "fleet: {max_simultaneous: 0x" + "f" * 5_000 + "}": ["an integer of 5002 characters", "64 bits"],
    "fleet: {max_simultaneous: -1" + "0" * 40 + "}": ["an integer of 42 characters", "64 bits"],
    "log: 2026-02-31": ["not valid YAML", "does not fit its type"],
    "log: !!int ''": ["not valid YAML", "does not fit its type"],
    "log: !!bool perhaps": ["not valid YAML", "does not fit its type"],
    "log: !!timestamp soon": ["not valid YAML", "does not fit its type"],
    "logs: x": ["unknown key `logs`; known are log, keys, defaults"],
    "log: 5": ["log: ", "Expected `str`", "`int`"],
    "models: []\nmodels: {}": ["'models' is repeated", "line 2", "remove"],
    "models: 5": ["models: ", "expected a mapping of model names", "int"],
    "models: {5: {}}": ["models.5: ", "must be text", "quotes"],
    "models: {'': {}}": ["models: ", "a model's name is empty"],
    "defaults: {worse_by: 0,02}": ["defaults: worse_by is followed by `, 2`", "a number has a point"],
    "models: {m: {policy: {1: 2}}}": ["models.m.policy: 1 is a key that is no text", "quotes"],
    "models: {m: {slices: {by: [a, '']}}}": ["models.m.slices.by: ", "a name is empty"],
    "defaults: {one_false_alarm_per: often}": [
        "defaults.one_false_alarm_per: ",
        "a number of outcomes such as 1000000, or a time span such as 90d, was 'often'",
    ],
    "defaults: {one_false_alarm_per: 1e3.5}": ["a number of outcomes such as 1000000"],
    "models: {m: 5}": ["models.m: ", "expected a mapping", "int"],
    "models: {m: {a: 1, a: 2}}": ["'a' is repeated", "line 1"],
    "models:\n  m: {}\n  m: {}": ["'m' is repeated", "line 3"],
    "defaults: 5": ["defaults: ", "Expected `object`", "`int`"],
    "defaults: {labels: {mature: 1h}}": ["defaults.labels: ", "unknown key `mature`; known are horizon, mature_after"],
    "fleet: {max: 5}": ["fleet: ", "unknown key `max`"],
    "fleet: {max_simultaneous: x}": ["fleet.max_simultaneous: ", "Expected `int`", "`str`"],
    # One model.
    "models: {m: {loss: []}}": ["models.m: ", "unknown key `loss`"],
    "models: {m: {labels: {mature: 1h}}}": ["models.m.labels: ", "unknown key `mature`"],
    "models: {m: {labels: 1h}}": ["models.m.labels: ", "Expected `object`", "`str`"],
    "models: {m: {policy: {mode: 5}}}": ["models.m.policy.mode: ", "`str`", "`int`"],
    "models: {m: {policy: {mode: actt}}}": ["models.m.policy.mode: ", "'actt'", "observe", "approve"],
    "models: {m: {target: {kind: clustering}}}": ["models.m.target.kind: ", "'clustering'", "binary", "multiclass"],
    "models: {m: {labels: {missing: maybe}}}": ["models.m.labels.missing: ", "'maybe'", "ignore, negative"],
    "models: {m: {labels: {missing: negative}}}": ["models.m.labels.missing: ", "mature_after above 0, was 0s", "30d"],
    "models: {m: {target: {kind: multiclass}, labels: {missing: negative, mature_after: 1h}}}": [
        "models.m.labels.missing: ",
        "target.kind is multiclass",
        "missing: ignore",
    ],
    "models: {m: {losses: [latency]}}": ["models.m.losses[0]: ", "{latency: {objective_ms: 200}}"],
    "models: {m: {losses: [zero_one, {latency: {objective_ms: 0}}]}}": ["models.m.losses[1].objective_ms: ", "above 0"],
    "models: {m: {labels: {on_conflict: last}}}": [
        "models.m.labels.on_conflict: ",
        "needs labels.mature_after above 0, was 0s",
    ],
    "models: {m: {labels: {on_conflict: best}}}": ["models.m.labels.on_conflict: ", "'best'", "first, last"],
    "models: {m: {policy: {without_control: x}}}": ["models.m.policy.without_control: ", "'x'", "propose", "page"],
    "models: {m: {labels: {sources: []}}}": [
        "models.m.labels.sources: ",
        "1 to 8 different names, was 0",
        "leave the key out",
    ],
    "models: {m: {labels: {sources: [a, b, a]}}}": ["models.m.labels.sources: ", "different names, was 3"],
    "models: {m: {labels: {sources: [a, b, c, d, e, f, g, h, i]}}}": ["1 to 8 different names, was 9", "one pool"],
    "models: {m: {labels: {sources: [__other__]}}}": ["models.m.labels.sources: ", "'__other__'", "pool"],
    "models: {m: {labels: {sources: ['']}}}": ["models.m.labels.sources: ", "1 to 128 characters"],
    "models: {m: {labels: {sources: crm}}}": ["models.m.labels.sources: ", "`str`"],
    "models: {m: {labels: {horizon: 7}}}": ["models.m.labels.horizon: ", "expected a duration such as", "7"],
    "models: {m: {labels: {early: soon}}}": ["models.m.labels.early: ", "expected a duration such as", "'soon'"],
    "models: {m: {labels: {horizon: 1h, mature_after: 2h}}}": [
        "models.m.labels.mature_after: ",
        "2h",
        "1h",
        "raise labels.horizon",
    ],
    "defaults: {labels: {horizon: 1h, mature_after: 2h}}": ["defaults.labels.mature_after: ", "2h", "1h"],
    "models: {m: {policy: {cooldown: x}}}": ["models.m.policy.cooldown: ", "'x'"],
    "models: {m: {policy: {confirm_within: x}}}": ["models.m.policy.confirm_within: ", "'x'"],
    "models: {m: {policy: {proposal_ttl: x}}}": ["models.m.policy.proposal_ttl: ", "'x'"],
    "models: {m: {policy: {max_switches: many}}}": ["models.m.policy.max_switches: ", "'2 per 1d'", "'many'"],
    "models: {m: {policy: {max_switches: 2 per day}}}": ["models.m.policy.max_switches: ", "'day'"],
    "models: {m: {one_false_alarm_per: 99}}": ["models.m.one_false_alarm_per: ", "99", "100 .. "],
    "models: {m: {one_false_alarm_per: 1000000000001}}": ["models.m.one_false_alarm_per: ", "1000000000001"],
    "models: {m: {one_false_alarm_per: 30s}}": [
        "models.m.one_false_alarm_per: ",
        "30s",
        "shorter than a minute",
        "90d",
    ],
    "models: {m: {one_false_alarm_per: true}}": ["models.m.one_false_alarm_per: ", "`bool`"],
    "models: {m: {worse_by: -0.1}}": ["models.m.worse_by: ", "-0.1", "0 .. 1"],
    "models: {m: {worse_by: 1}}": ["models.m.worse_by: ", "1.0", "0 .. 1"],
    "models: {m: {worse_by: .nan}}": ["models.m.worse_by: ", "nan", "0 .. 1"],
    "models: {m: {slices: {cap: 0}}}": ["models.m.slices.cap: ", "0 is outside 1 .. 1000"],
    "models: {m: {slices: {cap: 1001}}}": ["models.m.slices.cap: ", "1001"],
    "models: {m: {slices: {by: [a, a]}}}": ["models.m.slices.by: ", "different", "['a', 'a']"],
    "models: {m: {slices: {by: [a, b, c, d, e, f, g, h, i]}}}": ["models.m.slices.by: ", "at most 8"],
    "models: {m: {slices: {by: country}}}": ["models.m.slices.by: ", "Expected `array`", "`str`"],
    "models: {m: {losses: [auc]}}": ["models.m.losses[0]: ", "'auc'", "known are zero_one"],
    "models: {m: {losses: []}}": ["models.m.losses: ", "at least one"],
    "models: {m: {detectors: []}}": ["models.m.detectors: ", "at least one"],
    "models: {m: {detectors: [adwin, adwin]}}": ["models.m.detectors: ", "each once", "adwin"],
    "models: {m: {detectors: [ddmm]}}": ["models.m.detectors: ", "'ddmm'", "known are e_detector"],
}


@pytest.mark.parametrize("text", list(WRONG), ids=[text[:60] for text in WRONG])
def test_wrong_setting_is_refused_with_place_finding_and_what_is_expected(text: str) -> None:
    message = fault(text)
    for word in WRONG[text]:
        assert word in message


@pytest.mark.parametrize(
    "text", ["? [a, b]\n: 1", "a: &x [*x]", "\x00", "a: b: c", "%TAG x", "? {a: 1}\n: 2", "{" * 900]
)
def test_strange_yaml_is_refused_and_never_escapes_as_another_error(text: str) -> None:
    fault(text)


@pytest.mark.parametrize("name", ["a b", "日本", "x" * 300])
def test_any_text_names_a_model(name: str) -> None:
    config = parse(f"models: {{'{name}': {{worse_by: 0.3}}}}")
    assert config.of(name).worse_by == 0.3


# The file


def test_without_a_file_every_model_is_observed_with_the_defaults() -> None:
    assert load(None) == parse("")


def test_file_is_read_with_the_environment_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "unship.yaml"
    path.write_text("log: ${UNSHIP_TEST_LOG}\nmodels: {ä: {worse_by: 0.3}}\n", encoding="utf-8")
    monkeypatch.setenv("UNSHIP_TEST_LOG", "embedded:./here")
    assert load(path).log == "embedded:./here"
    assert load(path).of("ä").worse_by == 0.3


def test_fault_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "unship.yaml"
    path.write_text("models: {m: {worse_by: 7}}")
    with pytest.raises(ConfigurationError, match=r"unship\.yaml: models\.m\.worse_by: 7"):
        load(path)


@pytest.mark.parametrize(
    "content", [None, b"\xff\xfe\x00", b"#" * (config_file.FILE_BYTES_MAX + 1)], ids=["absent", "no text", "too large"]
)
def test_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "unship.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"unship\.yaml"):
        load(path)


# The digest


def other(value: Any) -> Any:
    """Return another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return [*value, value[0]] if value else ["x"]


@pytest.mark.parametrize("name", ModelConfig.__struct_fields__)
@pytest.mark.parametrize("where", ["model", "defaults"])
def test_digest_changes_with_every_field_of_a_model(name: str, where: str) -> None:
    config = parse(FULL)
    base = config.of("fraud") if where == "model" else config.defaults
    changed = msgspec.structs.replace(base, **{name: other(getattr(base, name))})
    after = (
        msgspec.structs.replace(config, models={"fraud": changed})
        if where == "model"
        else msgspec.structs.replace(config, defaults=changed)
    )
    assert after.digest() != config.digest()


def test_digest_changes_with_the_models_and_the_fleets_limit() -> None:
    config = parse(FULL)
    digests = {
        config.digest(),
        msgspec.structs.replace(config, max_simultaneous=6).digest(),
        msgspec.structs.replace(config, models={}).digest(),
        msgspec.structs.replace(config, models={"fraud2": config.of("fraud")}).digest(),
        parse(FULL.replace("[brier, {log: {cap: 3}}]", "[{log: {cap: 3}}, brier]")).digest(),
    }
    assert len(digests) == 5


def test_digest_does_not_depend_on_how_or_where_it_is_written() -> None:
    first = parse("models: {a: {worse_by: 0.1}, b: {labels: {early: 10m, horizon: 7d}}}")
    second = parse("log: embedded:./x\nkeys: ./y\nmodels:\n  b: {labels: {horizon: 168h}}\n  a: {worse_by: 1.0e-1}\n")
    assert first.digest() == second.digest()


def test_resolved_configuration_reads_back_from_plain_data() -> None:
    config = parse(FULL)
    assert msgspec.convert(msgspec.to_builtins(config), Config) == config
    assert msgspec.convert(msgspec.to_builtins(config), Config).digest() == config.digest()


def test_every_detector_that_is_ready_can_be_named() -> None:
    for name in DETECTORS_READY:
        assert parse(f"defaults: {{detectors: [{name}]}}").defaults.detectors == [name]


def test_configuration_and_detectors_agree_on_the_names_and_on_what_counts_errors() -> None:
    assert detectors.names() == DETECTORS_READY
    assert tuple(n for n in detectors.names() if detectors.create(n).accepts == "binary") == DETECTORS_OF_ERRORS


def test_new_detectors_are_named_but_not_used_unless_asked_for() -> None:
    assert parse("").defaults.detectors == ["e_detector", "adwin", "page_hinkley"]


@pytest.mark.parametrize("name", DETECTORS_OF_ERRORS)
def test_detector_of_errors_that_decides_is_refused_if_any_loss_is_not_of_errors(name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(f"models: {{m: {{detectors: [{name}, adwin], losses: [zero_one, brier, {{log: {{cap: 4}}}}]}}}}")
    for part in ("models.m.detectors: ", f"{name} is first", "brier, log", "keep only zero_one"):
        assert part in str(raised.value)


@pytest.mark.parametrize("name", DETECTORS_OF_ERRORS)
def test_second_opinion_of_errors_is_refused_only_if_the_first_loss_is_not_of_errors(name: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        parse(f"models: {{m: {{detectors: [e_detector, {name}], losses: [brier, zero_one]}}}}")
    for part in ("models.m.detectors: ", f"{name} watches the first loss", "not brier", "put zero_one first"):
        assert part in str(raised.value)
    accepted = parse(f"models: {{m: {{detectors: [e_detector, {name}], losses: [zero_one, brier]}}}}")
    assert accepted.of("m").detectors == ["e_detector", name]


def test_model_that_takes_its_detectors_from_the_defaults_is_checked_with_its_own_losses() -> None:
    with pytest.raises(ConfigurationError, match=r"models\.m\.detectors: ddm .*not brier"):
        parse("defaults: {detectors: [ddm]}\nmodels: {m: {losses: [brier]}}")


KAFKA = """
log: kafka://k1:9092,k2:9092
kafka:
  security: {mechanism: SCRAM-SHA-256, username: monitor, password: "${SECRET}", ca_file: ca.pem}
  topics: {prefix: shop., partitions: 4, ledger_partitions: 2, replication: 3}
"""


def test_way_into_the_broker_is_read_and_its_password_comes_from_the_environment() -> None:
    kafka = parse(KAFKA, {"SECRET": "hunter2"}).kafka
    assert kafka.security_given is not None
    assert kafka.security_given.password == "hunter2"
    assert kafka.security_given.protocol_used == "SASL_SSL"
    assert kafka.topics.names.of("ledger") == "shop.ledger"
    assert (kafka.topics.partitions, kafka.topics.ledger_partitions, kafka.topics.replication) == (4, 2, 3)
    assert parse("").kafka.security_given is None


def test_way_into_the_broker_is_in_neither_the_digest_nor_the_ledger_nor_a_message() -> None:
    config = parse(KAFKA, {"SECRET": "hunter2"})
    assert config.digest() == parse("").digest()
    record = configuration_record(config)
    assert b"hunter2" not in msgspec.json.encode(record)
    assert "hunter2" not in repr(config)
    assert msgspec.convert(record.config, Config) == config.watched() == parse("").watched()


def test_ledger_records_only_what_decisions_depend_on() -> None:
    config = parse("{log: 'embedded:./secret-log', keys: ./secret-keys}")
    assert set(configuration_record(config).config) == {"models", "defaults", "max_simultaneous", "places"}
    fold = Fold(config)
    fold.step(entry_of(configuration_record(config)))
    assert b"secret" not in pack(fold.save())


def test_limit_of_the_window_is_in_neither_the_digest_nor_the_ledger() -> None:
    config = parse("limits: {window: 2GiB}")
    assert config.window_bytes == 2 * parse("").window_bytes == 2**31
    assert config.digest() == parse("").digest()
    assert configuration_record(config) == configuration_record(parse(""))


@pytest.mark.parametrize(
    "text", ["{window: 1MiB}", "{window: 5}", "{window: much}", "{window: -1GiB}", "{window: 1GB}"]
)
def test_impossible_limit_of_the_window_is_refused_by_its_path(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^limits\.window: "):
        parse(f"limits: {text}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("security: {protocol: TLS}", "kafka.security.protocol: unknown value 'TLS'; known are PLAINTEXT, SSL, SASL"),
        ("security: {mechanism: MD5}", "kafka.security.mechanism: unknown value 'MD5'; known are PLAIN, SCRAM-SHA"),
        ("security: {user: a}", "kafka.security: unknown key `user`; known are protocol"),
        ("security: {username: a}", "kafka.security.username: there is no password"),
        ("topics: {prefix: a b}", "kafka.topics.prefix: "),
        ("topics: {partitions: 0}", "kafka.topics.partitions: 0 is outside 1 .. 1024"),
        ("topics: {ledger_partitions: 257}", "kafka.topics.ledger_partitions: 257 is outside 1 .. 256"),
        ("topics: {replication: 0}", "kafka.topics.replication: 0 is outside 1 .. 16"),
    ],
)
def test_impossible_setting_of_kafka_is_refused_by_its_path(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{re.escape(message)}"):
        parse(f"kafka: {{{text}}}")

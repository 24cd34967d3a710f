"""Parse a configuration: read once, checked whole, resolved into plain numbers that the ledger records.

`unship.yaml` is written by people, so every error names the path, the value found, the value expected and the fix.
The join and the fold read `ModelConfig`: milliseconds and counts, no text left to interpret. Its digest is part of
every decision, so a decision names exactly the configuration that it was taken under.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

import msgspec

from streams.config.environment import Environment
from streams.config.holdback import holdback_policy
from streams.config.reports import alert_sink, web
from streams.config.resolved import OTHER, Config, ModelConfig, Places
from streams.config.sections import DETECTORS_BY_DEFAULT, ConfigFile, LimitsSection, ModelSection, Section
from streams.config.units import count_per_span, duration_ms, size_bytes
from streams.config.yaml_text import read_yaml
from streams.losses.catalogue import OF_CLASSES, LoadOwnLoss, loss_specs
from streams.losses.columns import LossSpec
from unship.budgets.table import LABEL_SOURCES
from unship.errors import ConfigurationError
from unship.events import NAME_CHARS_MAX

DETECTORS_OF_ERRORS = ("ddm", "eddm", "fhddm", "hddm_a", "hddm_w")
"""Detectors that count errors and refuse a loss between 0 and 1.

It repeats their `accepts`, because reading that imports river, which takes longer than the rest of a command's start.
"""

DETECTORS_READY = (*DETECTORS_BY_DEFAULT, *DETECTORS_OF_ERRORS, "kswin", "cusum")
BYTES_LEAST = 2**24
PLACES_MAX = 100_000
_COUNT = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?(?:[eE]\+?[0-9]{1,2})?")
_UNKNOWN_KEY = re.compile(r"Object contains unknown field `([^`]*)`")
_S = TypeVar("_S", bound=Section)


def parse(text: str, environment: Mapping[str, str] | None = None, load_own_loss: LoadOwnLoss | None = None) -> Config:
    """Resolve the text of a configuration.

    Args:
        text: YAML, as in `unship.yaml`.
        environment: The values of `${NAME}` and of `${NAME:-default}`.
        load_own_loss: Imports a loss such as `"pkg.mod:fn"` and returns the digest of its source; None refuses such a
            loss.

    Raises:
        ConfigurationError: A key or a value is not valid; with its path, what was found and what was expected.

    Example:
        >>> parse("models: {fraud: {labels: {mature_after: 1h}}}").of("fraud").cohort_ms
        180000
    """
    given = Environment(environment or {})
    raw = read_yaml(text)
    raw = {} if raw is None else given.expand(raw)
    try:
        return _resolved(raw, load_own_loss)
    except ConfigurationError as error:
        # Without the cause, which shows the value.
        raise ConfigurationError(given.hidden(str(error))) from None


def _resolved(raw: Any, load_own_loss: LoadOwnLoss | None) -> Config:
    if not isinstance(raw, dict):
        raise ConfigurationError(f"expected a mapping such as 'log: embedded:./unship-data', was {type(raw).__name__}")
    models = raw.pop("models", None) or {}
    if not isinstance(models, dict):
        raise ConfigurationError(f"models: expected a mapping of model names, was {type(models).__name__}")
    for name in models:
        _check_model_name(name)
    if (found := _no_text_key(raw | {"models": models}, "")) is not None:
        raise ConfigurationError(found)
    defaults = raw.get("defaults") or {}
    file = _convert(raw | {"defaults": defaults}, ConfigFile, "")
    resolved = {}
    for name, section in models.items():
        path = f"models.{name}"
        merged = _convert(_merge(defaults, section or {}, path), ModelSection, path)
        resolved[name] = _resolve(merged, path, load_own_loss)
    if file.fleet.max_simultaneous < 1:
        raise ConfigurationError(f"fleet.max_simultaneous: expected at least 1, was {file.fleet.max_simultaneous}")
    file.kafka.check()
    return Config(
        models=resolved,
        defaults=_resolve(file.defaults, "defaults", load_own_loss),
        log=file.log,
        keys=file.keys,
        max_simultaneous=file.fleet.max_simultaneous,
        kafka=file.kafka,
        alerts=[alert_sink(section, f"alerts[{number}]") for number, section in enumerate(file.alerts)],
        web=web(file.web.listen, file.web.token_file, "web.listen"),
        window_bytes=_bytes(file.limits.window, "limits.window"),
        recording_bytes=_bytes(file.limits.recording, "limits.recording"),
        places=_places(file.limits),
    )


def _check_model_name(name: Any) -> None:
    if not isinstance(name, str):
        raise ConfigurationError(f"models.{name}: a model's name must be text; write it in quotes")
    if not name:
        raise ConfigurationError("models: a model's name is empty; write it as its events do")


def _bytes(text: str | int, path: str) -> int:
    found = size_bytes(text, path)
    if found < BYTES_LEAST:
        raise ConfigurationError(f"{path}: {text} is less than {BYTES_LEAST} bytes (16MiB); raise it")
    return found


def _places(limits: LimitsSection) -> Places:
    places = Places(limits.models, limits.versions, limits.replicas)
    for name, value in msgspec.structs.asdict(places).items():
        if not 1 <= value <= PLACES_MAX:
            raise ConfigurationError(f"limits.{name}: {value} is outside 1 .. {PLACES_MAX}")
    return places


def _merge(defaults: Mapping[str, Any], section: Any, path: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise ConfigurationError(f"{path}: expected a mapping, was {type(section).__name__}")
    merged = dict(defaults)
    for key, value in section.items():
        base = merged.get(key)
        merged[key] = {**base, **value} if isinstance(base, dict) and isinstance(value, dict) else value
    return merged


def _convert(raw: Any, kind: type[_S], path: str) -> _S:
    try:
        # Not strict, because a value from the environment is always text.
        return msgspec.convert(raw, kind, strict=False)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        inside = where.rstrip("`").lstrip(".")
        if message.startswith("Invalid enum value"):
            message = (
                f"{message.replace('Invalid enum value', 'unknown value')}; known are {_known_words(kind, inside)}"
            )
        elif unknown := _UNKNOWN_KEY.match(message):
            message = f"unknown key `{unknown[1]}`; known are {', '.join(_known_keys(kind, inside))}"
        full = ".".join(part for part in (path, inside) if part)
        raise ConfigurationError(f"{full}: {message}" if full else message) from error


def _no_text_key(raw: Any, path: str) -> str | None:
    """Return the path of a mapping with a key that is no text, with what such a key mostly comes from; None if none."""
    if isinstance(raw, list):
        return next(filter(None, (_no_text_key(item, f"{path}[{i}]") for i, item in enumerate(raw))), None)
    if not isinstance(raw, dict):
        return None
    before = ""
    for key, value in raw.items():
        if not isinstance(key, str):
            where = f"{path}: " if path else ""
            if value is None and before:
                return (
                    f"{where}{before} is followed by `, {key}`, which YAML reads as a key of its own; "
                    "a number has a point: 0.02"
                )
            return f"{where}{key!r} is a key that is no text; write it in quotes"
        before = key
        if (found := _no_text_key(value, f"{path}.{key}".lstrip("."))) is not None:
            return found
    return None


def _known_keys(kind: Any, path: str) -> tuple[str, ...]:
    """Return the keys that a section accepts."""
    # The place in a list has the type of all of its items.
    for name in filter(None, re.sub(r"\[\d+\]", "", path).split(".")):
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == name)
        # A section that may be absent is a union of itself and None.
        kind = next((part for part in get_args(kind) if isinstance(part, type) and part is not type(None)), kind)
    return tuple(kind.__struct_encode_fields__)


def _known_words(kind: Any, path: str) -> str:
    """Return the words that a setting accepts."""
    for name in path.split("."):
        kind = next(field.type for field in msgspec.structs.fields(kind) if field.encode_name == name)
    # A setting that may be absent is a union of its words and None.
    words = [word for part in get_args(kind) for word in (get_args(part) or [part]) if isinstance(word, str)]
    return ", ".join(words)


def _resolve(section: ModelSection, path: str, load: LoadOwnLoss | None) -> ModelConfig:
    labels, policy = section.labels, section.policy
    horizon = duration_ms(labels.horizon, f"{path}.labels.horizon")
    mature_after = duration_ms(labels.mature_after, f"{path}.labels.mature_after")
    if mature_after > horizon:
        raise ConfigurationError(
            f"{path}.labels.mature_after: {labels.mature_after} is longer than the horizon {labels.horizon}, "
            "after which no label is joined; raise labels.horizon or lower mature_after"
        )
    ttl = duration_ms(policy.proposal_ttl, f"{path}.policy.proposal_ttl")
    if ttl < 1_000:
        raise ConfigurationError(f"{path}.policy.proposal_ttl: {policy.proposal_ttl} is shorter than a second")
    promise, in_time = _promise(section.one_false_alarm_per, f"{path}.one_false_alarm_per")
    switches, span = count_per_span(policy.max_switches, f"{path}.policy.max_switches")
    _check_numbers(section, path)
    losses = loss_specs(section.losses, section.target.kind, f"{path}.losses", load)
    if labels.missing == "negative":
        _check_negative(section, losses, mature_after, path)
    if labels.on_conflict == "last" and not mature_after:
        raise ConfigurationError(
            f"{path}.labels.on_conflict: last needs labels.mature_after above 0, was {labels.mature_after}: what was "
            "judged on arrival is not judged again; write for example labels: {on_conflict: last, mature_after: 1d}"
        )
    _check_detectors_of_errors(section.detectors, losses, section.target.kind, path)
    return ModelConfig(
        kind=section.target.kind,
        losses=losses,
        horizon_ms=horizon,
        mature_after_ms=mature_after,
        early_ms=duration_ms(labels.early, f"{path}.labels.early"),
        slices_by=list(section.slices.by),
        slices_cap=section.slices.cap,
        worse_by=float(section.worse_by),
        promise=promise,
        promise_in_time=in_time,
        detectors=list(section.detectors),
        mode=policy.mode,
        cooldown_ms=duration_ms(policy.cooldown, f"{path}.policy.cooldown"),
        switches_max=switches,
        switches_span_ms=span,
        without_control=policy.without_control,
        confirm_within_ms=duration_ms(policy.confirm_within, f"{path}.policy.confirm_within"),
        proposal_ttl_ms=ttl,
        missing=labels.missing,
        on_conflict=labels.on_conflict,
        sources=_sources(labels.sources, f"{path}.labels.sources"),
        deployments=policy.deployments or ("any" if policy.mode == "observe" else "signed"),
        holdback=holdback_policy(policy.holdback, f"{path}.policy.holdback"),
    )


def _sources(names: list[str] | None, path: str) -> list[str]:
    """Return the label sources that have places of their own, none if there is no list."""
    if names is None:
        return []
    if not 1 <= len(names) <= LABEL_SOURCES.limit or len(set(names)) != len(names):
        raise ConfigurationError(
            f"{path}: expected 1 to {LABEL_SOURCES.limit} different names, was {len(names)}: list those that give most "
            "labels, all others are one pool; or leave the key out"
        )
    for name in names:
        if not 1 <= len(name) <= NAME_CHARS_MAX or name == OTHER:
            raise ConfigurationError(
                f"{path}: {name[:40]!r} is no source; expected 1 to {NAME_CHARS_MAX} characters, as in the field "
                f"`source` of feedback, and not {OTHER}, which is the pool of all others"
            )
    return list(names)


def _check_negative(section: ModelSection, losses: list[LossSpec], mature_after: int, path: str) -> None:
    if not mature_after:
        raise ConfigurationError(
            f"{path}.labels.missing: negative needs labels.mature_after above 0, was {section.labels.mature_after}: "
            "a missing label means something only after its time to come; write for example "
            "labels: {missing: negative, mature_after: 30d, horizon: 30d}, or missing: ignore"
        )
    others = [spec.name for spec in losses if not (spec.of_use or spec.of_latency)]
    if section.target.kind != "binary" and others:
        raise ConfigurationError(
            f"{path}.labels.missing: negative is for yes/no, and for the losses engagement and ranking; "
            f"target.kind is {section.target.kind}, and {', '.join(others)} cannot be computed without a label; write "
            "missing: ignore, or correct target.kind"
        )


def _promise(value: int | str, path: str) -> tuple[float, bool]:
    if isinstance(value, str) and (found := _COUNT.fullmatch(value.strip())):
        # YAML reads 1e6 as text; and a value from the environment is always text.
        value = round(float(found[0])) if float(found[0]).is_integer() else value
    if isinstance(value, int):
        if not 100 <= value <= 10**12:
            raise ConfigurationError(f"{path}: {value} is outside 100 .. 1000000000000 outcomes")
        return float(value), False
    try:
        seconds = duration_ms(value, path) / 1000
    except ConfigurationError as error:
        expected = "expected a number of outcomes such as 1000000, or a time span such as 90d"
        raise ConfigurationError(f"{path}: {expected}, was {str(value)[:40]!r}") from error
    if seconds < 60:
        raise ConfigurationError(
            f"{path}: {value} is shorter than a minute; write a span such as 90d, or a count of outcomes"
        )
    return seconds, True


def _check_numbers(section: ModelSection, path: str) -> None:
    if not 0 <= section.worse_by < 1:
        raise ConfigurationError(
            f"{path}.worse_by: {section.worse_by} is outside 0 .. 1; it is a rise of the mean loss"
        )
    if not 1 <= section.slices.cap <= 1_000:
        raise ConfigurationError(f"{path}.slices.cap: {section.slices.cap} is outside 1 .. 1000")
    if len(section.slices.by) > 8 or len(set(section.slices.by)) != len(section.slices.by):
        raise ConfigurationError(f"{path}.slices.by: expected at most 8 different names, was {section.slices.by}")
    if not all(section.slices.by):
        raise ConfigurationError(f"{path}.slices.by: a name is empty; name the fields of `slices` as the events do")
    if not section.detectors or len(set(section.detectors)) != len(section.detectors):
        raise ConfigurationError(f"{path}.detectors: expected at least one name, each once, was {section.detectors}")
    for name in section.detectors:
        if name not in DETECTORS_READY:
            raise ConfigurationError(
                f"{path}.detectors: unknown detector {name!r}; known are {', '.join(DETECTORS_READY)}"
            )


def _check_detectors_of_errors(names: list[str], losses: list[LossSpec], kind: str, path: str) -> None:
    """Refuse a detector that counts errors where it would be fed a loss that is not 0 or 1."""
    for place, name in enumerate(names):
        # The detector that decides watches every loss, the others only the primary one.
        watched = losses if place == 0 else losses[:1]
        between = [loss.name for loss in watched if not loss.binary]
        if name not in DETECTORS_OF_ERRORS or not between:
            continue
        if place == 0:
            role = "is first, so it watches every loss"
            fix = "keep only zero_one in losses, or put e_detector first"
        else:
            role, fix = "watches the first loss", f"put zero_one first in losses, or leave {name} out"
        if kind not in OF_CLASSES:
            fix = "leave it out" if place else "put e_detector first"
        raise ConfigurationError(
            f"{path}.detectors: {name} {role}, and it takes only 0 and 1, not {', '.join(between)}; {fix}"
        )

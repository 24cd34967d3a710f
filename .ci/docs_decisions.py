"""Describe the fields of a decision and of its evidence; types and completeness come from the code.

`*` in a path is a name, `[]` for each entry of a list. A field without a meaning, or a meaning without a field,
stops `docs.py`.
"""

import re
from typing import Any

import msgspec

from actions.journal import Decision

FIELDS: dict[str, str] = {
    "type": "`decision`",
    "id": "its name: place in the ledger, index, and a few digits of a digest; the same ledger always gives the same",
    "model": "the model",
    "version": "the version that was judged",
    "action": "`rollback`, `propose`, `observe`, `page` or `none`",
    "to": "the version to go back to, or null",
    "verdict": "`HEALTHY`, `DEGRADED`, `INCONCLUSIVE` or `ERROR`",
    "reason": "one of [the reasons](reasons.md)",
    "mode": "the model's mode",
    "epoch": "incarnation, offset of the ledger record, index inside it",
    "ts": "the clock, in milliseconds",
    "slice": 'the slice it is about, such as `{"country": "DE"}`, or null for all requests',
    "outcomes": "how many outcomes of the version were judged since it went live; with [`missing: "
    "negative`](configuration.md#missing-labels) also those without a label, with `latency` as the first loss all "
    "predictions",
    "evidence": "all numbers, see below",
    "provenance": "`ledger`: first and last record; `lines`: first and last source line; on a live log "
    "`predictions` and `feedback` instead, by partition: first offset and that behind the last. All that the "
    "decision depends on lies inside",
    "digests": "`previous`: of the model's decision before (empty for the first); `ledger`: of all records so "
    "far; `config`: of the configuration",
}

EVIDENCE: dict[str, str] = {
    "detectors.decides": "the detector that decides",
    "detectors.promise": "what is promised, in words; `not promised` where another than `e_detector` decides",
    "detectors.e_detector.threshold": "what the weighted mean over all rows has to reach",
    "detectors.e_detector.*.evidence": "evidence of the row of all requests, by loss. After its alarm a row restarts",
    "detectors.e_detector.*.baseline.mean": "the usual mean loss",
    "detectors.e_detector.*.baseline.n": "how many outcomes it rests on",
    "detectors.e_detector.*.basis": "where it comes from: `learning` (there is none yet), `reference`, `earlier`, "
    "`previous`, `first outcomes`",
    "detectors.e_detector.*.ignored_reference.mean": "the reference of the deployment, if the version's own first "
    "outcomes contradict it: its mean",
    "detectors.e_detector.*.ignored_reference.n": "and how many outcomes it was measured on",
    "detectors.*.*.alarms": "a second opinion: how often it alarmed in this live period",
    "detectors.*.*.last_ts": "and when last, or null",
    "maturity": "how long each label had to come; `none` if outcomes count as they arrive",
    "label_coverage": "labelled share of the newest 20 cohorts; absent where no loss needs a label",
    "alarm.detector": "what alarmed",
    "alarm.loss": "on which loss",
    "alarm.slice": "in which slice; null for all requests",
    "alarm.ts": "when, by the clock",
    "alarm.change_ts": "the estimated change: since when the loss has been higher",
    "alarm.evidence": "the row's evidence at the alarm",
    "alarm.threshold": "the promise divided by the row's weight; 0 where another detector than `e_detector` decided",
    "alarm.since_change.mean": "the mean loss since the change, up to now",
    "alarm.since_change.n": "over how many outcomes",
    "alarm.baseline.mean": "the usual mean loss of the row",
    "alarm.baseline.n": "how many outcomes it rests on",
    "alarm.basis": "where that comes from",
    "slices[].slice": "the five slices with most evidence: which",
    "slices[].evidence": "their evidence",
    "slices[].singled_out": "whether it is among those that can be named with 5 % false ones among the named, and rose "
    "more than the other slices of its property together (one-sided, at 5 % divided by the number of those)",
    "slices[].since_change.mean": "the slice's mean loss since the change",
    "slices[].since_change.n": "over how many outcomes",
    "slices[].baseline.mean": "the slice's usual mean loss",
    "slices[].baseline.n": "how many outcomes it rests on",
    "slices[].basis": "where that comes from",
    "comparison.basis": "`concurrent`: outcomes of the same time. `record`: there is no concurrent version, and "
    "the target's outcomes are those of its last time as the live version. Null instead of a comparison if there is "
    "neither",
    "comparison.target": "the version compared with",
    "comparison.role": "`holdback` or `shadow`; `live` with a record: what it was",
    "comparison.evidence": "evidence that the judged version is worse than the target",
    "comparison.threshold": "what that has to reach; with track records, times the number of records compared",
    "comparison.candidate.mean": "the judged version's mean loss since the change",
    "comparison.candidate.n": "over how many outcomes",
    "comparison.target_since_change.mean": "the target's mean loss in the same time, or null; always null with a "
    "record",
    "comparison.target_since_change.n": "over how many outcomes",
    "comparison.record.mean": "with a track record: the target's mean loss on it",
    "comparison.record.n": "over how many outcomes",
    "comparison.record.since_ts": "since when",
    "comparison.record.label_coverage": "the labelled share at its end, or null",
    "comparison.record.today.mean": "the mean loss on record, reweighted to the requests since the change",
    "comparison.record.today.n": "how many outcomes that is worth",
    "comparison.record.today.dimension": "the property of the requests it is reweighted by, or null",
    "comparison.difference": "the judged version's mean minus the target's (with a record, the reweighted one): "
    "how much would be won, as a point estimate",
    "comparison.target_degraded": "whether the target's own detector alarmed",
    "comparison.expected_ts": "when the evidence reaches the threshold if both versions go on like this, in "
    "milliseconds; null if it then does not, or nothing is known of the target since the change; absent once it has",
    "comparison.units.target": "where predictions name units: how many the target answered since the comparison began, "
    "in the alarmed slice if there is one, each outcome without a unit as one; at most 20,000, with a standard error "
    "of 1.4 % at 5,000",
    "comparison.units.candidate": "and how many the judged version did",
    "sources": "how many sources label the model, before an alarm or with a single one; 0 where the loss needs no "
    "label; otherwise as follows",
    "sources.*.share": "the source's share of the labels since the change",
    "sources.*.without.outcomes": "leaving it out: how many outcomes are left",
    "sources.*.without.rise": "how much higher the mean loss is than usual",
    "sources.*.without.evidence": "the evidence of the row that leaves it out",
    "sources.*.without.agrees": "whether the rise shows without it",
    "sources.*.listed": "whether `labels.sources` lists it; absent without such a list: then names are what their "
    "writers declare",
    "sources.*.lead.difference": "leaving it out: how much lower the mean loss of the version compared with is since "
    "the change, or null if nothing is left",
    "sources.*.lead.agrees": "whether at least half of that is left without it",
    "sources.*.target.outcomes": "if the version compared with got worse too: how many of its outcomes are left",
    "sources.*.target.rise": "how much higher its mean loss is than usual",
    "sources.*.target.evidence": "always null: no row leaves it out",
    "sources.*.target.agrees": "whether at least half of its rise is left without the source",
    "mix.dimension": "with a shift of the mix: the property of the requests whose shares changed",
    "mix.value": "and the value that explains most of the rise",
    "unfit.*": "by version: why a version that could be gone back to cannot be served, or not be compared with",
    "fleet.limit": "with `FLEET_LIMIT`: how many rollbacks may be under way",
    "fleet.under_way.*": "and the decision of each other model that is being rolled back, by model",
    "operator.act": "with an operator's act: what was ordered",
    "operator.by": "by whom",
    "operator.reason": "why",
    "operator.override": "whether it overrides a hold or a quarantine",
    "missing": "with `OPERATOR_REFUSED`, and with `QUARANTINED` for want of a digest: what is missing",
    "serving": "with `QUARANTINED` and `DEPLOYED_WHILE_PINNED`: the version that keeps serving",
    "deployed": "and the one that was deployed",
    "together[].sources[]": "with `labels.sources`: names of sources that are left out together",
    "together[].without.outcomes": "how many outcomes are left without them",
    "together[].without.rise": "how much higher the mean loss is than usual, each source measured by its own",
    "together[].without.evidence": "always null: no row leaves them out",
    "together[].without.agrees": "whether at least half of the rise is left without them, or may be at 95 %",
    "detectable.loss": "[what an absence of alarms means](../concepts/healthy.md): for this loss, on all requests",
    "detectable.rise": "the smallest rise of its mean that would have raised the alarm in nine of ten cases, null if "
    "none would",
    "detectable.outcomes": "in so many judged outcomes of this live period",
    "detectable.rise_in_a_day": "the same for the outcomes of a day",
    "detectable.outcomes_in_a_day": "at the rate of the last 24 hours, or since the live period began",
    "learning.missing": "with `LEARNING`: how many more outcomes are needed",
    "learning.expected_ts": "and when they will have been judged at this rate, in milliseconds, or null",
    "classes.answers[]": "where labels are implausible: the classes that were answered most, at most five",
    "classes.truths[]": "and the classes that turned out true most",
    "classes.wrong": "how many answers differ from their truth",
    "classes.outcomes": "of so many outcomes",
    "lost.slice": "with a shift of the label coverage: the slice whose share of labels moved, null if it is an answer",
    "lost.output": "or the class that was answered, null if it is a slice",
    "lost.before.mean": "its share of labels in the first 20 cohorts",
    "lost.before.n": "of so many predictions",
    "lost.now.mean": "its share of labels in the newest ones",
    "lost.now.n": "of so many predictions",
    "holdback.version": "the version that answers a [share](../how-to/holdback.md) next to the one that serves",
    "holdback.share": "its share of the units from this decision on",
    "holdback.until_ts": "until when, in milliseconds; null: for good",
    "holdback.raised_from": "what the share was before it rose",
    "holdback.proposed": "what it becomes once an operator approves",
    "holdback.expected_ts": "by when the comparison is decided with this share, in milliseconds; null if that is not "
    "known yet",
    "implied": "true where no deployment made the version live: its answers did",
}


def decision_rows() -> list[tuple[str, str]]:
    """Return (field, meaning) of a decision, in the order in which they are written."""
    _, definitions = msgspec.json.schema_components([Decision])
    written = list(definitions["Decision"]["properties"])
    assert written == list(FIELDS), set(written) ^ set(FIELDS)
    return list(FIELDS.items())


def evidence_rows() -> list[tuple[str, str, str]]:
    """Return (path, type, meaning) of everything that the evidence of a decision can hold."""
    _, definitions = msgspec.json.schema_components([Decision])
    leaves: dict[str, set[str]] = {}
    _collect(definitions["Evidence"], "", definitions, leaves)
    leaves = {path: kinds for path, kinds in leaves.items() if kinds != {"null"}}
    used, rows = set(), []
    for path, meaning in EVIDENCE.items():
        mine = min((leaf for leaf in leaves if _covers(leaf, path)), key=lambda leaf: leaf.count("*"), default=None)
        assert mine is not None, f"{path} is no part of the evidence"
        used.add(mine)
        rows.append((path, " or ".join(sorted(leaves[mine], key=KINDS.index)), meaning))
    assert used == set(leaves), f"without a meaning: {set(leaves) - used}"
    return rows


KINDS = ["true or false", "integer", "number", "text", "slice", "null"]
PLAIN = {"boolean": "true or false", "integer": "integer", "number": "number", "string": "text", "null": "null"}


def _collect(schema: dict[str, Any], path: str, definitions: dict[str, Any], leaves: dict[str, set[str]]) -> None:
    """Add the kinds of values that a schema allows, by their paths."""
    if "$ref" in schema:
        _collect(definitions[schema["$ref"].rpartition("/")[2]], path, definitions, leaves)
    elif "anyOf" in schema:
        for part in schema["anyOf"]:
            _collect(part, path, definitions, leaves)
    elif path.endswith("slice") and schema["type"] == "object":
        leaves.setdefault(path, set()).add("slice")
    elif schema["type"] == "object":
        inner = dict(schema.get("properties", {}))
        if schema.get("additionalProperties"):
            inner["*"] = schema["additionalProperties"]
        for name, part in inner.items():
            _collect(part, f"{path}.{name}".lstrip("."), definitions, leaves)
    elif schema["type"] == "array":
        _collect(schema["items"], f"{path}[]", definitions, leaves)
    else:
        leaves.setdefault(path, set()).add(PLAIN[schema["type"]])


def _covers(leaf: str, path: str) -> bool:
    """Return whether a path, with names in place of some `*`, is of a leaf.

    >>> _covers("detectors.*.*.alarms", "detectors.adwin.*.alarms"), _covers("detectors.*", "detectors.*.*")
    (True, False)
    """
    return re.fullmatch(re.escape(leaf).replace(r"\*", r"[^.]+"), path) is not None

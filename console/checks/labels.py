"""Turn label delays in the ledger and reject counts into lines of `unship check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from console.checks.installation import Line
from detectors.base import Ints
from streams.config.resolved import Config, ModelConfig
from streams.config.units import rounded_span, span_text
from streams.ledger.entries import read_entry
from streams.ledger.records import Batch, Part
from streams.recordings.lines import Topics
from unship.errors import RecordingError
from unship.rejections import RejectCode

RECORDS = 500
"""Newest records that are read of each ledger partition."""

OUTCOMES_MIN = 100
"""Fewest outcomes of a model for a line on its delays; half as many of right and of wrong answers each."""

NEAR = 0.8
"""Share of the horizon that 99 % of the labels should not exceed: beyond it, others arrive too late."""

APART, APART_MS = 2.0, 1_000
"""Smallest difference of the delays of right and wrong answers that matters: a factor, and milliseconds."""

SHARE = 0.05
"""Largest share of unmatched or late labels without a line."""

MODELS_SHOWN = 10
"""Most models that are named."""


class Delays(msgspec.Struct, frozen=True):
    """Hold the label delays of a model's newest outcomes, in milliseconds: of right answers and of wrong ones."""

    right: list[int]
    wrong: list[int]

    @property
    def all(self) -> Ints:
        """Return all delays."""
        return np.array([*self.right, *self.wrong], np.int64)


def delays_in(topics: Topics) -> dict[str, Delays]:
    """Return the delays of each model in the newest records of the ledger."""
    found: dict[str, Delays] = {}
    for part in _newest(topics):
        delays, rows = found.setdefault(part.model, Delays([], [])), part.outcomes
        # Whatever the first loss is, a value of 0.5 or more counts as a wrong answer.
        wrong = rows.losses[0] >= 0.5
        took = rows.labelled_at - rows.predicted_at
        delays.wrong.extend(took[wrong].tolist())
        delays.right.extend(took[~wrong].tolist())
    return found


def _newest(topics: Topics) -> Iterator[Part]:
    for number in range(topics.partitions("ledger")):
        end = topics.ends().get(("ledger", number), 0)
        offset = max(topics.first("ledger", number), end - RECORDS) if end else 0
        while offset < end and (page := topics.read("ledger", number, offset)):
            offset = page[-1].offset + 1
            for taken in page:
                try:
                    record = read_entry(taken.value).record
                except RecordingError:
                    # An audit finds it; a check goes on.
                    continue
                if isinstance(record, Batch):
                    yield from record.parts


def label_lines(
    config: Config, delays: Mapping[str, Delays], outcomes: Mapping[str, int], rejected: Mapping[str, int]
) -> list[Line]:
    """Return the lines on labels.

    Args:
        config: The configuration in force.
        delays: Of each model's newest outcomes.
        outcomes: How many each model has had.
        rejected: How often each code was counted, of all models.
    """
    lines = _unused(config, sum(outcomes.values()), rejected)
    enough = {name: each for name, each in sorted(delays.items()) if each.all.size >= OUTCOMES_MIN}
    found = [line for name, each in enough.items() for line in _of_model(name, config.of(name), each)]
    lines += found[:MODELS_SHOWN]
    if len(found) > MODELS_SHOWN:
        lines.append(
            Line("warning", "labels", f"and {len(found) - MODELS_SHOWN} more models like these", "see the lines above")
        )
    if not lines and enough:
        seen = np.concatenate([each.all for each in enough.values()])
        text = f"{seen.size:,} newest outcomes of {len(enough)} models: half within {rounded_span(np.median(seen))}"
        lines.append(Line("ok", "labels", f"{text}, 99 % within {rounded_span(np.quantile(seen, 0.99))}"))
    return lines or [Line("ok", "labels", "too few outcomes yet to measure their delay")]


def unseen_lines(unseen: Mapping[str, Sequence[str]]) -> list[Line]:
    """Return a line for each model that gives answers of which no truth ever came, though truths of others do."""
    return [
        Line(
            "warning",
            "labels",
            f"{name}: UNSEEN_OUTCOMES: no truth ever came for answers {', '.join(classes)}, though for others",
            "see that the labels cover these answers too: how good they are is not known",
        )
        for name, classes in sorted(unseen.items())
        if classes
    ][:MODELS_SHOWN]


def _unused(config: Config, joined: int, rejected: Mapping[str, int]) -> list[Line]:
    """Return a line for each reason for which labels go unused."""
    longest = max(model.horizon_ms for model in (config.defaults, *config.models.values()))
    late, alone = rejected.get(RejectCode.LATE_FEEDBACK, 0), rejected.get(RejectCode.UNMATCHED_FEEDBACK, 0)
    unripe = rejected.get(RejectCode.AFTER_MATURITY, 0)
    labels = joined + late + alone + unripe
    lines = []
    if late:
        found = f"{late:,} of {labels:,} arrived after the horizon (at most {span_text(longest)}) and were not used"
        fix = "raise labels.horizon of their models, then: unship topics apply"
        lines.append(Line("warning", "labels", found, fix))
    if alone > SHARE * labels:
        found = f"{alone:,} of {labels:,} matched no prediction"
        fix = "compare the ids of both; labels after the horizon, or more than early too soon, match none either"
        lines.append(Line("warning", "labels", found, fix))
    if unripe > SHARE * labels:
        found = f"{unripe:,} of {labels:,} arrived after mature_after and count in no verdict"
        lines.append(Line("warning", "labels", found, "raise labels.mature_after of their models"))
    return lines


def _of_model(name: str, model: ModelConfig, delays: Delays) -> Iterator[Line]:
    most = float(np.quantile(delays.all, 0.99))
    if most > NEAR * model.horizon_ms:
        horizon = span_text(model.horizon_ms)
        found = f"{name}: 1 % of the labels took {rounded_span(most)} or more, and the horizon is {horizon}"
        fix = f"raise labels.horizon of {name}: labels beyond it are lost, and are not counted here"
        yield Line("warning", "labels", found, fix)
    if model.mature_after_ms:
        return
    found = (
        f"{name}: mature_after is 0s, so outcomes count as labels come: a night that arrives label by label, in a "
        "sorted order, cannot be distinguished from a change"
    )
    if min(len(delays.right), len(delays.wrong)) >= OUTCOMES_MIN // 2:
        right, wrong = float(np.median(delays.right)), float(np.median(delays.wrong))
        if max(right, wrong) >= APART * min(right, wrong) and abs(right - wrong) >= APART_MS:
            found = (
                f"{name}: half of the wrong answers are labelled within {rounded_span(wrong)}, of the right ones "
                f"within {rounded_span(right)}, and mature_after is 0s: the faster kind looks more frequent than it is"
            )
    fix = f"set labels.mature_after of {name}, to {rounded_span(max(most, 1_000.0))} for example"
    yield Line("warning", "labels", found, fix)

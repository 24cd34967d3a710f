"""What the ledger and the counts show of how long labels take, as lines of `unship check`."""

from collections.abc import Iterator, Mapping

import msgspec
import numpy as np

from console.checks.installation import Line
from detectors.base import Ints
from streams.config.resolved import Config, ModelConfig
from streams.config.units import span_text
from streams.ledger.entries import read_entry
from streams.ledger.records import Batch, Part
from streams.recordings.lines import Topics
from unship.errors import RecordingError
from unship.rejections import RejectCode

#: Newest records of each ledger partition that are looked at.
RECORDS = 500
#: Outcomes of a model, and of each kind, below which nothing is said of their delays.
OUTCOMES_MIN = 100
#: Share of the horizon that hardly any label should exceed: beyond that, others come too late.
NEAR = 0.8
#: How much later one kind of outcome comes than the other, as a factor and in milliseconds, before it matters.
APART, APART_MS = 2.0, 1_000
#: Share of labels that come too late, or find nothing, before it is worth a line.
SHARE = 0.05
#: Models that are named; the rest is alike or a matter of the next look.
MODELS_SHOWN = 10


class Delays(msgspec.Struct, frozen=True):
    """How long the labels of a model's newest outcomes took, in milliseconds: of right answers and of wrong ones."""

    right: list[int]
    wrong: list[int]

    @property
    def all(self) -> Ints:
        """Return all of them."""
        return np.array([*self.right, *self.wrong], np.int64)


def delays_in(topics: Topics) -> dict[str, Delays]:
    """Return the delays of each model in the newest records of the ledger."""
    found: dict[str, Delays] = {}
    for part in _newest(topics):
        delays, rows = found.setdefault(part.model, Delays([], [])), part.outcomes
        # Whatever the first loss is, at or above the middle it calls an answer wrong.
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
    """Return what to say of labels.

    Args:
        config: the configuration in force.
        delays: of each model's newest outcomes.
        outcomes: how many each model has had.
        rejected: how often each code was counted, of all models.
    """
    lines = _unused(config, sum(outcomes.values()), rejected)
    enough = {name: each for name, each in sorted(delays.items()) if each.all.size >= OUTCOMES_MIN}
    found = [line for name, each in enough.items() for line in _of_model(name, config.of(name), each)]
    lines += found[:MODELS_SHOWN]
    if len(found) > MODELS_SHOWN:
        lines.append(Line("warning", "labels", f"and {len(found) - MODELS_SHOWN} more of this kind", "see those above"))
    if not lines and enough:
        seen = np.concatenate([each.all for each in enough.values()])
        text = f"{seen.size:,} newest outcomes of {len(enough)} models: half within {_about(np.median(seen))}"
        lines.append(Line("ok", "labels", f"{text}, 99 % within {_about(np.quantile(seen, 0.99))}"))
    return lines or [Line("ok", "labels", "too few outcomes yet to say how long they take")]


def _unused(config: Config, joined: int, rejected: Mapping[str, int]) -> list[Line]:
    """Return a line for each way in which labels miss their predictions."""
    longest = max(model.horizon_ms for model in (config.defaults, *config.models.values()))
    late, alone = rejected.get(RejectCode.LATE_FEEDBACK, 0), rejected.get(RejectCode.UNMATCHED_FEEDBACK, 0)
    unripe = rejected.get(RejectCode.AFTER_MATURITY, 0)
    labels = joined + late + alone + unripe
    lines = []
    if late:
        found = f"{late:,} of {labels:,} came after the horizon ({span_text(longest)} at most), and were not used"
        fix = "raise labels.horizon of the models that they are for, then: unship topics apply"
        lines.append(Line("warning", "labels", found, fix))
    if alone > SHARE * labels:
        found = f"{alone:,} of {labels:,} found no prediction of their id"
        fix = "compare the ids of both sources; labels later than horizon and early, or before early, find none either"
        lines.append(Line("warning", "labels", found, fix))
    if unripe > SHARE * labels:
        found = f"{unripe:,} of {labels:,} came after mature_after, and count in no verdict"
        lines.append(Line("warning", "labels", found, "raise labels.mature_after of the models that they are for"))
    return lines


def _of_model(name: str, model: ModelConfig, delays: Delays) -> Iterator[Line]:
    most = float(np.quantile(delays.all, 0.99))
    if most > NEAR * model.horizon_ms:
        horizon = span_text(model.horizon_ms)
        found = f"{name}: 1 % of the labels took {_about(most)} or more, and the horizon is {horizon}"
        fix = f"raise labels.horizon of {name}: those beyond it are lost, and are not among these"
        yield Line("warning", "labels", found, fix)
    if model.mature_after_ms or min(len(delays.right), len(delays.wrong)) < OUTCOMES_MIN // 2:
        return
    right, wrong = float(np.median(delays.right)), float(np.median(delays.wrong))
    if max(right, wrong) >= APART * min(right, wrong) and abs(right - wrong) >= APART_MS:
        found = (
            f"{name}: half of the wrong answers are labelled within {_about(wrong)}, of the right ones within "
            f"{_about(right)}, and mature_after is 0s: whichever comes sooner looks more frequent than it is"
        )
        yield Line("warning", "labels", found, f"set labels.mature_after of {name}, to {_about(most)} for example")


def _about(milliseconds: float) -> str:
    """Return a duration in words, rounded up to what matters.

    >>> _about(90), _about(1_200), _about(61_000), _about(7_300_000), _about(200_000_000)
    ('90ms', '2s', '2m', '3h', '3d')
    """
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if milliseconds > size:
            return f"{-int(-milliseconds // size)}{unit}"
    return f"{round(milliseconds)}ms"

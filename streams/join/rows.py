"""Convert joined predictions to the columns of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from detectors.base import Bools, Floats, Ints
from streams.config.resolved import ModelConfig
from streams.ledger.places import places_of
from streams.ledger.records import (
    Arm,
    Coded,
    Counted,
    OutcomeRows,
    PairRows,
    Pairs,
    Part,
    PredictionRows,
    UnlabelledRows,
)
from streams.losses.catalogue import loss_columns, unusable, why_unusable
from streams.losses.columns import NOTHING, JoinedColumns, LossSpec
from streams.losses.pairs import PAIRS_MAX, ClassName, class_text, pairs_of
from streams.window.cells import FEW, recoded
from streams.window.join_window import Pair
from streams.window.joined import ANSWER, AT, CELL, LABELLED_AT, LABELLED_BY, POSITION, SOURCE, UNIT, Outcomes, Seen
from streams.window.pending_predictions import PendingPrediction
from streams.window.series import SeriesTable
from streams.window.tally import Row, Tally
from unship.rejections import RejectCode

NONE: Final = np.zeros(0, np.int64)
NOTHING_SEEN: Final = PredictionRows(NONE, NONE, NONE)
NOTHING_COUNTED: Final = Counted(Coded([], NONE), NONE, NONE, NONE)


class ModelJoined(msgspec.Struct):
    """What was joined of one model since the last batch.

    `seen` are the predictions read since then. Where they are judged without a label, they are in `unlabelled` instead,
    and `seen_pairs` are the (live, shadow) answers to one request of which the later one was read since then.
    """

    outcomes: Outcomes | None = None
    seen: Seen | None = None
    pairs: list[Pair] = []
    unlabelled: list[PendingPrediction] = []
    seen_pairs: list[tuple[PendingPrediction, PendingPrediction]] = []


class PartBuilder:
    """Builds the part of one model in a batch; `counted` is what cannot be used."""

    def __init__(self, config: ModelConfig, series: SeriesTable) -> None:
        self.config = config
        self.series = series
        self.counted = Tally()
        self.arms: dict[int, int] = {}
        self._latency = config.latency_losses

    def part(self, model: str, joined: ModelJoined) -> Part:
        """Return the part. Outcomes whose label came after maturity are counted and left out."""
        unlabelled = self._unlabelled(joined.unlabelled, joined.seen_pairs)
        seen = self._seen(joined.seen)
        outcomes = self._outcomes(joined.outcomes)
        pairs = self._matured(joined.pairs)
        return Part(
            model=model,
            outcomes=outcomes,
            seen=seen,
            pairs=self._pairs(pairs) if pairs else None,
            unlabelled=unlabelled,
            # Last, because the columns above number the series.
            arms=[Arm(self.series[code].version, self.series[code].role) for code in self.arms],
        )

    def _seen(self, seen: Seen | None) -> PredictionRows:
        if seen is None:
            return NOTHING_SEEN
        columns, cell = seen.columns, seen.columns[CELL]
        return PredictionRows(
            self._arms(seen.cells.series_of(cell)),
            columns[AT],
            places_of(columns[POSITION]),
            [seen.cells.slice_of(name, cell) for name in self.config.slices_by_seen],
            recoded(columns[ANSWER], seen.answers) if self.config.compares_classes else None,
        )

    def _outcomes(self, joined: Outcomes | None) -> OutcomeRows:
        config = self.config
        joined = None if joined is None else self._mature(joined)
        if joined is None:
            # A part of predictions only: half of them all, where labels come soon.
            return self.no_outcomes()
        cell = joined.columns[CELL]
        series = joined.cells.series_of(cell)
        answers = self._columns(joined, series)
        losses = loss_columns(answers, config.losses, config.kind)
        if self._latency and not config.mature_after_ms:
            # The latency was judged when the prediction was read.
            losses[self._latency] = np.nan
        back = self._taken_back(joined)
        losses[:, back] = 0
        self._count_unusable(joined, answers, losses)
        losses[:, back] = np.nan
        source = recoded(joined.columns[SOURCE], joined.sources)
        return OutcomeRows(
            arm=self._arms(series),
            predicted_at=joined.columns[AT],
            labelled_at=joined.columns[LABELLED_AT],
            position=places_of(joined.columns[POSITION]),
            labelled_by=places_of(joined.columns[LABELLED_BY]),
            losses=losses,
            slices=[joined.cells.slice_of(name, cell) for name in config.slices_by],
            # A label that was taken back is from no source.
            source=Coded(source.values, np.where(back, -1, source.codes)) if back.any() else source,
            classes=self._classes(joined),
            unit=given(joined.columns[UNIT]),
        )

    def _taken_back(self, joined: Outcomes) -> Bools:
        """Return which rows are of a label that was taken back: those with nothing that would be a label."""
        if not self.config.revises:
            return np.zeros(joined.columns.shape[1], np.bool_)
        back: Bools = joined.truth.kinds == NOTHING
        if joined.more is not None:
            back &= np.array([engagement is None for _, engagement, _ in joined.more.tolist()], np.bool_)
        return back

    def no_outcomes(self) -> OutcomeRows:
        """Return what a part without an outcome has."""
        slices, losses = [Coded([], NONE) for _ in self.config.slices_by], np.zeros((len(self.config.losses), 0))
        return OutcomeRows(NONE, NONE, NONE, NONE, NONE, losses, slices, Coded([], NONE))

    def _classes(self, joined: Outcomes) -> Pairs | None:
        if not self.config.compares_classes:
            return None
        codes, pairs = pairs_of(joined.output, joined.truth, self.config.kind)
        some = recoded(codes, range(len(pairs)))
        return limited(some.codes, [pairs[int(number)] for number in some.values])

    def losses_of(self, joined: Outcomes, series: Ints) -> Floats:
        """Return the losses of outcomes, of a model that needs a label for each of them."""
        return loss_columns(self._columns(joined, series), self.config.losses, self.config.kind)

    def _arms(self, series: Ints) -> Ints:
        """Return the numbers of arms, given by first appearance."""
        if series.size <= FEW:
            return _ints([self._arm(code) for code in series.tolist()])
        found, first, inverse = np.unique(series, return_index=True, return_inverse=True)
        numbers = np.empty(found.size, np.int64)
        for place in np.argsort(first).tolist():
            numbers[place] = self._arm(int(found[place]))
        return numbers[inverse]

    def _arm(self, code: int) -> int:
        return self.arms.setdefault(code, len(self.arms))

    def _mature(self, joined: Outcomes) -> Outcomes | None:
        maturity = self.config.mature_after_ms
        if not maturity:
            return joined
        late = joined.columns[LABELLED_AT] - joined.columns[AT] > maturity
        if not late.any():
            return joined
        for position, labelled_by in joined.columns[[POSITION, LABELLED_BY]][:, late].T.tolist():
            self.counted.add(RejectCode.AFTER_MATURITY, (position, labelled_by))
        return None if late.all() else joined.part(~late)

    def _losses(self, pending: Sequence[PendingPrediction]) -> Floats:
        losses = loss_columns(self._columns_of(pending), self.config.losses, self.config.kind)
        if self._latency and not self.config.mature_after_ms:
            losses[self._latency] = np.nan
        return losses

    def _losses_unlabelled(self, pending: Sequence[PendingPrediction]) -> Floats:
        """Return the losses that the predictions have without a label."""
        config, nothing, latencies = self.config, [None] * len(pending), [h.latency_ms for h in pending]
        if config.negative:
            outputs, scores, class_scores = (
                [h.output for h in pending],
                [h.score for h in pending],
                [h.scores for h in pending],
            )
            truths = [0] * len(pending) if config.kind == "binary" else nothing
            answers = JoinedColumns(outputs, scores, class_scores, truths, nothing, latencies)
            losses = loss_columns(answers, config.losses, config.kind)
            for number, spec in enumerate(config.losses):
                if spec.of_use:
                    losses[number] = self._unused(pending, spec)
            return losses
        losses = np.full((len(config.losses), len(pending)), np.nan)
        specs = [config.losses[number] for number in self._latency]
        losses[self._latency] = loss_columns(
            JoinedColumns(nothing, nothing, nothing, nothing, (), latencies), specs, config.kind
        )
        return losses

    def _unused(self, pending: Sequence[PendingPrediction], spec: LossSpec) -> Floats:
        """Return the loss of answers that nobody used; NaN where nobody could."""
        if spec.of_engagement:
            # A shadow's answer is not shown to users.
            usable = [self.series[each.series].role != "shadow" for each in pending]
        else:
            usable = [isinstance(each.output, list) for each in pending]
        return np.where(usable, 1.0, np.nan)

    def _columns_of(self, pending: Sequence[PendingPrediction]) -> JoinedColumns:
        return JoinedColumns(
            [h.output for h in pending],
            [h.score for h in pending],
            [h.scores for h in pending],
            [h.truth for h in pending],
            # A shadow's answer is not shown to users, so the engagement is that of another answer.
            [None if self.series[h.series].role == "shadow" else h.engagement for h in pending],
            [h.latency_ms for h in pending] if self._latency else (),
        )

    def _columns(self, joined: Outcomes, series: Ints) -> JoinedColumns:
        """Return what the losses are of."""
        size = series.size
        if joined.more is None:
            nothing = [None] * size
            return JoinedColumns(joined.output, joined.score, nothing, joined.truth, nothing, nothing)
        scores, engagements, latencies = zip(*joined.more.tolist(), strict=True)
        shadow = [self.series[code].role == "shadow" for code in series.tolist()]
        # A shadow's answer is not shown to users, so the engagement is that of another answer.
        shown = [None if hidden else used for hidden, used in zip(shadow, engagements, strict=True)]
        return JoinedColumns(joined.output, joined.score, scores, joined.truth, shown, latencies)

    def _count_unusable(self, joined: Outcomes, columns: JoinedColumns, losses: Floats) -> None:
        if not np.isnan(losses).any():
            return
        for spec, column in zip(self.config.losses, losses, strict=True):
            if spec.of_latency:
                # `_unlabelled` counts it, once for each prediction.
                continue
            for place in np.flatnonzero(unusable(columns, spec, column)).tolist():
                position, labelled_by = joined.columns[[POSITION, LABELLED_BY], place].tolist()
                code = why_unusable(columns.outputs[place], spec, self.config.kind)
                self.counted.add(code, (position, labelled_by))

    def _slices(self, pending: Sequence[PendingPrediction]) -> list[Coded]:
        return [coded([entry.slices[i] for entry in pending]) for i in range(len(self.config.slices_by))]

    def _answers(self, seen: Sequence[PendingPrediction]) -> Coded | None:
        if not self.config.compares_classes:
            return None
        return coded([class_text(entry.output, self.config.kind) for entry in seen])

    def _matured(self, pairs: list[Pair]) -> list[Pair]:
        maturity = self.config.mature_after_ms
        if maturity:
            pairs = [pair for pair in pairs if pair.labelled_at - min(pair.live.at, pair.shadow.at) <= maturity]
        return pairs

    def _pairs(self, pairs: Sequence[Pair]) -> PairRows:
        live, shadow = [pair.live for pair in pairs], [pair.shadow for pair in pairs]
        labelled_by = _places([entry.labelled_by for entry in live])
        return self._pair_rows(live, shadow, self._losses(live) - self._losses(shadow), labelled_by)

    def _pair_rows(
        self,
        live: Sequence[PendingPrediction],
        shadow: Sequence[PendingPrediction],
        excess: Floats,
        labelled_by: Ints,
    ) -> PairRows:
        return PairRows(
            shadow=_ints([self._arm(entry.series) for entry in shadow]),
            live=_ints([self._arm(entry.series) for entry in live]),
            predicted_at=_ints([entry.at for entry in live]),
            position=_places([entry.position for entry in live]),
            later=_places([max(a.position, b.position) for a, b in zip(live, shadow, strict=True)]),
            labelled_by=labelled_by,
            excess=excess,
            slices=self._slices(live),
        )

    def _unlabelled(
        self, seen: Sequence[PendingPrediction], pairs: Sequence[tuple[PendingPrediction, PendingPrediction]]
    ) -> UnlabelledRows | None:
        """Return the new predictions as they are judged without a label, None if the model judges none."""
        if not self.config.judges_unlabelled or not seen:
            return None
        losses = self._losses_unlabelled(seen)
        for place in np.flatnonzero(np.isnan(losses[self._latency]).any(axis=0)).tolist():
            self.counted.add(RejectCode.MISSING_LATENCY, (seen[place].position, -1))
        live, shadow = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        excess = self._losses_unlabelled(live) - self._losses_unlabelled(shadow)
        without = np.full(len(pairs), -1, np.int64)
        return UnlabelledRows(
            arm=_ints([self._arm(entry.series) for entry in seen]),
            predicted_at=_ints([entry.at for entry in seen]),
            position=_places([entry.position for entry in seen]),
            losses=losses,
            slices=self._slices(seen),
            pairs=self._pair_rows(live, shadow, excess, without) if pairs else None,
            answer=self._answers(seen),
            unit=given(_ints([entry.unit for entry in seen])),
        )


def given(units: Ints) -> Ints | UnsetType:
    """Return a column of units, absent where there is none."""
    return units if np.count_nonzero(units) else UNSET


def coded(values: Iterable[Any]) -> Coded:
    """Return values coded by their first occurrence; None becomes -1.

    >>> coded(["a", None, "b", "a"]).codes.tolist()
    [0, -1, 1, 0]
    """
    lookup: dict[Any, int] = {}
    codes = []
    for value in values:
        # True equals 1 in a dict, but they are two values of a slice.
        key = (value,) if value is True or value is False else value
        codes.append(-1 if value is None else lookup.setdefault(key, len(lookup)))
    return Coded([key[0] if isinstance(key, tuple) else key for key in lookup], _ints(codes))


def limited(codes: Ints, pairs: list[tuple[ClassName, ClassName]]) -> Pairs:
    """Return a column of classes with the first pairs that may be named."""
    if len(pairs) <= PAIRS_MAX:
        return Pairs(pairs, codes)
    return Pairs(pairs[:PAIRS_MAX], np.where(codes < PAIRS_MAX, codes, -1))


def counted_rows(rows: Sequence[Row]) -> Counted:
    """Return changes of counts as columns."""
    if not rows:
        return NOTHING_COUNTED
    return Counted(coded([row[0] for row in rows]), *(np.array([row[i] for row in rows], np.int64) for i in (1, 2, 3)))


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)


def _places(positions: Sequence[int]) -> Ints:
    return places_of(_ints(positions))

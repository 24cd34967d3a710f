"""Convert joined predictions to the columns of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from detectors.base import Floats, Ints
from streams.config.resolved import ModelConfig
from streams.join.series import SeriesTable
from streams.join.tally import Row, Tally
from streams.join.window import Outcome, Pair, PendingPrediction
from streams.ledger.records import Arm, Coded, Counted, OutcomeRows, PairRows, Part, PredictionRows, UnlabelledRows
from streams.losses.catalogue import loss_columns, unusable
from streams.losses.columns import JoinedColumns
from unship.rejections import RejectCode


class ModelJoined(msgspec.Struct):
    """What was joined of one model since the last batch.

    `seen` are the predictions read since then, and `seen_pairs` the (live, shadow) answers to one request of which the
    later one was read since then.
    """

    outcomes: list[Outcome]
    pairs: list[Pair]
    seen: list[PendingPrediction]
    seen_pairs: list[tuple[PendingPrediction, PendingPrediction]]


class PartBuilder:
    """Builds the part of one model in a batch; what cannot be used is counted in `tally`."""

    def __init__(self, config: ModelConfig, series: SeriesTable, tally: Tally) -> None:
        self.config = config
        self.series = series
        self.tally = tally
        self.arms: dict[int, int] = {}
        self._latency = config.latency_losses

    def part(self, model: str, joined: ModelJoined) -> Part:
        """Return the part. Outcomes whose label came after maturity are counted and left out."""
        unlabelled = self._unlabelled(joined.seen, joined.seen_pairs)
        seen = joined.seen if unlabelled is None else []
        arms = _ints([self._arm(entry.series) for entry in seen])
        outcomes = self._outcomes(self._mature(joined.outcomes))
        pairs = self._matured(joined.pairs)
        return Part(
            model=model,
            outcomes=outcomes,
            seen=PredictionRows(arms, _ints([entry.at for entry in seen]), _ints([entry.position for entry in seen])),
            pairs=self._pairs(pairs) if pairs else None,
            unlabelled=unlabelled,
            # Last, because the columns above number the series.
            arms=[Arm(self.series[code].version, self.series[code].role) for code in self.arms],
        )

    def _outcomes(self, joined: Sequence[Outcome]) -> OutcomeRows:
        pending = [outcome.prediction for outcome in joined]
        losses = self._losses(pending)
        self._count_unusable(pending, losses)
        return OutcomeRows(
            arm=_ints([self._arm(entry.series) for entry in pending]),
            predicted_at=_ints([entry.at for entry in pending]),
            labelled_at=_ints([outcome.labelled_at for outcome in joined]),
            position=_ints([entry.position for entry in pending]),
            labelled_by=_ints([entry.labelled_by for entry in pending]),
            losses=losses,
            slices=self._slices(pending),
            source=coded([outcome.source for outcome in joined]),
        )

    def _arm(self, code: int) -> int:
        return self.arms.setdefault(code, len(self.arms))

    def _mature(self, joined: list[Outcome]) -> list[Outcome]:
        maturity = self.config.mature_after_ms
        if not maturity:
            return joined
        late = [outcome.prediction for outcome in joined if outcome.labelled_at - outcome.prediction.at > maturity]
        for pending in late:
            self.tally.add(RejectCode.AFTER_MATURITY, (pending.position, pending.labelled_by))
        if late:
            joined = [outcome for outcome in joined if outcome.labelled_at - outcome.prediction.at <= maturity]
        return joined

    def _losses(self, pending: Sequence[PendingPrediction]) -> Floats:
        if not pending:
            # A part of predictions only: half of them all, where labels come soon.
            return np.zeros((len(self.config.losses), 0))
        losses = loss_columns(self._columns(pending), self.config.losses, self.config.kind)
        if self._latency and not self.config.mature_after_ms:
            # The latency was judged when the prediction was read.
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
            answers = JoinedColumns(outputs, scores, class_scores, [0] * len(pending), nothing, latencies)
            return loss_columns(answers, config.losses, config.kind)
        losses = np.full((len(config.losses), len(pending)), np.nan)
        specs = [config.losses[number] for number in self._latency]
        losses[self._latency] = loss_columns(
            JoinedColumns(nothing, nothing, nothing, nothing, (), latencies), specs, config.kind
        )
        return losses

    def _columns(self, pending: Sequence[PendingPrediction]) -> JoinedColumns:
        return JoinedColumns(
            [h.output for h in pending],
            [h.score for h in pending],
            [h.scores for h in pending],
            [h.truth for h in pending],
            # A shadow's answer is not shown to users, so the engagement is that of another answer.
            [None if self.series[h.series].role == "shadow" else h.engagement for h in pending],
            [h.latency_ms for h in pending] if self._latency else (),
        )

    def _count_unusable(self, pending: Sequence[PendingPrediction], losses: Floats) -> None:
        if not np.isnan(losses).any():
            return
        columns = self._columns(pending)
        for spec, column in zip(self.config.losses, losses, strict=True):
            if spec.of_latency:
                # `_unlabelled` counts it, once for each prediction.
                continue
            code = RejectCode.MISSING_SCORE if spec.of_scores else RejectCode.UNUSABLE_TRUTH
            for place in np.flatnonzero(unusable(columns, spec, column)).tolist():
                self.tally.add(code, (pending[place].position, pending[place].labelled_by))

    def _slices(self, pending: Sequence[PendingPrediction]) -> list[Coded]:
        return [coded([entry.slices[i] for entry in pending]) for i in range(len(self.config.slices_by))]

    def _matured(self, pairs: list[Pair]) -> list[Pair]:
        maturity = self.config.mature_after_ms
        if maturity:
            pairs = [pair for pair in pairs if pair.labelled_at - min(pair.live.at, pair.shadow.at) <= maturity]
        return pairs

    def _pairs(self, pairs: Sequence[Pair]) -> PairRows:
        live, shadow = [pair.live for pair in pairs], [pair.shadow for pair in pairs]
        labelled_by = _ints([entry.labelled_by for entry in live])
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
            position=_ints([entry.position for entry in live]),
            later=np.maximum(_ints([entry.position for entry in live]), _ints([entry.position for entry in shadow])),
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
            self.tally.add(RejectCode.MISSING_LATENCY, (seen[place].position, -1))
        live, shadow = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        excess = self._losses_unlabelled(live) - self._losses_unlabelled(shadow)
        without = np.full(len(pairs), -1, np.int64)
        return UnlabelledRows(
            arm=_ints([self._arm(entry.series) for entry in seen]),
            predicted_at=_ints([entry.at for entry in seen]),
            position=_ints([entry.position for entry in seen]),
            losses=losses,
            slices=self._slices(seen),
            pairs=self._pair_rows(live, shadow, excess, without) if pairs else None,
        )


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


def counted_rows(rows: Sequence[Row]) -> Counted:
    """Return changes of counts as columns."""
    return Counted(coded([row[0] for row in rows]), *(np.array([row[i] for row in rows], np.int64) for i in (1, 2, 3)))


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)

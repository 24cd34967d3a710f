"""From joined pairs to the columns of a ledger record."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from streams.config import ModelConfig
from streams.join import Held, Outcome, Pair, Series
from streams.loss_specs import loss_columns, unusable
from streams.losses import Pairs
from streams.records import Arm, Coded, Floats, Ints, Outcomes, PairColumns, Unlabelled
from unship.rejections import RejectCode


class RecordBuilder:
    """Builds the record of one model from what one cut joined; what cannot be used is counted in `counts`."""

    def __init__(self, config: ModelConfig, series: Sequence[Series], counts: Counter[str]) -> None:
        self.config = config
        self.series = series
        self.counts = counts
        self.arms: dict[int, int] = {}
        self._latency = config.latency_losses

    def record(
        self,
        model: str,
        clock: int,
        lines: tuple[int, int],
        digest: str,
        joined: list[Outcome],
        pairs: list[Pair],
        predictions: list[tuple[int, int, int]],
        unlabelled: Sequence[Held] = (),
        unlabelled_pairs: Sequence[tuple[Held, Held]] = (),
    ) -> Outcomes:
        """Return the record. Outcomes that came after maturity are counted in it instead of carried.

        `unlabelled` are the predictions first read here, and `unlabelled_pairs` the (live, shadow) answers to one
        request of which the later was, if the model judges predictions without a label.
        """
        counted = [(self._arm(code), cohort, count) for code, cohort, count in predictions]
        joined, late = self._mature(joined)
        held = [outcome.held for outcome in joined]
        losses = self._losses(held)
        self._count_unusable(held, losses)
        return Outcomes(
            model=model,
            clock=clock,
            lines=lines,
            source_digest=digest,
            arm=_ints([self._arm(entry.series) for entry in held]),
            predicted_at=_ints([entry.at for entry in held]),
            labelled_at=_ints([outcome.labelled_at for outcome in joined]),
            position=_ints([entry.position for entry in held]),
            losses=losses,
            slices=self._slices(held),
            source=coded([outcome.source for outcome in joined]),
            predictions=counted,
            late=late,
            pairs=self._pairs(pairs) if pairs else None,
            unlabelled=self._unlabelled(unlabelled, unlabelled_pairs) if unlabelled else None,
            # Last, when every series that occurs has its number.
            arms=[Arm(self.series[code].version, self.series[code].role) for code in self.arms],
        )

    def _arm(self, code: int) -> int:
        return self.arms.setdefault(code, len(self.arms))

    def _mature(self, joined: list[Outcome]) -> tuple[list[Outcome], list[tuple[int, int]]]:
        maturity = self.config.mature_after_ms
        late: Counter[int] = Counter()
        if maturity:
            for outcome in joined:
                if outcome.labelled_at - outcome.held.at > maturity:
                    late[self._arm(outcome.held.series)] += 1
            if late:
                joined = [outcome for outcome in joined if outcome.labelled_at - outcome.held.at <= maturity]
                self.counts[RejectCode.AFTER_MATURITY] += late.total()
        return joined, sorted(late.items())

    def _losses(self, held: Sequence[Held]) -> Floats:
        losses = loss_columns(self._columns(held), self.config.losses, self.config.kind)
        if self._latency and not self.config.mature_after_ms:
            # It was judged already, when the prediction arrived.
            losses[self._latency] = np.nan
        return losses

    def _losses_unlabelled(self, held: Sequence[Held]) -> Floats:
        """Return the losses that the predictions have without a label."""
        size = len(held)
        config, latencies = self.config, [h.latency_ms for h in held]
        if config.negative:
            columns = Pairs(
                [h.output for h in held],
                [h.score for h in held],
                [h.scores for h in held],
                [0] * size,
                [None] * size,
                latencies,
            )
            return loss_columns(columns, config.losses, config.kind)
        nothing = [None] * size
        losses = np.full((len(config.losses), size), np.nan)
        specs = [config.losses[number] for number in self._latency]
        losses[self._latency] = loss_columns(Pairs(nothing, nothing, nothing, nothing, (), latencies), specs, config.kind)
        return losses

    def _columns(self, held: Sequence[Held]) -> Pairs:
        return Pairs(
            [h.output for h in held],
            [h.score for h in held],
            [h.scores for h in held],
            [h.truth for h in held],
            # Nobody saw a shadow's answer, so its use is that of another answer.
            [None if self.series[h.series].role == "shadow" else h.engagement for h in held],
            [h.latency_ms for h in held] if self._latency else (),
        )

    def _count_unusable(self, held: Sequence[Held], losses: Floats) -> None:
        if not np.isnan(losses).any():
            return
        columns = self._columns(held)
        for spec, column in zip(self.config.losses, losses, strict=True):
            if spec.of_latency:
                # That is counted once for each prediction, whether its label comes or not.
                continue
            code = RejectCode.MISSING_SCORE if spec.of_scores else RejectCode.UNUSABLE_TRUTH
            if count := unusable(columns, spec, column):
                self.counts[code] += count

    def _slices(self, held: Sequence[Held]) -> list[Coded]:
        return [coded([entry.slices[i] for entry in held]) for i in range(len(self.config.slices_by))]

    def _pairs(self, pairs: Sequence[Pair]) -> PairColumns:
        maturity = self.config.mature_after_ms
        if maturity:
            pairs = [pair for pair in pairs if pair.labelled_at - min(pair.live.at, pair.shadow.at) <= maturity]
        live, shadow = [pair.live for pair in pairs], [pair.shadow for pair in pairs]
        return self._pair_columns(live, shadow, self._losses(live) - self._losses(shadow))

    def _unlabelled(self, held: Sequence[Held], pairs: Sequence[tuple[Held, Held]]) -> Unlabelled:
        losses = self._losses_unlabelled(held)
        if missing := int(np.isnan(losses[self._latency]).sum()):
            self.counts[RejectCode.MISSING_LATENCY] += missing
        return Unlabelled(
            arm=_ints([self._arm(entry.series) for entry in held]),
            predicted_at=_ints([entry.at for entry in held]),
            position=_ints([entry.position for entry in held]),
            losses=losses,
            slices=self._slices(held),
            pairs=self._unlabelled_pairs(pairs) if pairs else None,
        )

    def _unlabelled_pairs(self, pairs: Sequence[tuple[Held, Held]]) -> PairColumns:
        live, shadow = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return self._pair_columns(live, shadow, self._losses_unlabelled(live) - self._losses_unlabelled(shadow))

    def _pair_columns(self, live: Sequence[Held], shadow: Sequence[Held], excess: Floats) -> PairColumns:
        return PairColumns(
            shadow=_ints([self._arm(entry.series) for entry in shadow]),
            live=_ints([self._arm(entry.series) for entry in live]),
            predicted_at=_ints([entry.at for entry in live]),
            position=_ints([entry.position for entry in live]),
            excess=excess,
            slices=self._slices(live),
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


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)

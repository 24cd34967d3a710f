"""From joined pairs to the columns of a ledger record."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from detectors.base import Floats, Ints
from streams.config.resolved import ModelConfig
from streams.join.tally import Tally
from streams.join.window import Held, Outcome, Pair, Series
from streams.ledger.records import Arm, Coded, Outcomes, PairColumns, Part, Seen, Unlabelled
from streams.losses.catalogue import loss_columns, unusable
from streams.losses.columns import Pairs
from unship.rejections import RejectCode


class RecordBuilder:
    """Builds the record of one model from what one cut joined; what cannot be used is counted in `counts`."""

    def __init__(self, config: ModelConfig, series: Sequence[Series], counts: Tally) -> None:
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
        seen: list[Held],
        seen_pairs: list[tuple[Held, Held]],
    ) -> Outcomes:
        """Return the record. Outcomes that came after maturity are counted in it instead of carried.

        `seen` are the predictions first read here, and `seen_pairs` the (live, shadow) answers to one request of which
        the later one was.
        """
        width = self.config.cohort_ms if self.config.mature_after_ms else 0
        cohorts = Counter((held.series, held.at // width if width else 0) for held in seen)
        predictions = [(self._arm(code), cohort, count) for (code, cohort), count in cohorts.items()]
        joined, late = self._mature(joined)
        unlabelled = self._unlabelled(seen, seen_pairs)
        return self._outcomes(model, clock, lines, digest, joined, self._matured(pairs), predictions, late, unlabelled)

    def part(
        self,
        model: str,
        clock: int,
        joined: list[Outcome],
        pairs: list[Pair],
        seen: list[Held],
        seen_pairs: list[tuple[Held, Held]],
    ) -> Part:
        """Return the part of a batch, every row with the places it comes from; arguments as in `record`."""
        unlabelled = self._unlabelled(seen, seen_pairs)
        if unlabelled is not None:
            seen = []
        arms = [self._arm(held.series) for held in seen]
        joined, _ = self._mature(joined)
        pairs = self._matured(pairs)
        return Part(
            outcomes=self._outcomes(model, clock, (0, -1), "", joined, pairs, [], [], unlabelled),
            answered=_ints([outcome.held.answered for outcome in joined]),
            pair_predictions=_ints([max(pair.live.position, pair.shadow.position) for pair in pairs]),
            pair_answered=_ints([pair.live.answered for pair in pairs]),
            seen=Seen(_ints(arms), _ints([held.at for held in seen]), _ints([held.position for held in seen])),
            pair_seen=_ints([max(live.position, shadow.position) for live, shadow in seen_pairs]),
        )

    def _outcomes(
        self,
        model: str,
        clock: int,
        lines: tuple[int, int],
        digest: str,
        joined: Sequence[Outcome],
        pairs: Sequence[Pair],
        predictions: list[tuple[int, int, int]],
        late: list[tuple[int, int]],
        unlabelled: Unlabelled | None,
    ) -> Outcomes:
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
            predictions=predictions,
            late=late,
            pairs=self._pairs(pairs) if pairs else None,
            unlabelled=unlabelled,
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
                    self._count(RejectCode.AFTER_MATURITY, outcome.held)
            if late:
                joined = [outcome for outcome in joined if outcome.labelled_at - outcome.held.at <= maturity]
        return joined, sorted(late.items())

    def _losses(self, held: Sequence[Held]) -> Floats:
        if not held:
            # A part that only tells of predictions: half of them all, where labels come soon.
            return np.zeros((len(self.config.losses), 0))
        losses = loss_columns(self._columns(held), self.config.losses, self.config.kind)
        if self._latency and not self.config.mature_after_ms:
            # It was judged already, when the prediction arrived.
            losses[self._latency] = np.nan
        return losses

    def _losses_unlabelled(self, held: Sequence[Held]) -> Floats:
        """Return the losses that the predictions have without a label."""
        config, nothing, latencies = self.config, [None] * len(held), [h.latency_ms for h in held]
        if config.negative:
            outputs, scores, class_scores = [h.output for h in held], [h.score for h in held], [h.scores for h in held]
            answers = Pairs(outputs, scores, class_scores, [0] * len(held), nothing, latencies)
            return loss_columns(answers, config.losses, config.kind)
        losses = np.full((len(config.losses), len(held)), np.nan)
        specs = [config.losses[number] for number in self._latency]
        losses[self._latency] = loss_columns(
            Pairs(nothing, nothing, nothing, nothing, (), latencies), specs, config.kind
        )
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
            for place in np.flatnonzero(unusable(columns, spec, column)).tolist():
                self._count(code, held[place])

    def _count(self, code: RejectCode, held: Held) -> None:
        self.counts.place = (held.position, held.answered)
        self.counts[code] += 1

    def _slices(self, held: Sequence[Held]) -> list[Coded]:
        return [coded([entry.slices[i] for entry in held]) for i in range(len(self.config.slices_by))]

    def _matured(self, pairs: list[Pair]) -> list[Pair]:
        maturity = self.config.mature_after_ms
        if maturity:
            pairs = [pair for pair in pairs if pair.labelled_at - min(pair.live.at, pair.shadow.at) <= maturity]
        return pairs

    def _pairs(self, pairs: Sequence[Pair]) -> PairColumns:
        live, shadow = [pair.live for pair in pairs], [pair.shadow for pair in pairs]
        return self._pair_columns(live, shadow, self._losses(live) - self._losses(shadow))

    def _pair_columns(self, live: Sequence[Held], shadow: Sequence[Held], excess: Floats) -> PairColumns:
        return PairColumns(
            shadow=_ints([self._arm(entry.series) for entry in shadow]),
            live=_ints([self._arm(entry.series) for entry in live]),
            predicted_at=_ints([entry.at for entry in live]),
            position=_ints([entry.position for entry in live]),
            excess=excess,
            slices=self._slices(live),
        )

    def _unlabelled(self, seen: Sequence[Held], pairs: Sequence[tuple[Held, Held]]) -> Unlabelled | None:
        """Return the predictions first read here as they are judged without a label, None if this model does not."""
        if not self.config.judges_unlabelled or not seen:
            return None
        losses = self._losses_unlabelled(seen)
        for place in np.flatnonzero(np.isnan(losses[self._latency]).any(axis=0)).tolist():
            self.counts.place = (seen[place].position, -1)
            self.counts[RejectCode.MISSING_LATENCY] += 1
        live, shadow = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        excess = self._losses_unlabelled(live) - self._losses_unlabelled(shadow)
        return Unlabelled(
            arm=_ints([self._arm(entry.series) for entry in seen]),
            predicted_at=_ints([entry.at for entry in seen]),
            position=_ints([entry.position for entry in seen]),
            losses=losses,
            slices=self._slices(seen),
            pairs=self._pair_columns(live, shadow, excess) if pairs else None,
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

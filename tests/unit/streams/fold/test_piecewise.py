"""What a driver writes of a fold model by model is what it would write at once."""

from __future__ import annotations

import msgspec

from streams.fold.status import fold_status, model_status
from streams.ledger.encoding import pack
from tests.pipelines import Run
from tests.plans import EVERYTHING, config_of, events_of
from unship.codec import encode_line


def test_snapshot_and_status_that_were_written_model_by_model_are_the_same_bytes() -> None:
    run = Run(config_of(EVERYTHING))
    run.take(encode_line(event) for _, event in events_of(EVERYTHING))
    run.rest()
    fold = run.fold
    assert fold.models
    saved = {name: msgspec.Raw(pack(model.save())) for name, model in fold.models.items()}
    assert pack(fold.save_with(saved)) == pack(fold.save())
    models = {name: model_status(model, fold.clock) for name, model in sorted(fold.models.items())}
    assert fold_status(fold, models=models) == fold_status(fold)

"""Show the status over HTTP, in the shape that `unship status --json` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from console.status_lines import replicas_shown
from console.web.board import Board
from streams.fold.status import ModelStatus


def status_shown(board: Board, lag: Mapping[str, int], wanted: str | None = None) -> dict[str, Any]:
    """Return the status as JSON has it, of all models or of one; no replica is shown that the monitor has not read."""
    status = board.status
    models = {name: _model(each) for name, each in status.models.items() if wanted in (None, name)}
    firing = [each for each in board.firing.values() if wanted in (None, each.model)]
    return {
        "models": models,
        "rejected": status.rejected,
        "halted": status.halted,
        "unread": status.unread,
        "incidents": firing,
        "monitor": {"seen_ts": board.seen_ts, "lag": dict(lag), "clock": status.clock},
    }


def _model(model: ModelStatus) -> dict[str, Any]:
    replicas = replicas_shown(model.replicas, model.left)
    return {**msgspec.to_builtins(model), "replicas": replicas, "lagging": model.lagging(model.replicas)}

"""What the topics of a monitor show, for tests of its web: status records, decisions and alerts."""

from __future__ import annotations

from typing import Any

import msgspec

from actions.evidence_tree import Evidence
from actions.incidents import Alert, Status, alert_bytes
from actions.journal import Decision, decision_bytes
from actions.reasons import Action, Reason
from actions.replicas import Acked, Replica
from console.web.board import Board, Seen
from streams.fold import status
from streams.fold.status import ModelStatus
from streams.fold.status_records import HeadRecord, encode_model
from tests.decisions import decision as made

T0 = 1_700_000_000_000


def decision(reason: Reason, version: str = "v2", action: Action | None = None, ts: int = 100) -> Decision:
    return made(
        Evidence(), reason=reason, verdict=reason.verdict, action=action or reason.action, version=version, ts=ts,
        id=f"d-{ts}",
    )  # fmt: skip


def model(state: str = "HEALTHY", **changes: Any) -> ModelStatus:
    given: dict[str, Any] = {
        "state": state, "desired": "v2", "epoch": (0, 5, 0), "outcomes": {"v1": 900, "v2": 700}, "label_coverage": 0.5,
        "evidence": 0.25, "quarantine": [], "commanded": True,
        "replicas": {"r1": Replica(Acked("v2", "serving", (0, 5, 0), 50, 90))},
    }  # fmt: skip
    return ModelStatus(**(given | changes))


def status_records(models: dict[str, ModelStatus], ts: int = T0, seen: status.Seen | None = None) -> list[Seen]:
    found = [
        Seen("snapshots", ts, f"status/0/{name}".encode(), encode_model(each, 0), ()) for name, each in models.items()
    ]
    head = msgspec.json.encode(HeadRecord(T0, {"BAD_JSON": 3}, 0, seen=seen))
    return [*found, Seen("snapshots", ts, b"status/0", head, ())]


def journal(*decisions: Decision) -> list[Seen]:
    return [Seen("decisions", T0, each.model.encode(), decision_bytes(each), ()) for each in decisions]


def alerts(*given: tuple[str, Status, int]) -> list[Seen]:
    found = [
        Alert(
            incident=name, status=status, severity="page", model="m", version="v2", reason="TARGET_BETTER", summary="s",
            decision="d", started_ts=T0, ts=T0 + ms, action="rollback", to="v1",
        )
        for name, status, ms in given
    ]  # fmt: skip
    return [Seen("alerts", T0, each.incident.encode(), alert_bytes(each), ()) for each in found]


def board(*records: list[Seen]) -> Board:
    found = Board(lambda: None)
    for part in records or (status_records({"m": model()}),):
        for record in part:
            found.take(record)
    return found

"""What the web shows follows from the topics; it changes nothing, and lets in whom it should."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp import ClientSession, web
from prometheus_client.parser import text_string_to_metric_families

from actions.journal import decision_bytes
from actions.reasons import Reason
from actions.replicas import Acked, Replica
from console.web.board import CONVERGENCE_BUCKETS_S, DECISIONS_MAX, Board, Seen
from console.web.metrics import MODELS_MAX, VERSIONS_MAX, exposition, registry_of
from console.web.server import Pages, guard
from console.web.verdict import STALE_MS, verdict_on
from console.web.vitals import Vitals
from streams.config.parse import parse
from streams.fold.status import Seen as StatusSeen
from tests.keys import SIGNER, TRUST
from tests.shown.boards import T0, alerts, board, decision, journal, model, status_records
from tests.waiting import HANG_S
from unship.errors import ConfigurationError


def asked(pages: Pages, *paths: str, token: bytes | None = None, connections: int = 0, **given: Any) -> list[Any]:
    """Return the code and the body of each answer."""

    async def served() -> list[Any]:
        app = web.Application(middlewares=[guard(token, lambda: connections)])
        app.add_routes(pages.routes())
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found = []
        try:
            async with ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
                for path in paths:
                    async with client.request(given.get("method", "GET"), path, headers=given.get("headers")) as answer:
                        body = await answer.read()
                        shown = msgspec.json.decode(body) if answer.content_type == "application/json" else body
                        found.append((answer.status, shown))
        finally:
            await runner.cleanup()
        return found

    return asyncio.run(asyncio.wait_for(served(), HANG_S))


def pages(found: Board | None = None, vitals: Vitals | None = None) -> Pages:
    return Pages(board() if found is None else found, vitals or Vitals(), lambda: T0)


# Verdicts


@pytest.mark.parametrize(
    ("records", "version", "verdict", "reason"),
    [
        ([status_records({"m": model()})], None, "HEALTHY", "HEALTHY"),
        ([status_records({"m": model("LEARNING")})], "v2", "INCONCLUSIVE", "LEARNING"),
        ([status_records({"m": model("BLIND")})], "v2", "INCONCLUSIVE", "BLIND"),
        ([status_records({"m": model("ERROR")})], "v2", "ERROR", "ERROR"),
        ([status_records({"m": model("NOT_CONFIRMED")})], "v2", "DEGRADED", "NOT_CONFIRMED"),
        ([status_records({"m": model("A_LATER_REASON")})], "v2", "INCONCLUSIVE", "A_LATER_REASON"),
        ([status_records({"m": model()})], "v1", "INCONCLUSIVE", "NOT_LIVE"),
        ([status_records({"m": model(quarantine=["v3"])})], "v3", "DEGRADED", "QUARANTINED"),
        (
            [status_records({"m": model()}), journal(decision(Reason.TARGET_BETTER, "v3"))],
            "v3",
            "DEGRADED",
            "TARGET_BETTER",
        ),
        ([status_records({"other": model()})], None, "INCONCLUSIVE", "UNKNOWN"),
        ([status_records({"m": model(desired=None)})], None, "INCONCLUSIVE", "UNKNOWN"),
        ([status_records({"m": model()}, T0 - STALE_MS - 1)], None, "INCONCLUSIVE", "STALE"),
        ([[]], None, "INCONCLUSIVE", "STALE"),
    ],
)
def test_verdict_is_what_is_known_of_the_version_and_nothing_that_is_not_known_passes(
    records: list[list[Seen]], version: str | None, verdict: str, reason: str
) -> None:
    found = verdict_on(board(*records), "m", version, T0)
    assert (found.verdict, found.reason) == (verdict, reason)
    assert found.ok == (verdict == "HEALTHY")
    assert found.inconclusive == (verdict in ("INCONCLUSIVE", "ERROR"))
    assert found.sentence.endswith(".")


def test_monitor_of_this_process_that_works_is_not_stale_while_nothing_changes() -> None:
    works = [T0]
    found = Board(lambda: None, lambda: works[0])
    for record in status_records({"m": model()}, T0 - 10 * STALE_MS):
        found.take(record)
    assert verdict_on(found, "m", None, T0).ok
    assert verdict_on(found, "m", None, T0 + STALE_MS + 1).reason == "STALE"


def test_verdict_goes_stale_with_the_monitor_of_its_own_model_though_another_one_works() -> None:
    later = T0 + STALE_MS + 1
    of_another = [
        each._replace(key=(each.key or b"").replace(b"status/0", b"status/1"))
        for each in status_records({"other": model()}, later, StatusSeen(later, 0))
    ]
    found = board(status_records({"m": model()}, T0, StatusSeen(T0, 0)), of_another)
    assert verdict_on(found, "m", None, later).reason == "STALE"
    assert verdict_on(found, "other", None, later).ok


@pytest.mark.parametrize(
    ("state", "promote", "rollback"), [("HEALTHY", 200, 412), ("LEARNING", 412, 412), ("NOT_CONFIRMED", 412, 200)]
)
def test_gates_answer_by_the_code_also_to_a_post(state: str, promote: int, rollback: int) -> None:
    found = board(status_records({"m": model(state)}))
    paths = ("/v1/verdict/m?version=v2&gate=promote", "/v1/verdict/m?version=v2&gate=rollback", "/v1/verdict/m?gate=x")
    answers = asked(pages(found), *paths, method="POST")
    assert [code for code, _ in answers] == [promote, rollback, 400]
    ((_, shown),) = asked(pages(found), "/v1/verdict/m")
    assert set(shown["data"]) >= {"verdict", "ok", "inconclusive", "reason", "sentence"}


def test_model_whose_name_has_slashes_is_found() -> None:
    found = board(status_records({"team/fraud v2": model()}))
    ((_, shown),) = asked(pages(found), "/v1/verdict/team/fraud%20v2")
    assert shown["data"]["ok"]


# Status and decisions


def test_status_has_models_incidents_and_how_far_the_monitor_is_behind() -> None:
    vitals = Vitals()
    vitals.beat({"predictions": 7}, caught_up=True)
    found = board(status_records({"m": model(), "n": model()}), alerts(("i-1", "firing", 0), ("i-2", "firing", 0)))
    (_, shown), (_, one) = asked(pages(found, vitals), "/v1/status", "/v1/status?model=n")
    assert set(shown["models"]) == {"m", "n"}
    assert shown["models"]["m"]["replicas"]["r1"]["version"] == "v2"
    assert shown["models"]["m"]["lagging"] == {}
    assert [each["incident"] for each in shown["incidents"]] == ["i-1", "i-2"]
    assert shown["monitor"] == {"seen_ts": T0, "lag": {"predictions": 7}, "clock": T0}
    assert shown["rejected"] == {"BAD_JSON": 3}
    assert (set(one["models"]), one["incidents"]) == ({"n"}, [])


def test_decisions_are_the_newest_as_they_are_in_the_journal() -> None:
    each = [decision(Reason.HEALTHY, ts=ts) for ts in range(1, DECISIONS_MAX + 50)]
    rolled = decision(Reason.TARGET_BETTER, ts=5_000)
    found = pages(board(journal(*each, rolled)))
    (_, all_of), (_, some), (_, one), (code, _) = asked(
        found, "/v1/decisions", "/v1/decisions?action=rollback&since=4000", "/v1/decisions?id=d-900&limit=5",
        "/v1/decisions?limit=x",
    )  # fmt: skip
    assert [shown["ts"] for shown in all_of["decisions"]][-2:] == [DECISIONS_MAX + 49, 5_000]
    assert len(all_of["decisions"]) == 100
    assert some["decisions"] == [msgspec.json.decode(decision_bytes(rolled))]
    assert [shown["id"] for shown in one["decisions"]] == ["d-900"]
    assert code == 400


def test_decision_that_no_trusted_controller_signed_is_not_shown() -> None:
    value = decision_bytes(decision(Reason.TARGET_BETTER))
    found = Board(lambda: TRUST)
    found.take(Seen("decisions", T0, b"m", value, ()))
    assert not found.counts
    found.take(Seen("decisions", T0, b"m", value, tuple(SIGNER.sign_decision(value))))
    assert found.counts == {("m", "rollback", "TARGET_BETTER"): 1}


# Health


def test_health_and_readiness_follow_the_monitor() -> None:
    vitals, found = Vitals(), board()
    assert [code for code, _ in asked(pages(found, vitals), "/healthz", "/readyz")] == [503, 503]
    vitals.beat({}, caught_up=False)
    assert [code for code, _ in asked(Pages(found, _again(vitals), lambda: T0), "/healthz", "/readyz")] == [200, 503]
    found.reach(end=True)
    vitals.beat({}, caught_up=True)
    assert [code for code, _ in asked(Pages(found, _again(vitals), lambda: T0), "/healthz", "/readyz")] == [200, 200]


def _again(vitals: Vitals) -> Vitals:
    found = Vitals()
    found.beat(vitals.lag, caught_up=vitals.caught_up)
    return found


# Metrics


def metrics_of(found: Board, vitals: Vitals | None = None) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    text = exposition(registry_of(found, vitals or Vitals())).decode()
    values: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return values


def test_metrics_show_models_decisions_incidents_and_stages() -> None:
    vitals = Vitals()
    vitals.beat({"ledger": 4}, caught_up=True)
    vitals.observe("fold", 0.02)
    replicas = {"r1": model().replicas["r1"], "r2": Replica(Acked("v1", "serving", (0, 1, 0), 50, 90))}
    found = metrics_of(
        board(
            status_records({"m": model(replicas=replicas)}),
            journal(decision(Reason.TARGET_BETTER), decision(Reason.HEALTHY, ts=200)),
            alerts(("i-1", "firing", 0), ("i-1", "resolved", 4_000), ("i-2", "firing", 0), ("i-1", "firing", 0)),
        ),
        vitals,
    )
    assert found["unship_outcomes_total"] == {
        (("model", "m"), ("version", "v1")): 900, (("model", "m"), ("version", "v2")): 700,
    }  # fmt: skip
    assert found["unship_replicas"] == {(("model", "m"), ("state", s)): 1 for s in ("obeying", "lagging")}
    assert found["unship_converged"] == {(("model", "m"),): 0}
    assert found["unship_evidence_ratio"] == {(("model", "m"),): 0.25}
    assert found["unship_label_coverage_ratio"] == {(("model", "m"),): 0.5}
    assert found["unship_decisions_total"] == {
        (("action", "rollback"), ("model", "m"), ("reason", "TARGET_BETTER")): 1,
        (("action", "none"), ("model", "m"), ("reason", "HEALTHY")): 1,
    }
    assert found["unship_rejected_total"] == {(("code", "BAD_JSON"),): 3}
    assert found["unship_lag_records"] == {(("topic", "ledger"),): 4}
    assert found["unship_stage_seconds_count"] == {(("stage", "fold"),): 1}
    assert sum(found["unship_incident_firing"].values()) == 1
    assert found["unship_convergence_seconds_count"] == {(): 1}
    assert found["unship_convergence_seconds_sum"] == {(): 4.0}
    assert found["unship_convergence_seconds_bucket"][(("le", "2.5"),)] == 0
    assert found["unship_convergence_seconds_bucket"][(("le", "5.0"),)] == 1
    assert found["unship_status_timestamp_seconds"] == {(): T0 / 1_000}
    assert len(found["unship_convergence_seconds_bucket"]) == len(CONVERGENCE_BUCKETS_S) + 1


def test_series_are_bounded_and_those_with_most_outcomes_stay() -> None:
    versions = {f"v{n}": n for n in range(3 * VERSIONS_MAX)}
    many = {f"m{n}": model(outcomes={"v2": n}) for n in range(MODELS_MAX + 5)} | {"busy": model(outcomes=versions)}
    found = metrics_of(board(status_records(many)))
    assert len(found["unship_converged"]) == MODELS_MAX
    assert (("model", "busy"),) in found["unship_converged"]
    shown = [dict(labels)["version"] for labels in found["unship_outcomes_total"] if ("model", "busy") in labels]
    assert (len(shown), "v59" in shown, "v0" in shown) == (VERSIONS_MAX, True, False)


def test_name_with_quotes_and_line_feeds_stays_one_label() -> None:
    name = 'a"b\nc\\d'
    assert metrics_of(board(status_records({name: model()})))["unship_converged"] == {(("model", name),): 1}


# Who is let in


def test_without_a_token_only_names_of_this_machine_are_answered() -> None:
    for host, code in (("localhost", 200), ("127.0.0.1:1", 200), ("[::1]:80", 200), ("evil.example", 403)):
        assert asked(pages(), "/v1/status", headers={"Host": host})[0][0] == code, host


def test_token_is_asked_for_everywhere_but_for_health() -> None:
    token = b"0123456789abcdef"
    paths = ("/metrics", "/v1/status", "/v1/decisions", "/v1/verdict/m", "/healthz", "/")
    codes = [code for code, _ in asked(pages(), *paths, token=token)]
    assert codes == [401, 401, 401, 401, 503, 401]
    right = {"Authorization": f"Bearer {token.decode()}", "Host": "unship.example"}
    assert [code for code, _ in asked(pages(), "/metrics", "/v1/status", token=token, headers=right)] == [200, 200]
    for wrong in ("Bearer 0123456789abcdeX", f"Basic {token.decode()}", "Bearer"):
        assert asked(pages(), "/v1/status", token=token, headers={"Authorization": wrong})[0][0] == 401


def test_connections_beyond_the_limit_are_refused() -> None:
    assert asked(pages(), "/healthz", connections=10_000)[0][0] == 503


def test_nothing_can_be_changed() -> None:
    for method in ("PUT", "DELETE", "PATCH", "POST"):
        assert asked(pages(), "/v1/status", method=method)[0][0] == 405


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("web: {listen: '0.0.0.0:8080'}", "web.token_file"),
        ("web: {listen: 'example:8080'}", "web.token_file"),
        ("web: {listen: '127.0.0.1'}", "expected HOST:PORT"),
        ("web: {listen: '127.0.0.1:99999'}", "expected HOST:PORT"),
        ("web: {port: 1}", "unknown key"),
    ],
)
def test_address_that_others_reach_needs_a_token(text: str, found: str) -> None:
    with pytest.raises(ConfigurationError, match="web") as error:
        parse(text)
    assert found in str(error.value)
    assert parse("web: {listen: '0.0.0.0:8080', token_file: t}").web.host == "0.0.0.0"

"""Alerts go where the operator wants them: a command, a signed webhook, an Alertmanager, Apprise."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import subprocess
import sys
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from actions.adapters import alertmanager_sink
from actions.adapters.alertmanager_sink import AlertmanagerSink, posted
from actions.adapters.apprise_sink import MISSING, AppriseSink
from actions.adapters.command_sink import CommandSink
from actions.adapters.sink import Problem, Sink
from actions.adapters.webhook_sink import WebhookSink
from actions.incidents import Alert
from console.alerting import sink_id
from streams.config.parse import parse
from tests.waiting import HANG_S, until
from unship.errors import ConfigurationError

ECHO = [sys.executable, "-c", "import sys; open('got', 'ab').write(sys.stdin.buffer.read())"]
FIRING = Alert(
    incident="i-1", status="firing", severity="page", model="m", version="v2", reason="TARGET_BETTER",
    summary="It got worse.", decision="d-1", started_ts=5_000, ts=7_000, action="rollback", to="v1",
)  # fmt: skip
RESOLVED = msgspec.structs.replace(FIRING, status="resolved", summary="v1 serves.", ts=9_000)
NOW = 60_000


def sent(sink: Sink, alert: Alert = FIRING) -> Problem | None:
    async def once() -> Problem | None:
        try:
            return await sink.send(alert, NOW)
        finally:
            await sink.close()

    return asyncio.run(asyncio.wait_for(once(), HANG_S))


# Commands


def test_command_gets_the_alert_on_standard_input_and_nothing_of_it_as_argument(tmp_path: Path) -> None:
    alert = msgspec.structs.replace(FIRING, model="x; touch hacked")
    assert sent(CommandSink(ECHO, tmp_path), alert) is None
    assert json.loads((tmp_path / "got").read_bytes()) == msgspec.to_builtins(alert)
    assert {path.name for path in tmp_path.iterdir()} == {"got"}


def test_command_learns_nothing_of_the_environment_but_what_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSHIP_SECURITY_PASSWORD", "secret")
    show = [sys.executable, "-c", "import json, os; json.dump(dict(os.environ), open('got', 'w'))"]
    assert sent(CommandSink(show, tmp_path, environment={"PAGER_TOKEN": "t"})) is None
    got = json.loads((tmp_path / "got").read_text())
    assert (got["PAGER_TOKEN"], got["PATH"]) == ("t", os.environ["PATH"])
    assert "secret" not in got.values()
    assert set(got) <= {"PATH", "HOME", "USER", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PAGER_TOKEN"}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (["./no-such-command"], "cannot be run"),
        ([sys.executable, "-c", "raise SystemExit(3)"], "ended with code 3"),
        ([sys.executable, "-c", "import time; time.sleep(600)"], "took longer than 0.2 s"),
    ],
    ids=["missing", "failing", "hanging"],
)
def test_command_that_fails_is_to_be_tried_again(tmp_path: Path, command: list[str], why: str) -> None:
    problem = sent(CommandSink(command, tmp_path, timeout_s=0.2))
    assert problem is not None
    assert why in problem.why
    assert not problem.refused


def test_command_that_hangs_ends_with_the_monitor(tmp_path: Path) -> None:
    hang = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
    sink = CommandSink([sys.executable, "-c", hang], tmp_path, timeout_s=600.0)

    async def cut_off() -> None:
        task = asyncio.create_task(sink.send(FIRING, NOW))
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cut_off())
    pid = (tmp_path / "pid").read_text()
    until(lambda: subprocess.run(["kill", "-0", pid], stderr=subprocess.DEVNULL, check=False).returncode != 0)


# HTTP


class Receiver:
    """An HTTP server that answers as it is told to and keeps what it got."""

    def __init__(self, status: int = 200, headers: dict[str, str] | None = None, hangs: bool = False) -> None:
        self.status, self.headers, self.hangs = status, headers or {}, hangs
        self.got: list[tuple[str, dict[str, str], bytes]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.got.append((request.path_qs, dict(request.headers), await request.read()))
        if self.hangs:
            await asyncio.Event().wait()
        return web.Response(status=self.status, headers=self.headers)

    def run(self, use: Callable[[str], Awaitable[Any]]) -> Any:
        async def served() -> Any:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", self.answer)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            try:
                return await asyncio.wait_for(use(f"http://127.0.0.1:{runner.addresses[0][1]}"), HANG_S)
            finally:
                await runner.cleanup()

        return asyncio.run(served())

    def send(self, make: Callable[[str], Sink], *alerts: Alert) -> list[Problem | None]:
        async def use(url: str) -> list[Problem | None]:
            sink = make(url)
            try:
                return [await sink.send(alert, NOW) for alert in alerts or (FIRING,)]
            finally:
                await sink.close()

        return self.run(use)


def test_webhook_is_signed_and_a_repeated_try_has_the_same_id() -> None:
    receiver, key = Receiver(), b"0123456789abcdef"
    secret = "whsec_" + base64.b64encode(key).decode()
    assert receiver.send(lambda url: WebhookSink(f"{url}/hook?x=1", secret), FIRING, FIRING, RESOLVED) == [None] * 3
    ids = [headers["webhook-id"] for _, headers, _ in receiver.got]
    assert ids == ["i-1.7000", "i-1.7000", "i-1.9000"]
    for path, headers, body in receiver.got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
        assert (path, headers["webhook-timestamp"], headers["Content-Type"]) == ("/hook?x=1", "60", "application/json")
    assert json.loads(receiver.got[2][2]) == msgspec.to_builtins(RESOLVED)


def test_webhook_without_a_secret_is_not_signed() -> None:
    receiver = Receiver()
    receiver.send(WebhookSink)
    assert "webhook-signature" not in receiver.got[0][1]


@pytest.mark.parametrize(
    ("status", "refused"),
    [(400, True), (401, True), (404, True), (302, True), (408, False), (429, False), (500, False), (503, False)],
)
def test_answer_decides_whether_another_try_makes_sense(status: int, refused: bool) -> None:
    receiver = Receiver(status, {"Location": "http://127.0.0.1:1/elsewhere"} if status == 302 else None)
    assert receiver.send(WebhookSink) == [Problem(f"answered {status}", refused)]
    assert len(receiver.got) == 1


def test_receiver_that_does_not_answer_or_is_not_there_is_away() -> None:
    assert Receiver(hangs=True).send(lambda url: WebhookSink(url, timeout_s=0.2)) == [
        Problem("gave no answer within 0.2 s")
    ]
    gone = Receiver().run(lambda url: asyncio.sleep(0, url))
    problem = sent(WebhookSink(gone))
    assert problem is not None
    assert problem.why.startswith("cannot be reached")
    assert not problem.refused


def test_reports_show_nothing_secret_of_a_url() -> None:
    assert WebhookSink("https://u:p@hooks.example.com/T0/B0?token=x").name == "webhook https://hooks.example.com"
    assert AppriseSink("slack://token-a/token-b").name == "apprise slack://"


def test_alertmanager_gets_an_incident_under_the_same_labels_until_it_is_resolved() -> None:
    receiver, later = Receiver(), msgspec.structs.replace(FIRING, reason="MIX_SHIFT", action="page", to=None, ts=8_000)
    assert receiver.send(AlertmanagerSink, FIRING, later, RESOLVED) == [None] * 3
    assert {path for path, _, _ in receiver.got} == {"/api/v2/alerts"}
    ((first,), (second,), (third,)) = (json.loads(body) for _, _, body in receiver.got)
    assert first["labels"] == second["labels"] == third["labels"]
    assert first["labels"] == {
        "alertname": "UnshipIncident", "severity": "page", "model": "m", "version": "v2", "incident": "i-1",
    }  # fmt: skip
    assert second["annotations"]["reason"] == "MIX_SHIFT"
    assert (first["startsAt"], third["startsAt"]) == ("1970-01-01T00:00:05.000+00:00",) * 2
    assert third["endsAt"] == "1970-01-01T00:00:09.000+00:00"
    assert first["endsAt"] == "1970-01-01T04:01:00.000+00:00"
    assert alertmanager_sink.REPEAT_MS < alertmanager_sink.ENDS_AFTER_MS


def test_alertmanager_takes_what_another_clock_dates_into_the_future() -> None:
    ahead = msgspec.structs.replace(RESOLVED, started_ts=NOW + 5_000, ts=NOW + 9_000)
    found = posted(ahead, NOW)
    assert found["startsAt"] == found["endsAt"] == "1970-01-01T00:01:00.000+00:00"


# Apprise


def test_apprise_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    assert sent(AppriseSink("slack://a/b")) == Problem(MISSING, refused=True)


@pytest.mark.parametrize(
    ("known", "done", "problem"),
    [
        (True, True, None),
        (True, False, Problem("was not taken; Apprise reports no cause")),
        (False, True, Problem("its URL is none that Apprise knows", refused=True)),
    ],
)
def test_apprise_is_given_a_title_a_text_and_how_bad_it_is(
    monkeypatch: pytest.MonkeyPatch, known: bool, done: bool, problem: Problem | None
) -> None:
    got: list[dict[str, str]] = []

    class Apprise:
        def add(self, url: str) -> bool:
            return known

        async def async_notify(self, **given: str) -> bool:
            got.append(given)
            return done

    monkeypatch.setitem(sys.modules, "apprise", types.SimpleNamespace(Apprise=Apprise))
    assert sent(AppriseSink("slack://a/b")) == problem
    if known:
        assert got == [
            {
                "title": "[firing] m v2: TARGET_BETTER",
                "body": "It got worse.\nDecision d-1: rollback to v1. Incident i-1.",
                "notify_type": "failure",
            }
        ]


# Configuration


def test_sinks_of_the_configuration_are_in_no_ledger() -> None:
    text = (
        "alerts: [{command: [cat], environment: {TOKEN: '${TOKEN}'}}, {webhook: 'https://h/x', secret: '${TOKEN}'}, "
        "{alertmanager: 'http://a:9093'}, {apprise: 'json://h'}]"
    )
    config = parse(text, {"TOKEN": "secret-secret-secret"})
    assert [(each.kind, each.target) for each in config.alerts] == [
        ("command", ["cat"]), ("webhook", ["https://h/x"]), ("alertmanager", ["http://a:9093"]), ("apprise", ["json://h"]),
    ]  # fmt: skip
    assert config.alerts[1].secret == "secret-secret-secret"
    assert "secret" not in json.dumps(config.recorded())
    assert config.digest() == parse("").digest()
    names = [sink_id(each) for each in config.alerts]
    assert len(set(names)) == 4
    assert sink_id(parse("alerts: [{command: [cat], timeout: 5s}]").alerts[0]) == names[0]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("alerts: [{command: []}]", "alerts[0].command"),
        ("alerts: [{command: [./x], timeout: 0s}]", "alerts[0].timeout"),
        ("alerts: [{}]", "was none"),
        ("alerts: [{webhook: 'http://h', apprise: 'json://h'}]", "was webhook and apprise"),
        ("alerts: [{webhook: 'ftp://secret'}]", "alerts[0].webhook: expected http://HOST"),
        ("alerts: [{webhook: 'http://h', secret: short}]", "alerts[0].secret: expected at least 16"),
        ("alerts: [{alertmanager: 'http://h', secret: long-enough-and-more}]", "only a webhook is signed"),
        ("alerts: [{webhook: 'http://h', environment: {A: b}}]", "only a command has one"),
        ("alerts: [{webhook: 'http://h:99999'}]", "alerts[0].webhook"),
        ("alerts: [{webhook: 'http://h', secret: 'whsec_!!!not-base64!!!'}]", "alerts[0].secret"),
        ("alerts: [{apprise: 'none'}]", "alerts[0].apprise"),
    ],
)
def test_alert_that_cannot_be_sent_is_an_error_of_the_configuration(text: str, found: str) -> None:
    with pytest.raises(ConfigurationError, match="alerts") as error:
        parse(text)
    assert found in str(error.value)
    assert "//secret" not in str(error.value)

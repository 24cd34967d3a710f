"""The sidecar takes events, says what is desired, believes confirmations, and refuses everything else by a code."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.unit.sdk.sidecar.running import ask, serving
from tests.waiting import HANG_S, until
from unship.sidecar import connections
from unship.sidecar.connections import CONNECTIONS_MAX, WAITING_MAX
from unship.sidecar.http import SidecarServer, is_loopback
from unship.sidecar.sidecar import BODY_BYTES_MAX, EVENTS_MAX
from unship.sidecar.switches import ExecSwitch, FileSwitch

PREDICTION = {"type": "prediction", "id": "p-1", "output": 1}
FEEDBACK = {"type": "feedback", "id": "p-1", "truth": 1}


@pytest.fixture
def server(unship_embedded) -> Iterator[SidecarServer]:
    with serving(unship_embedded) as running:
        yield running


def raw(server, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=HANG_S) as connection:
        # A connection that ends while something sent is not read is reset, and what was answered may be lost with it.
        with suppress(ConnectionError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65_536), b""))
        return b""


def test_events_arrive_with_what_serves_filled_in(server, unship_embedded):
    assert ask(server, "POST", "/v1/events", [PREDICTION, FEEDBACK])[:2] == (202, {"accepted": 2})
    (prediction,) = unship_embedded.until("predictions", lambda events: len(events) == 1)
    (feedback,) = unship_embedded.until("feedback", lambda events: len(events) == 1)
    assert (prediction.model, prediction.version, prediction.replica) == ("fraud", "v42", "r-1")
    assert (feedback.model, feedback.truth) == ("fraud", 1)
    assert prediction.ts > 0


def test_cloudevents_are_taken_in_headers_and_in_a_batch_and_one_of_another_kind_ends_the_batch(
    server, unship_embedded
):
    binary = {"ce_specversion": "1.0", "ce_type": "dev.unship.prediction.v1", "ce_id": "p-9", "ce_source": "app"}
    assert ask(server, "POST", "/v1/events", {"output": 1, "version": "v42"}, **binary)[:2] == (202, {"accepted": 1})
    label = {"specversion": "1.0", "type": "dev.unship.feedback.v1", "source": "crm", "id": "p-9", "data": {"truth": 1}}
    batch = {"Content_Type": "application/cloudevents-batch+json"}
    status, answer, _ = ask(server, "POST", "/v1/events", [label, label | {"type": "com.example.paid"}], **batch)
    assert (status, answer["code"], answer["index"]) == (400, "UNKNOWN_TYPE", 1)
    assert ask(server, "POST", "/v1/events", [label], **batch)[:2] == (202, {"accepted": 1})
    (prediction,) = unship_embedded.until("predictions", lambda events: len(events) == 1)
    (feedback,) = unship_embedded.until("feedback", lambda events: len(events) == 1)
    assert (prediction.id, prediction.replica, feedback.id, feedback.truth) == ("p-9", "r-1", "p-9", 1)


def test_events_of_a_packing_sidecar_share_records(unship_embedded):
    with serving(unship_embedded, pack=True) as server:
        many = [{**PREDICTION, "id": f"p-{number}"} for number in range(100)]
        assert ask(server, "POST", "/v1/events", many)[:2] == (202, {"accepted": 100})
    assert [event.id for event in unship_embedded.events("predictions")] == [event["id"] for event in many]
    assert len(unship_embedded.records("predictions")) < len(many)


def test_version_that_the_application_names_is_kept_without_an_epoch_of_another(server, unship_embedded):
    event = {**PREDICTION, "version": "v41", "role": "holdback", "ts": 1_772_409_600_005}
    assert ask(server, "POST", "/v1/events", event)[0] == 202
    (prediction,) = unship_embedded.until("predictions", lambda events: len(events) == 1)
    assert (prediction.version, prediction.epoch, prediction.ts) == ("v41", None, 1_772_409_600_005)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "BAD_JSON"),
        (b"{", "BAD_JSON"),
        (b"[{]", "BAD_JSON"),
        (b'{"type":"prediction","id":"\xff"}', "NOT_UTF8"),
        (b"1", "BAD_EVENT"),
        (b'{"id":"p-1","output":1}', "UNKNOWN_TYPE"),
        (b'{"type":"ack"}', "BAD_EVENT"),
        (b'{"type":"ledger"}', "UNKNOWN_TYPE"),
        (b'{"type":"prediction","output":1}', "BAD_EVENT"),
        (b'{"type":"prediction","id":"p","output":1,"ts":"soon"}', "BAD_TIME"),
        (b'{"type":"prediction","id":"p","output":1,"score":2}', "NUMBER_OUT_OF_RANGE"),
        (b'{"type":"prediction","id":"p","output":1,"model":"other"}', "BAD_EVENT"),
        (b'{"type":"prediction","id":"p","output":1,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "TOO_LARGE"),
        (b'{"type":"prediction","id":"p","output":1,"x":' + b"[" * 500 + b"]" * 500 + b"}", "TOO_DEEP"),
        (b"[" * 60_000, "TOO_DEEP"),
        (b"[" + b",".join([b"{}"] * (EVENTS_MAX + 1)) + b"]", "TOO_LARGE"),
    ],
)
def test_bad_event_is_refused_with_the_code_of_its_rejection(server, body, code):
    status, answer, _ = ask(server, "POST", "/v1/events", body)
    assert (status, answer["code"], answer["accepted"]) == (400, code, 0)
    assert "Traceback" not in answer["detail"]


def test_one_bad_event_of_a_list_keeps_all_out_and_says_which(server, unship_embedded):
    status, answer, _ = ask(server, "POST", "/v1/events", [PREDICTION, {"type": "feedback", "id": "p-1"}])
    assert (status, answer["code"], answer["index"]) == (400, "BAD_EVENT", 1)
    assert ask(server, "POST", "/v1/events", FEEDBACK)[0] == 202
    unship_embedded.until("feedback", lambda events: len(events) == 1)
    assert unship_embedded.events("predictions") == []


def test_full_queue_asks_to_try_again_and_takes_nothing(server, monkeypatch):
    monkeypatch.setattr(server.sidecar._emitter._room, "_events", 1)
    status, answer, headers = ask(server, "POST", "/v1/events", [PREDICTION, FEEDBACK])
    assert (status, answer["code"], headers["Retry-After"]) == (503, "TRY_LATER", "1")


def test_body_over_the_limit_is_not_read(server):
    head = b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1)
    assert raw(server, head).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1e3\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
    ],
)
def test_body_whose_length_is_not_known_is_refused(server, lines):
    answer = raw(server, b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n{}")
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "request_",
    [
        b"SECRET / HTTP/1.1\r\n\r\n",
        b"SECRET\x1b[2J\r\n\r\n",
        b"GET /SECRET HTTP/9.9\r\n\r\n",
        b"\x16\x03SECRET\r\n\r\n",
    ],
)
def test_request_that_is_none_is_refused_without_an_echo(server, request_, capfd):
    answer = raw(server, request_)
    assert b"SECRET" not in answer
    assert b"BAD_REQUEST" in answer
    assert "SECRET" not in capfd.readouterr().err


def test_body_of_a_get_is_not_taken_for_the_next_request(server):
    inner = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(inner)
    assert raw(server, head + inner).count(b"HTTP/1.1 200") == 1
    assert raw(server, inner + inner).count(b"HTTP/1.1 200") == 2


def test_unknown_path_and_wrong_method_are_named_without_an_echo(server):
    status, answer, _ = ask(server, "GET", "/v1/%3Cscript%3E")
    assert (status, "script" in str(answer)) == (404, False)
    assert ask(server, "GET", "/v1/events")[0] == 405
    assert ask(server, "POST", "/v1/desired", b"{}")[0] == 405


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://example.org"}, {"Sec_Fetch_Site": "same-origin"}, {"Host": "example.org:8701"}]
)
def test_request_of_a_web_page_is_refused(server, headers):
    status, answer, _ = ask(server, "GET", "/healthz", **headers)
    assert (status, answer["code"]) == (403, "FORBIDDEN")


def test_desired_before_any_command_is_what_serves(server):
    status, answer, headers = ask(server, "GET", "/v1/desired")
    assert (status, answer) == (200, {"version": "v42", "epoch": None, "artifact": None})
    assert headers["ETag"] == '"0.0.0"'


def test_known_epoch_without_a_wait_is_not_modified(server):
    assert ask(server, "GET", "/v1/desired?epoch=0.0.0")[0] == 304
    assert ask(server, "GET", "/v1/desired", If_None_Match='"0.0.0"')[:2] == (304, None)


def test_waiting_request_is_answered_by_the_next_command(server, unship_embedded):
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(ask(server, "GET", "/v1/desired?wait=15&epoch=0.0.0")))
    waiting.start()
    epoch = unship_embedded.command("fraud", "v41", artifact="sha256:aa")
    waiting.join(20)
    ((status, answer, headers),) = answers
    assert (status, answer) == (200, {"version": "v41", "epoch": list(epoch), "artifact": "sha256:aa"})
    mark = ".".join(map(str, epoch))
    assert headers["ETag"] == f'"{mark}"'
    assert ask(server, "GET", f"/v1/desired?epoch={mark}")[0] == 304


@pytest.mark.parametrize("query", ["wait=61", "wait=-1", "wait=nan", "wait=x", "epoch=1", "epoch=a.b.c", "a=1&" * 9])
def test_query_that_makes_no_sense_is_refused(server, query):
    status, answer, _ = ask(server, "GET", f"/v1/desired?{query}")
    assert (status, answer["code"]) == (400, "BAD_REQUEST")


def test_closing_ends_a_waiting_request(unship_embedded):
    answers: list[Any] = []
    with serving(unship_embedded) as running:
        asked = ask(running, "GET", "/v1/desired")
        waiting = threading.Thread(
            target=lambda: answers.append(ask(running, "GET", "/v1/desired?wait=60&epoch=0.0.0"))
        )
        waiting.start()
        assert asked[0] == 200
        until(lambda: None in running.connections._since.values())
        running.sidecar._stop.set()
        waiting.join(20)
    assert answers[0][0] == 304


def test_switch_is_staged_until_the_application_confirms_it(server, unship_embedded):
    epoch = unship_embedded.command("fraud", "v41")
    unship_embedded.until("acks", lambda acks: acks[-1].stage == "staged")
    assert ask(server, "GET", "/healthz")[1]["serving"] == "v42"
    told = {"version": "v41", "epoch": epoch, "ok": True}
    assert ask(server, "PUT", "/v1/ack", {**told, "epoch": [9, 9, 9]})[0] == 409
    assert ask(server, "PUT", "/v1/ack", told)[:2] == (200, {"stage": "serving"})
    unship_embedded.until("acks", lambda acks: (acks[-1].stage, acks[-1].serving) == ("serving", "v41"))
    health = ask(server, "GET", "/healthz")[1]
    assert (health["serving"], health["control"], health["refused"]) == ("v41", "OK", {})
    assert ask(server, "POST", "/v1/events", PREDICTION)[0] == 202
    (prediction,) = unship_embedded.until("predictions", lambda events: len(events) == 1)
    assert (prediction.version, prediction.epoch) == ("v41", epoch)


def test_switch_that_the_application_calls_failed_is_a_failed_load(server, unship_embedded):
    epoch = unship_embedded.command("fraud", "v41")
    unship_embedded.until("acks", lambda acks: acks[-1].stage == "staged")
    told = {"version": "v41", "epoch": epoch, "ok": False, "detail": "no\x1b[2J model"}
    assert ask(server, "PUT", "/v1/ack", told)[:2] == (200, {"stage": "refused"})
    unship_embedded.until("acks", lambda acks: acks[-1].code == "LOAD_FAILED")
    unship_embedded.command("fraud", "v41", epoch=epoch)
    unship_embedded.until("acks", lambda acks: [ack.code for ack in acks].count("LOAD_FAILED") == 2)
    assert ask(server, "GET", "/healthz")[1]["serving"] == "v42"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"version":"v41"}', b'{"version":"","epoch":[1,0,0]}', b"[" * 4_000])
def test_confirmation_that_is_none_is_refused(server, body):
    status, answer, _ = ask(server, "PUT", "/v1/ack", body)
    assert (status, answer["code"]) == (400, "BAD_REQUEST")


def test_confirmation_over_the_limit_is_refused(server):
    assert ask(server, "PUT", "/v1/ack", b" " * 5_000)[0] == 413


def test_file_is_replaced_by_the_commanded_version(unship_embedded, tmp_path):
    path = tmp_path / "version"
    with serving(unship_embedded, FileSwitch(path)) as running:
        epoch = unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: (acks[-1].stage, acks[-1].epoch) == ("serving", epoch))
        assert path.read_bytes() == b"v41\n"
        assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".version")] == []
        assert ask(running, "PUT", "/v1/ack", {"version": "v41", "epoch": epoch})[0] == 409


def test_file_that_cannot_be_written_keeps_the_old_version(unship_embedded, tmp_path):
    with serving(unship_embedded, FileSwitch(tmp_path / "gone" / "version")) as running:
        unship_embedded.command("fraud", "v41")
        unship_embedded.until("acks", lambda acks: acks[-1].code == "LOAD_FAILED")
        assert ask(running, "GET", "/healthz")[1]["serving"] == "v42"


@pytest.mark.parametrize("name", ["-rf", "v1\nv2", "v\x1b[2J"])
def test_version_that_is_no_plain_name_is_not_passed_on(tmp_path, name):
    for switch in (FileSwitch(tmp_path / "version"), ExecSwitch("false {version}")):
        with pytest.raises(ValueError, match="not passed on"):
            switch(name)


@pytest.mark.parametrize("command", ["touch {version}", "sh -c 'touch \"$1\"' sh {version}"])
def test_command_gets_the_version_as_one_word_and_no_shell(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    ExecSwitch(command)("v41; touch x")
    assert [each.name for each in tmp_path.iterdir()] == ["v41; touch x"]


@pytest.mark.parametrize(
    "command",
    [
        "sh -c 'reload {version}'",
        "sh -c {version}",
        "bash -lc {version}",
        "/usr/bin/env python3.11 -c {version}",
        "busybox sh -c 'echo {version}'",
        "perl -e {version}",
        "sh {version}",
        "sudo {version}",
        "ssh host reload {version}",
        "eval reload {version}",
        "reload --to={version}",
        "{version}",
        "'{version} x'",
    ],
)
def test_command_that_would_run_a_versions_name_as_code_is_refused_with_the_right_form(command):
    with pytest.raises(ValueError, match=r"reload \{version\}, or sh -c 'reload \"\$1\"' sh \{version\}"):
        ExecSwitch(command)


@pytest.mark.parametrize(
    "command", ["reload {version}", "reload -c {version}", "python3 reload.py {version}", "sh -c 'exit 0' {version}"]
)
def test_command_with_the_version_as_a_word_of_its_own_is_taken(command):
    ExecSwitch(command)


def test_command_that_fails_is_missing_or_hangs_raises():
    with pytest.raises(RuntimeError, match="code 3"):
        ExecSwitch("sh -c 'exit 3'")("v41")
    with pytest.raises(FileNotFoundError):
        ExecSwitch("no-such-program-anywhere")("v41")
    with pytest.raises(RuntimeError, match="longer than"):
        ExecSwitch(f"{sys.executable} -c 'import signal; signal.pause()'", timeout_s=0.05)("v41")
    with pytest.raises(ValueError, match="empty"):
        ExecSwitch("")


def test_command_that_was_being_started_as_the_switch_was_stopped_is_killed():
    switch = ExecSwitch("tail -f /dev/null", timeout_s=60)
    switch.stop()
    with pytest.raises(RuntimeError, match="code -9"):
        switch("v41")


def connected(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=HANG_S)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /healthz HTTP/1.1\r\nX: ",
        b"POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_slow_clients_on_all_places_keep_nobody_out(server, begun):
    slow = [connected(server) for _ in range(CONNECTIONS_MAX)]
    for each in slow:
        each.sendall(begun)
    until(lambda: server.connections.open == CONNECTIONS_MAX)
    for _ in range(5):
        assert ask(server, "GET", "/healthz")[0] == 200
    for each in slow:
        each.close()


def test_request_that_is_dribbled_ends_with_its_deadline_though_no_read_is_slow(unship_embedded, monkeypatch):
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    with serving(unship_embedded) as server, connected(server) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nX: ")

        def cut_off() -> bool:
            try:
                slow.sendall(b"a")
            except OSError:
                return True
            return False

        until(cut_off)


def test_requests_that_wait_for_news_leave_places_for_others(server):
    waiting = [connected(server) for _ in range(WAITING_MAX + 8)]
    for each in waiting:
        each.sendall(b"GET /v1/desired?wait=60&epoch=0.0.0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    until(lambda: list(server.connections._since.values()).count(None) == WAITING_MAX)
    assert ask(server, "GET", "/healthz")[0] == 200
    assert ask(server, "GET", "/v1/desired?epoch=0.0.0")[0] == 304
    status, answer, _ = ask(server, "GET", "/v1/desired?wait=60&epoch=0.0.0")
    assert (status, answer["code"]) == (503, "TRY_LATER")
    server.sidecar._stop.set()
    for each in waiting:
        each.close()


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nhost: 127.0.0.1\r\n", 400),
        (b"GET http://evil.example/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET http://evil.example/healthz HTTP/1.1\r\nHost: evil.example\r\n", 403),
        (b"GET http:///healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET http://127.0.0.1@evil.example/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET https://127.0.0.1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 400),
        (b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", 200),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nno header\r\nOrigin: https://example.org\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: 1\r\n" * 101, 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 17_000 + b"\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: 1234567890\r\n" * 90 + b"Y: " + b"y" * 15_500, 400),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n", 400),
    ],
)
def test_head_that_names_another_host_or_is_too_long_is_refused(server, head, code):
    answer = raw(server, head + b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % code) or (code == 400 and answer == b"")
    assert answer.count(b"HTTP/1.1") <= 1


def test_answer_reaches_a_client_whose_body_was_too_large_to_be_read(server):
    status, answer, _ = ask(server, "POST", "/v1/events", b"x" * (BODY_BYTES_MAX + 300_000))
    assert (status, answer["code"]) == (413, "TOO_LARGE")


def test_head_that_ends_early_is_not_answered(server):
    assert raw(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: half") == b""


def test_name_of_a_network_is_not_the_loopback():
    assert not is_loopback("example.org")

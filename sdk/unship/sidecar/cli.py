"""Run the command `unship-replica`: a sidecar for replicas in other languages, and two tools for a shell."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from unship.errors import BrokerUnreachable, ConfigurationError, UnshipError
from unship.text import printable

if TYPE_CHECKING:
    from unship.events import Deployment
    from unship.log.link import Message
    from unship.sidecar.switches import ExecSwitch, FileSwitch
    from unship.signing import Headers

DEFAULT_LISTEN: Final = "127.0.0.1:8701"
HEADERS_BYTES_MAX: Final = 16_384
ERROR_CHARS_MAX: Final = 300
EMIT_S: Final = 10.0
EXEC_MORE_S: Final = 10.0
"""Time for the command to be killed after its own timeout, before its load counts as one that hangs."""

LOOK_S: Final = 0.5
EMIT_TRIES: Final = 5
"""An embedded log that is locked takes a second per try."""


class _Parser(argparse.ArgumentParser):
    """Parse arguments, and show those that are wrong without what controls a terminal."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message, ERROR_CHARS_MAX))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, 1 for a finding, 2 for usage or configuration, 3 where no broker can be reached."""
    asked = _parser().parse_args(arguments)
    try:
        if asked.command == "sidecar":
            return _sidecar(asked)
        if asked.command == "emit":
            return _emit(asked)
        return _verify(asked)
    except UnshipError as error:
        sys.stderr.write(f"unship-replica: {printable(str(error), ERROR_CHARS_MAX)}\n")
        return 3 if isinstance(error, BrokerUnreachable) else 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="unship-replica", description="Connect a replica in any language.")
    commands = parser.add_subparsers(dest="command", required=True)
    log = _Parser(add_help=False)
    where = "kafka://HOST:PORT or embedded:DIR; default: the environment's UNSHIP_LOG"
    log.add_argument("--log", metavar="URL", help=where)

    sidecar = commands.add_parser("sidecar", parents=[log], help="HTTP next to a replica: events in, commands out")
    sidecar.add_argument("--model", required=True, help="name of the model, as in the events")
    sidecar.add_argument("--version", required=True, help="what the replica has loaded as it starts")
    sidecar.add_argument("--trust", metavar="FILE", default="trust.json", help="trusted keys; default: trust.json")
    sidecar.add_argument("--replica", metavar="NAME", help="a name that survives restarts")
    sidecar.add_argument("--state", metavar="DIR", help="where the highest epoch is kept; on Kafka: ./unship-state")
    sidecar.add_argument("--listen", metavar="HOST:PORT", default=DEFAULT_LISTEN, help=f"default: {DEFAULT_LISTEN}")
    sidecar.add_argument("--pack", action="store_true", help="put up to 64 events into one record")
    switch = sidecar.add_mutually_exclusive_group()
    switch.add_argument(
        "--exec",
        metavar="CMD",
        dest="exec_",
        help="switch by 'CMD {version}', without a shell; {version} is a word of its own",
    )
    switch.add_argument("--file", metavar="PATH", type=Path, help="switch by writing the version into a file")
    switch.add_argument(
        "--flags", action="store_true", help="nothing to switch: each request evaluates a flag (OFREP) for its version"
    )
    sidecar.add_argument("--exec-timeout", metavar="S", type=float, default=60.0, help="longest CMD; default: 60")

    emit = commands.add_parser("emit", parents=[log], help="send one event")
    emit.add_argument(
        "--keys", metavar="DIR", type=Path, default=Path("unship-keys"),
        help="sign deployments with its deployer.key or operator.key, for its trust.json; default: unship-keys",
    )  # fmt: skip
    emit.add_argument("kind", choices=("prediction", "feedback", "deployment"))
    emit.add_argument("json", metavar="JSON", help="the event; - reads standard input")

    verify = commands.add_parser("verify", help="check whether a control record is a command that a replica would obey")
    verify.add_argument("--trust", metavar="FILE", type=Path, required=True, help="trusted keys")
    verify.add_argument("--value", metavar="FILE", default="-", help="the record's value, byte for byte; default: -")
    verify.add_argument("--header", metavar="NAME:VALUE", action="append", default=[], help="a header; may be repeated")
    verify.add_argument("--headers", metavar="FILE", type=Path, help="headers, one NAME:VALUE a line")
    verify.add_argument("--model", help="for which model; default: the one that the command names")
    return parser


def _sidecar(asked: argparse.Namespace) -> int:
    from unship.fleet import Fleet
    from unship.log.address import checked_log
    from unship.replica.loading import LOAD_S
    from unship.sidecar.http import SidecarServer, is_loopback
    from unship.sidecar.sidecar import Sidecar
    from unship.sidecar.switches import ExecSwitch
    from unship.system.signals import stop_by_signal

    log = checked_log(asked.log or os.environ.get("UNSHIP_LOG"))
    switch = _switch(asked)
    stop = stop_by_signal()
    sidecar = Sidecar(
        lambda load: Fleet(
            asked.model,
            asked.version,
            on_version=load,
            load_timeout=LOAD_S if asked.exec_ is None else asked.exec_timeout + EXEC_MORE_S,
            log=log,
            trust=asked.trust,
            replica=asked.replica,
            state=asked.state,
        ),
        log,
        switch,
        pack=asked.pack,
        flags=asked.flags,
    )
    address = _address(asked.listen)
    try:
        server = SidecarServer(address, sidecar)
    except (OSError, UnicodeError) as error:
        what = getattr(error, "strerror", None) or "no such host"
        raise ConfigurationError(f"--listen: cannot listen there: {what}; name a free port of this machine") from None
    try:
        sidecar.start()
        thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="unship-http", daemon=True)
        thread.start()
        host, port = server.server_address[0], server.server_port
        if not is_loopback(host):
            sys.stderr.write(
                "unship-replica: listens beyond this machine: any client can send events for the replica\n"
            )
        # Only now is the newest command obeyed or pending, so a client that waits for this line sees it.
        where = f"[{host!s}]" if ":" in str(host) else str(host)
        sys.stdout.write(f"http://{where}:{port}\n")
        sys.stdout.flush()
        # A signal that arrives as a wait begins does not end it, and its handler runs after it.
        while not stop.wait(LOOK_S):
            pass
        server.shutdown()
    finally:
        if isinstance(switch, ExecSwitch):
            switch.stop()
        sidecar.close()
        server.server_close()
    return 0


def _switch(asked: argparse.Namespace) -> ExecSwitch | FileSwitch | None:
    from unship.sidecar.switches import ExecSwitch, FileSwitch

    if asked.file is not None:
        if not asked.file.parent.is_dir() or asked.file.is_dir():
            raise ConfigurationError("--file: expected a file in a folder that exists; make the folder first")
        return FileSwitch(asked.file)
    if asked.exec_ is None:
        return None
    if not 0 < asked.exec_timeout <= 3_600:
        raise ConfigurationError("--exec-timeout: expected more than 0 and at most 3600 seconds; correct it")
    try:
        return ExecSwitch(asked.exec_, asked.exec_timeout)
    except ValueError as error:
        raise ConfigurationError(f"--exec: {error}") from None


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigurationError(f"--listen: expected HOST:PORT, was '{text}'; such as {DEFAULT_LISTEN}")
    return host.strip("[]"), int(port)


def _emit(asked: argparse.Namespace) -> int:
    from unship.codec import Limits, decode_value
    from unship.events import Deployment
    from unship.log.address import checked_log
    from unship.log.link import Message
    from unship.rejections import Rejection
    from unship.topics import TOPIC_OF, key_of

    log = checked_log(asked.log or os.environ.get("UNSHIP_LOG"))
    # What the shell passed that is no UTF-8 comes back as the bytes it was, for the codec to refuse.
    value = sys.stdin.buffer.read(Limits().max_bytes + 1) if asked.json == "-" else os.fsencode(asked.json)
    event = decode_value(asked.kind, value)
    if isinstance(event, Rejection):
        raise ConfigurationError(f"the {asked.kind} would be rejected: {event.code} {event.detail}; correct it")
    headers: Headers = ()
    if isinstance(event, Deployment):
        value, headers = _signed(asked.keys, event, value)
    _append(log, TOPIC_OF[asked.kind], Message(value, key_of(event), tuple(headers)))
    return 0


def _signed(folder: Path, event: Deployment, value: bytes) -> tuple[bytes, Headers]:
    """Return the record of a deployment, signed if there is a key for it."""
    from unship.keys import TRUST_FILE, deployment_key, load_trust, new_nonce
    from unship.log.link import wall_ms
    from unship.signing import sign_event

    key = deployment_key(folder)
    if key is None:
        sys.stderr.write(
            f"unship-replica: no deployer.key in {printable(str(folder), ERROR_CHARS_MAX)}, so the deployment is not "
            "signed, and a monitor that may act ignores it; name the folder with --keys\n"
        )
        return value, ()
    return sign_event(event, key, load_trust(folder / TRUST_FILE).audience, wall_ms(), new_nonce())


def _append(log: str, topic: str, message: Message) -> None:
    """Write one record, or raise within `EMIT_S` seconds."""
    import time

    from unship.log.address import connector

    deadline = time.monotonic() + EMIT_S  # noqa: TID251
    link, batches = connector(log)(), {topic: [message]}
    try:
        for attempt in range(EMIT_TRIES):
            try:
                refusals = link.append(batches, lambda: time.monotonic() > deadline)  # noqa: TID251
                break
            except UnshipError:
                if attempt == EMIT_TRIES - 1 or time.monotonic() > deadline:  # noqa: TID251
                    raise
        for refusal in refusals:
            raise ConfigurationError(f"the log refused the event: {refusal.reason}: {refusal.detail}; correct it")
    finally:
        link.close()


def _verify(asked: argparse.Namespace) -> int:
    import time

    from unship.commands import COMMAND_BYTES_MAX, Command, decode_command, epoch_in
    from unship.keys import load_trust
    from unship.replica.fence import FenceState, judge
    from unship.signing import COMMAND_TYPE, TrustedKey, verify

    trust = load_trust(asked.trust)
    headers = _headers(asked)
    value = _read(None if asked.value == "-" else Path(asked.value), COMMAND_BYTES_MAX + 1)
    model = asked.model
    signer = verify(value, headers, trust, "controller", COMMAND_TYPE, epoch_of=epoch_in)
    if model is None and isinstance(signer, TrustedKey):
        # Parsed only after it is known who wrote it, as a replica does.
        command = decode_command(value)
        model = command.model if isinstance(command, Command) else None
    now_ms = time.time_ns() // 1_000_000  # noqa: TID251
    _, verdict = judge(FenceState(model=model or "-", audience=trust.audience), value, headers, trust, now_ms)
    if verdict.code is not None or verdict.command is None:
        sys.stdout.write(f"{verdict.code}\n")
        return 1
    sys.stdout.write("good\n")
    return 0


def _headers(asked: argparse.Namespace) -> Headers:
    lines = [os.fsencode(text) for text in asked.header]
    if asked.headers is not None:
        data = _read(asked.headers, HEADERS_BYTES_MAX + 1)
        if len(data) > HEADERS_BYTES_MAX:
            raise ConfigurationError(f"--headers: more than {HEADERS_BYTES_MAX} bytes; keep only those of the record")
        lines += data.splitlines()
    pairs = [line.partition(b":") for line in lines if line.strip()]
    return [(name.strip().decode(errors="replace"), value.strip()) for name, _, value in pairs]


def _read(path: Path | None, limit: int) -> bytes:
    if path is None:
        return sys.stdin.buffer.read(limit)
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}; name a file of the record") from None


if __name__ == "__main__":
    sys.exit(main())

"""Define the command line `unship`: data on stdout, progress on stderr; each command imports what it needs."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from console.settings import Exit, Settings, StandardOutputRefused


def _shown(error: Exception, ctx: click.Context) -> str:
    """Return the message of an error without what came from the environment by way of the configuration."""
    from console.sentences import clean
    from streams.config.file import hidden

    return clean(hidden(str(error), ctx.obj.config if isinstance(ctx.obj, Settings) else None))


def _common_options(**more: Any) -> list[click.Option]:
    """Return the options that are taken before and after the name of every command.

    Args:
        more: What else is passed to each `click.Option`.
    """
    levels = click.Choice(["debug", "info", "warning", "error"], case_sensitive=False)
    return [
        click.Option(
            ["-c", "--config"],
            type=click.Path(path_type=Path),
            help="Configuration file (default: ./unship.yaml if it exists).",
            **more,
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Machine-readable output.", **more),
        click.Option(["-q", "--quiet"], is_flag=True, help="No progress and no remarks on stderr.", **more),
        click.Option(["--no-color"], is_flag=True, help="No colours.", **more),
        click.Option(
            ["-l", "--level"], type=levels, default="warning", show_default=True, help="Least logged level.", **more
        ),
        click.Option(
            ["--log", "log"],
            metavar="URL",
            help="Log with the topics: embedded:DIR or kafka://HOST:PORT[,HOST:PORT].",
            **more,
        ),
    ]


def _set_after(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    """Take an option that was given after the name of a command."""
    given = option.name is not None and ctx.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    if given and isinstance(ctx.obj, Settings):
        options = {"color": False} if option.name == "no_color" else {str(option.name): value}
        ctx.obj = ctx.obj.with_options(**options)


def _shown_path(error: OSError, unnamed: str) -> str:
    """Return the file that an error is about without what controls a terminal; `unnamed` if it names none."""
    from console.sentences import clean

    return clean(error.filename or unnamed)


def _cleaned(error: click.UsageError) -> click.UsageError:
    """Return an error whose message quotes an argument without what controls a terminal."""
    from console.sentences import clean

    error.message = clean(error.message)
    return error


class Group(click.Group):
    """Give every command the common options, and end it with a sentence and an exit code when something is wrong."""

    group_class = type

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command that takes the common options too."""
        taken = {text for option in cmd.params for text in option.opts}
        # Hidden, because the help of the whole program lists them.
        common = _common_options(hidden=True, expose_value=False, callback=_set_after)
        cmd.params += [option for option in common if not taken & set(option.opts)]
        super().add_command(cmd, name)

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        """Parse the options of the program."""
        try:
            return super().make_context(*args, **more)
        except click.UsageError as error:
            raise _cleaned(error) from None

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command line; a help page that standard output does not take is an error like any other."""
        try:
            try:
                return super().main(*arguments, **options)
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except OSError as error:
            click.echo(f"unship: standard output: {error.strerror}", err=True)
            _drop_output()
            sys.exit(Exit.USAGE)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        from unship.errors import BrokerUnreachable, TimedOut, UnshipError

        try:
            _prepare_streams()
            try:
                return super().invoke(ctx)
            finally:
                # Now, where an error can be reported, and not at the end of the interpreter.
                sys.stdout.flush()
        except click.UsageError as error:
            raise _cleaned(error) from None
        except BrokenPipeError:
            _drop_output()
            ctx.exit(Exit.PIPE_CLOSED)
        except StandardOutputRefused as error:
            _drop_output()
            if isinstance(error.__cause__, BrokenPipeError):
                ctx.exit(Exit.PIPE_CLOSED)
            click.echo(f"unship: {error}", err=True)
            ctx.exit(Exit.USAGE)
        except KeyboardInterrupt:
            click.echo("unship: interrupted", err=True)
            ctx.exit(Exit.INTERRUPTED)
        except UnshipError as error:
            click.echo(f"unship: {_shown(error, ctx)}", err=True)
            codes = {BrokerUnreachable: Exit.UNREACHABLE, TimedOut: Exit.TIMED_OUT}
            ctx.exit(next((code for kind, code in codes.items() if isinstance(error, kind)), Exit.USAGE))
        except PermissionError as error:
            # Files are looked for in many places, and any of them may belong to another user.
            click.echo(f"unship: {_shown_path(error, 'a file')}: {error.strerror}; check its owner and mode", err=True)
            ctx.exit(Exit.USAGE)
        except OSError as error:
            # A full disk, a device that takes nothing, a folder in the place of a file.
            click.echo(f"unship: {_shown_path(error, 'standard output')}: {error.strerror or error}", err=True)
            _drop_output()
            ctx.exit(Exit.USAGE)


def _prepare_streams() -> None:
    """Make sure that whatever is printed can be printed.

    Raises:
        ConfigurationError: Standard output is closed: the next file that is opened would take its number.
    """
    from unship.errors import ConfigurationError

    closed = sys.stdout is None
    # In the order of their numbers, which the null device takes.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that is not of UTF-8 shows what it cannot as an escape.
            stream.reconfigure(errors="backslashreplace")
    if closed:
        raise ConfigurationError("standard output is closed; redirect it, to /dev/null if it is not wanted")


def _drop_output() -> None:
    """Drop what is buffered: nobody takes it, and the interpreter would fail to write it at its end."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=Group, params=list(_common_options()), context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(
    ctx: click.Context, config: Path | None, as_json: bool, quiet: bool, no_color: bool, level: str, log: str | None
) -> None:
    """Watch serving models through their own events, and take a bad version back.

    Exit codes: 0 good, 1 a finding, 2 usage, configuration, input or output, 3 broker unreachable, 4 timed out,
    130 interrupted.
    """
    found = config is None and Path("unship.yaml").is_file()
    config = Path("unship.yaml") if found else config
    ctx.obj = Settings(config, log, as_json, quiet, not no_color, level, found)


@main.command()
@click.argument("source")
@click.option("--batch", type=click.IntRange(1, 1_000_000), default=4096, show_default=True, help="Lines read at once.")
@click.option("--stop-after", type=click.IntRange(0), metavar="LINE", help="Read up to this line and no further.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Save a snapshot at the end.")
@click.option("--from", "resume", type=click.Path(path_type=Path), metavar="FILE", help="Resume from a snapshot.")
@click.option("--until", metavar="TS", help="Advance the clock to this time after the last line (ms or RFC 3339).")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a complete recording: sources, ledger, decisions.",
)
@click.pass_obj
def replay(settings: Settings, /, source: str, **options: Any) -> None:
    """Fold a recording through the same code as the live monitor: one decision per line.

    SOURCE is a recording (NDJSON; gzip and Zstandard are read too), - for standard input, or a log, embedded:DIR.
    """
    from console.commands.replay import replay_command

    sys.exit(replay_command(settings, source, **options))


@main.command()
@click.argument("source")
@click.option("--decision", metavar="ID", help="Check that this decision is reproduced, and no other.")
@click.option("--journal", type=click.Path(path_type=Path), metavar="FILE", help="Decisions, if SOURCE holds none.")
@click.pass_obj
def audit(settings: Settings, source: str, decision: str | None, journal: Path | None) -> None:
    """Recompute every decision and compare it with the journal, bit for bit.

    SOURCE is a log, embedded:DIR, or a recording with its decisions, such as `unship record` and `unship replay
    --record` write, or events and decisions in one file. Exit code 1 names the first difference. A log is also
    compared with its sources and its commands; signatures are checked if the folder of keys has a trust.json. A
    ./unship.yaml is not read, unless -c names it, because SOURCE may be of others; no file of it is changed.
    """
    from console.commands.audit import audit_command

    sys.exit(audit_command(settings, source, decision, journal))


@main.command()
@click.argument("target", metavar="FILE")
@click.option("--from", "since", metavar="TS", help="Leave out events, commands and acks before (ms or RFC 3339).")
@click.option("--to", "until", metavar="TS", help="Leave out everything after (ms or RFC 3339).")
@click.pass_obj
def record(settings: Settings, target: str, since: str | None, until: str | None) -> None:
    """Copy the topics of the log into a recording, FILE (.gz is compressed), or - for standard output.

    The ledger and the decisions are always copied from their first record, because neither can be replayed without it.
    """
    from console.commands.record import record_command

    sys.exit(record_command(settings, target, since, until))


@main.command()
@click.argument("decision")
@click.option(
    "--in", "source", metavar="SOURCE", help="A recording, a file of decisions, - for standard input, or embedded:DIR."
)
@click.pass_obj
def explain(settings: Settings, decision: str, source: str | None) -> None:
    """Explain on one page why a decision was taken.

    DECISION is its id, or `last`: the newest that did or asked for something. Without --in the log is read.
    """
    from console.commands.explain import explain_command

    sys.exit(explain_command(settings, decision, source))


@main.command()
@click.argument("model", required=False)
@click.option("--since", metavar="TS", help="Leave out what was decided before (ms or RFC 3339).")
@click.option(
    "--action",
    type=click.Choice(["rollback", "propose", "observe", "page", "none"]),
    help="Only decisions with this action.",
)
@click.option(
    "--in", "source", metavar="SOURCE", help="A recording, a file of decisions, - for standard input, or embedded:DIR."
)
@click.pass_obj
def decisions(settings: Settings, model: str | None, since: str | None, action: str | None, source: str | None) -> None:
    """List what was decided, the newest last; with --json each decision whole."""
    from console.commands.decisions import decisions_command

    sys.exit(decisions_command(settings, model, source, since, action))


@main.command()
@click.option("--scenario", default="decay", show_default=True, help="Scenario to play; `list` prints all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of arrivals, routing and delays.")
@click.option("--speed", type=click.FloatRange(0.01, 1_000), default=1.0, show_default=True, help="Speed-up factor.")
@click.option("--no-holdback", is_flag=True, help="Release v42 without keeping v41 as a concurrent holdback.")
@click.option("--no-web", is_flag=True, hidden=True, help="Accepted for scripts: there is no web page yet.")
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help="Keep the recording in this file.")
@click.pass_obj
def demo(
    settings: Settings,
    scenario: str,
    seed: int,
    speed: float,
    no_holdback: bool,
    no_web: bool,
    record: Path | None,
) -> None:
    """Serve real census rows until a version decays silently, and watch the rollback."""
    from console.demo.command import demo_command

    sys.exit(demo_command(settings, scenario, seed, speed, not no_holdback, record))


@main.command()
@click.option("--web", metavar="HOST:PORT", help="Serve metrics, health, status and verdicts there.")
@click.option("--without-web", is_flag=True, help="Serve nothing, whatever the configuration names.")
@click.pass_obj
def run(settings: Settings, web: str | None, without_web: bool) -> None:
    """Run the monitor until SIGTERM or SIGINT.

    Its web is read-only, and listens where --web or `web.listen` of the configuration names an address: one of this
    machine, unless `web.token_file` names a token that requests have to carry.

    On Kafka it shuts down within ten seconds whatever the broker does, and at once on a second signal. Exit codes:
    0 all progress is committed, 3 no broker answered, 4 the deadline passed. What was not committed is read again.
    """
    from console.commands.run import run_command

    sys.exit(run_command(settings, listen=web, web=not without_web))


@main.command()
@click.argument("model", required=False)
@click.option("--exit-code", is_flag=True, help="Exit code 1 also if the version that serves got worse.")
@click.pass_obj
def status(settings: Settings, model: str | None, exit_code: bool) -> None:
    """Show desired and actual versions, what is known and waited for, and how old that is.

    Exit code 1 if a replica has not converged, or if the status is STALE: its monitor or all replicas are silent.
    """
    from console.commands.status import status_command

    sys.exit(status_command(settings, model, exit_code=exit_code))


@main.command()
@click.argument("kind", type=click.Choice(["prediction", "feedback", "deployment"]))
@click.argument("event")
@click.pass_obj
def emit(settings: Settings, kind: str, event: str) -> None:
    """Send one event, given as JSON (- reads it from standard input).

    A deployment is signed with the deployer.key of the folder of keys, or else with its operator.key.
    """
    from console.commands.emit import emit_command

    sys.exit(emit_command(settings, kind, event))


@main.group()
def keys() -> None:
    """Make, list and revoke keys."""


ROLE = click.Choice(["controller", "operator", "deployer"])


@keys.command("new")
@click.option("--audience", default="default", show_default=True, help="The installation that commands are bound to.")
@click.option("--role", type=ROLE, help="Make one more key, for this role, in place of one that was revoked.")
@click.pass_obj
def keys_new(settings: Settings, audience: str, role: Any) -> None:
    """Make controller.key, operator.key, deployer.key and trust.json; replicas get trust.json only."""
    from console.commands.keys import new_command

    sys.exit(new_command(settings, audience, role))


@keys.command("list")
@click.pass_obj
def keys_list(settings: Settings) -> None:
    """Show the keys of trust.json: name, id, roles, and which are revoked."""
    from console.commands.keys import list_command

    sys.exit(list_command(settings))


@keys.command("revoke")
@click.argument("name")
@click.option("--from", "since", metavar="TS", help="Keep what the log appended before (ms or RFC 3339); default: now.")
@click.option("--from-epoch", "epoch", metavar="I.O.N", help="Keep commands and decisions of epochs below, as 0.458.0.")
@click.pass_obj
def keys_revoke(settings: Settings, name: str, since: str | None, epoch: str | None) -> None:
    """Revoke a key, given by its name or id, in trust.json; a monitor that runs reads the file again by itself.

    Replicas do as well, once they have the new trust.json. What a revoked controller's key has commanded binds them no
    more.
    """
    from console.commands.keys import revoke_command

    sys.exit(revoke_command(settings, name, since, epoch))


ACTS = click.Choice(["approve", "reject", "rollback", "pin", "unpin", "hold", "resume", "release", "renew"])


@main.command()
@click.argument("act", type=ACTS)
@click.argument("model")
@click.option("--reason", required=True, metavar="TEXT", help="Reason, recorded in the ledger.")
@click.option("--to", metavar="V", help="For rollback: the version to go back to.")
@click.option("--version", metavar="V", help="For release, and for pin of another version than the one that serves.")
@click.option("--decision", metavar="ID", help="For approve and reject: the proposal; default: the open one.")
@click.option(
    "--override", is_flag=True, help="Also under a hold, or for a version in quarantine or not known; recorded."
)
@click.option("--incarnation", type=click.IntRange(1), metavar="N", help="For renew: the new one; default: the next.")
@click.option("--force", is_flag=True, help="Append it whatever is known here, and let the monitor decide.")
@click.option("--wait", type=click.FloatRange(0.0), metavar="S", help="Wait so many seconds until replicas obey.")
@click.option("--dry-run", is_flag=True, help="Only show what it would lead to now: nothing is signed or written.")
@click.pass_obj
def ctl(
    settings: Settings, /, act: Any, model: str, reason: str, force: bool, wait: Any, dry_run: bool, **asked: Any
) -> None:
    """Append a signed operator act for a model, and print it; needs operator.key.

    \b
    hold      stop automatic acts, and acts of operators without --override
    resume    end a hold, or a stop by a limit
    pin       keep a version whatever is deployed or found; unpin ends it
    rollback  go back to a version, and put the one that served in quarantine
    release   take a version out of quarantine
    approve   follow the open proposal, if the guards still agree; reject drops it
    renew     begin a new incarnation of the epochs of its commands: replicas refuse every epoch below the
              highest that they accepted, so those of a ledger that replaces a lost one until then

    What the monitor made of it is in `unship decisions` and `unship status`. With --wait it ends with 0 when every
    living replica obeys, 1 if the monitor refused the act, and 4 when time is up: then it names who does not obey, and
    why.
    """
    from console.commands.ctl import Asked, How, ctl_command

    sys.exit(ctl_command(settings, act, model, reason, Asked(**asked), How(force, dry_run, wait)))


@main.command()
@click.argument("model")
@click.option("--in", "source", metavar="SOURCE", help="A recording of a log, or embedded:DIR.")
@click.pass_obj
def prove(settings: Settings, model: str, source: str | None) -> None:
    """Show from the answers themselves which version serves since the newest command for a model.

    Each prediction carries the version and the epoch that it was made under. They are counted, and compared with what
    each replica acknowledged; exit code 1 if a living replica contradicts its ack or does not obey. Reads predictions.
    """
    from console.commands.operating.prove import prove_command

    sys.exit(prove_command(settings, model, source))


@main.command()
@click.option("--dry-run", is_flag=True, help="Only show how many records would be removed.")
@click.pass_obj
def trim(settings: Settings, dry_run: bool) -> None:
    """Remove from an embedded log what nobody needs any more, and return its space to the disk.

    Predictions and feedback leave that no label can join any more, by the longest horizon of the configuration and of
    the newest snapshots; what a restart reads again stays, and so do ledger and decisions. The monitor does the same
    by itself, in larger pieces; it may run meanwhile.
    """
    from console.trim_log import trim_command

    sys.exit(trim_command(settings, dry_run))


@main.group()
def alerts() -> None:
    """Try where alerts go."""


@alerts.command("test")
@click.pass_obj
def alerts_test(settings: Settings) -> None:
    """Send a test alert to every sink of `alerts`, and its resolution; exit code 1 if one did not take them."""
    from console.alerting import alerts_test_command

    sys.exit(alerts_test_command(settings))


TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Longest wait, in seconds.",
)


@main.group()
def topics() -> None:
    """Show or create the topics of a Kafka log. Nothing is ever deleted, and no retention is shortened."""


@topics.command("plan")
@TIMEOUT
@click.pass_obj
def topics_plan(settings: Settings, timeout: float) -> None:
    """Show the actual and the expected topics; exit code 1 if they differ."""
    from console.commands.topics import topics_command

    sys.exit(topics_command(settings, False, timeout))


@topics.command("apply")
@TIMEOUT
@click.pass_obj
def topics_apply(settings: Settings, timeout: float) -> None:
    """Create topics and change their settings; exit code 1 if one needs an operator's decision."""
    from console.commands.topics import topics_command

    sys.exit(topics_command(settings, True, timeout))


@topics.command("renew")
@click.argument("partition", type=click.IntRange(0))
@click.pass_obj
def topics_renew(settings: Settings, partition: int) -> None:
    """Start a new incarnation of a partition of predictions and feedback whose topics were recreated or truncated.

    The monitor stops reading a partition in which an offset holds another record than before, until this command.
    """
    from console.commands.topics import renew_command

    sys.exit(renew_command(settings, partition))


@main.command()
@click.option(
    "--role",
    type=click.Choice(["emitter", "labeler", "monitor", "operator", "auditor", "installer"]),
    default="monitor",
    show_default=True,
    help="Role whose rights the credentials should have.",
)
@TIMEOUT
@click.pass_obj
def check(settings: Settings, role: str, timeout: float) -> None:
    """Check configuration, keys, log, topics, rights and labels: each line with its fix; exit code 1 on an error."""
    from console.commands.check import check_command

    sys.exit(check_command(settings, role, timeout))


@main.command()
@click.argument("what", type=click.Choice(["events", "config", "decision"]))
def schema(what: str) -> None:
    """Print the JSON Schema of the events, of the configuration or of a decision."""
    from console.commands.schema import schema_text

    click.echo(schema_text(what))


@main.command()
@click.pass_obj
def version(settings: Settings) -> None:
    """Print the versions of the monitor, its fold, and the libraries that decisions depend on."""
    from console.commands.version import version_text

    click.echo(version_text(settings.as_json))

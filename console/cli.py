"""The command line `unship`. stdout carries data, stderr progress; every command imports what it needs when it runs."""

import sys
from pathlib import Path
from typing import Any

import click

from console.settings import TIMED_OUT, UNREACHABLE, USAGE, Settings


class Group(click.Group):
    """A group whose commands end with a sentence and an exit code instead of a traceback when something is wrong."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        from unship.errors import BrokerUnreachable, TimedOut, UnshipError

        try:
            return super().invoke(ctx)
        except (BrokerUnreachable, TimedOut) as error:
            click.echo(f"unship: {error}", err=True)
            ctx.exit(UNREACHABLE if isinstance(error, BrokerUnreachable) else TIMED_OUT)
        except UnshipError as error:
            click.echo(f"unship: {error}", err=True)
            ctx.exit(USAGE)
        except PermissionError as error:
            # Files are looked for in many places, and all of them may be another user's.
            click.echo(f"unship: {error.filename or 'a file'}: {error.strerror}; check its owner and mode", err=True)
            ctx.exit(USAGE)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c", "--config", type=click.Path(path_type=Path), help="Configuration file (default: ./unship.yaml if it exists)."
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no remarks on stderr.")
@click.option("--no-color", is_flag=True, help="No colours.")
@click.option(
    "-l",
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    default="warning",
    show_default=True,
    help="Least level that is logged.",
)
@click.option(
    "--log", "log", metavar="URL", help="Where the topics are: embedded:DIR or kafka://HOST:PORT[,HOST:PORT]."
)
@click.pass_context
def main(
    ctx: click.Context, config: Path | None, as_json: bool, quiet: bool, no_color: bool, level: str, log: str | None
) -> None:
    """Watch serving models through their own events, and take a bad version back.

    Exit codes: 0 good, 1 a finding, 2 usage or configuration, 3 broker unreachable, 4 timed out.
    """
    if config is None and Path("unship.yaml").is_file():
        config = Path("unship.yaml")
    ctx.obj = Settings(config, log, as_json, quiet, not no_color, level)


@main.command()
@click.argument("source")
@click.option("--batch", type=click.IntRange(1, 1_000_000), default=4096, show_default=True, help="Lines read at once.")
@click.option("--stop-after", type=click.IntRange(0), metavar="LINE", help="Read up to this line and no further.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="Save a snapshot at the end.")
@click.option("--from", "resume", type=click.Path(path_type=Path), metavar="FILE", help="Go on from a saved snapshot.")
@click.option("--until", metavar="TS", help="Let the clock go on to this time after the last line (ms or RFC 3339).")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a complete recording: sources, ledger, decisions.",
)
@click.pass_obj
def replay(settings: Settings, /, source: str, **options: Any) -> None:
    """Fold a recording through the same code as the live monitor: one decision per line.

    SOURCE is a recording (NDJSON, .gz is read too), - for standard input, or a log, embedded:DIR.
    """
    from console.commands.replay import replay_command

    sys.exit(replay_command(settings, source, **options))


@main.command()
@click.argument("source")
@click.option("--decision", metavar="ID", help="Only this decision has to be reproduced.")
@click.option(
    "--journal", type=click.Path(path_type=Path), metavar="FILE", help="Decisions, if SOURCE does not hold them."
)
@click.pass_obj
def audit(settings: Settings, source: str, decision: str | None, journal: Path | None) -> None:
    """Compute every decision again and compare it with the journal, bit for bit.

    SOURCE is a log, embedded:DIR, or a recording with its decisions, such as `unship record` and `unship replay
    --record` write, or events and decisions in one file. Exit code 1 names the first difference. What a log holds is
    compared with its sources and its commands as well; signatures are checked if the configuration's keys have a
    trust.json.
    """
    from console.commands.audit import audit_command

    sys.exit(audit_command(settings, source, decision, journal))


@main.command()
@click.argument("target", metavar="FILE")
@click.option("--from", "since", metavar="TS", help="Leave out events, commands and acks before (ms or RFC 3339).")
@click.option("--to", "until", metavar="TS", help="Leave out everything after (ms or RFC 3339).")
@click.pass_obj
def record(settings: Settings, target: str, since: str | None, until: str | None) -> None:
    """Copy the topics of the log into a recording, FILE (.gz is packed), or - for standard output.

    The ledger and the decisions are always copied from their first record on, because they tell nothing without.
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
    """Say on one page why a decision was taken. DECISION is its id, or `last`; without --in the log is asked."""
    from console.commands.explain import explain_command

    sys.exit(explain_command(settings, decision, source))


@main.command()
@click.option("--scenario", default="decay", show_default=True, help="What happens; `list` names them all.")
@click.option("--seed", type=int, default=1, show_default=True, help="Another seed, another course of the same story.")
@click.option("--speed", type=click.FloatRange(0.01, 1_000), default=1.0, show_default=True, help="How much faster.")
@click.option("--no-holdback", is_flag=True, help="v41 does not go on answering beside v42.")
@click.option("--no-web", is_flag=True, help="No web page; there is none yet.")
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help="Keep the recording.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of tables, as with --json before it.")
@click.pass_obj
def demo(
    settings: Settings,
    scenario: str,
    seed: int,
    speed: float,
    no_holdback: bool,
    no_web: bool,
    record: Path | None,
    as_json: bool,
) -> None:
    """Let replicas answer on real census rows until a version decays silently, and see it taken back."""
    from console.demo.command import demo_command

    settings.as_json = settings.as_json or as_json
    sys.exit(demo_command(settings, scenario, seed, speed, not no_holdback, record))


@main.command()
@click.option("--without-web", is_flag=True, help="No web page; there is none yet.")
@click.pass_obj
def run(settings: Settings, without_web: bool) -> None:
    """Run the monitor until SIGTERM or SIGINT ends it.

    On Kafka it ends within ten seconds whatever the broker does, and at once by a second signal: with 0 where all was
    handed over, 3 where no broker answered, 4 where it had to be cut off. What was not handed over is read again.
    """
    from console.commands.run import run_command

    sys.exit(run_command(settings))


@main.command()
@click.argument("model", required=False)
@click.pass_obj
def status(settings: Settings, model: str | None) -> None:
    """Show what should serve, what does, and how the evidence stands; exit code 1 if a replica has not obeyed."""
    from console.commands.status import status_command

    sys.exit(status_command(settings, model))


@main.command()
@click.argument("kind", type=click.Choice(["prediction", "feedback", "deployment"]))
@click.argument("event")
@click.pass_obj
def emit(settings: Settings, kind: str, event: str) -> None:
    """Send one event, given as JSON (- reads it from standard input)."""
    from console.commands.emit import emit_command

    sys.exit(emit_command(settings, kind, event))


@main.group()
def keys() -> None:
    """Make keys."""


@keys.command("new")
@click.option("--audience", default="default", show_default=True, help="For which fleet commands will be meant.")
@click.pass_obj
def keys_new(settings: Settings, audience: str) -> None:
    """Make controller.key, operator.key and trust.json; replicas get trust.json only."""
    from console.commands.emit import keys_command

    sys.exit(keys_command(settings, audience))


@main.command()
@click.argument("act", type=click.Choice(["renew"]))
@click.argument("model")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it stands in the ledger.")
@click.option("--incarnation", type=click.IntRange(1), metavar="N", help="Which one begins, if not the next.")
@click.pass_obj
def ctl(settings: Settings, act: str, model: str, reason: str, incarnation: int | None) -> None:
    """Give a signed order for a model; it needs operator.key.

    renew: the epochs of its commands begin with a new incarnation from here on. Replicas obey no epoch lower than the
    highest that they have seen, so a new ledger in the place of a lost one is not heard until this was said.
    """
    from console.commands.ctl import renew_command

    sys.exit(renew_command(settings, model, reason, incarnation))


TIMEOUT = click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long to wait, in s.",
)


@main.group()
def topics() -> None:
    """Show or make the topics of a Kafka log. Nothing is ever deleted, and nothing is kept for less time."""


@topics.command("plan")
@TIMEOUT
@click.pass_obj
def topics_plan(settings: Settings, timeout: float) -> None:
    """Show what the topics are and should be; exit code 1 if they differ."""
    from console.commands.topics import topics_command

    sys.exit(topics_command(settings, False, timeout))


@topics.command("apply")
@TIMEOUT
@click.pass_obj
def topics_apply(settings: Settings, timeout: float) -> None:
    """Make the topics what they should be; exit code 1 if one needs a person to decide."""
    from console.commands.topics import topics_command

    sys.exit(topics_command(settings, True, timeout))


@topics.command("renew")
@click.argument("partition", type=click.IntRange(0))
@click.pass_obj
def topics_renew(settings: Settings, partition: int) -> None:
    """Say that a partition of predictions and feedback begins anew, because its topics were made again or cut off.

    The monitor refuses to read on where an offset holds another record than it did, until somebody says this.
    """
    from console.commands.topics import renew_command

    sys.exit(renew_command(settings, partition))


@main.command()
@click.option(
    "--role",
    type=click.Choice(["emitter", "labeler", "monitor", "operator", "auditor", "installer"]),
    default="monitor",
    show_default=True,
    help="Whose rights the credentials should have.",
)
@TIMEOUT
@click.pass_obj
def check(settings: Settings, role: str, timeout: float) -> None:
    """Check configuration, keys, log, topics and rights: each line with its fix; exit code 1 if one is an error."""
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
    """Print the version of the monitor, of its fold, and of what decisions can depend on."""
    from console.commands.version import version_text

    click.echo(version_text(settings.as_json))

"""The command line: `rq-etl`. The commands are in jobs/commands; here they come together, and errors are reported."""

import sys
from typing import TYPE_CHECKING

import click

from jobs.commands.alerts import alerts
from jobs.commands.cancel import cancel
from jobs.commands.completion import VARIABLE, completion
from jobs.commands.cursors import cursor
from jobs.commands.groups import Group
from jobs.commands.look import deliveries, logs, plan, runs, show, status
from jobs.commands.operate import clients, cron, dashboard, doctor, metrics, schedule, up, worker, workers
from jobs.commands.options import common, echo, shared
from jobs.commands.project import demo, init, validate
from jobs.commands.run import backfill, rejects, retry, run, wait

if TYPE_CHECKING:
    from etl.errors import EtlError

# By the heading under which `--help` lists them; a new command is a name here, and its import.
COMMANDS = {
    "Begin": (demo, init, validate, doctor, up, completion),
    "Run": (plan, run, backfill, wait, retry, cancel),
    "Look": (status, deliveries, alerts, runs, show, logs, rejects),
    "Operate": (clients, schedule, cursor, worker, workers, cron, dashboard, metrics),
}


@click.group(
    cls=Group,
    headings={heading: [each.name for each in commands] for heading, commands in COMMANDS.items()},
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="rq-etl")
@common
def cli() -> None:
    """Extract, clean and load many clients' files and tables as RQ jobs."""


for commands in COMMANDS.values():
    for each in commands:
        cli.add_command(each)


def main() -> None:
    """Run the command line; what goes wrong is one or two lines on stderr and an exit code."""
    shared.forget()
    try:
        command()
    except click.exceptions.NoArgsIsHelpError as exc:
        echo(exc.format_message())
        sys.exit(2)
    except click.ClickException as exc:
        sys.exit(misused(exc))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as exc:
        sys.exit(fail(exc))


def command() -> None:
    """Run the command; once more where malformed data in Redis prevented it, and could be set aside."""
    try:
        cli(standalone_mode=False, complete_var=VARIABLE)
    except Exception as exc:
        if shared.opened is None:
            raise
        from jobs.store import malformed

        if not malformed.may_be_why(exc) or not malformed.set_aside(shared.opened.connection):
            raise
        shared.forget()
        cli(standalone_mode=False, complete_var=VARIABLE)


def misused(exc: click.ClickException) -> int:
    """Report what is wrong with the command itself, as any other error, and return the exit code."""
    from etl.errors import ConfigError

    shared.json = shared.json or "--json" in sys.argv  # the mistake may come before it
    context = getattr(exc, "ctx", None)
    return report(ConfigError(exc.format_message(), f"see {context.command_path if context else 'rq-etl'} --help"))


def fail(exc: Exception) -> int:
    """Report an error and return the exit code; what is not the user's to fix keeps its traceback."""
    from redis.exceptions import RedisError

    from etl.errors import EtlError
    from jobs.store import redis_errors

    if isinstance(exc, RedisError):
        exc = redis_errors.translate(exc)
    if not isinstance(exc, EtlError):
        raise exc
    return report(exc)


def report(error: "EtlError") -> int:
    """Print an error on stderr, with --json also as the one document on stdout, and return its exit code."""
    echo(f"rq-etl: {error}", err=True)
    if shared.json:
        shared.print({"error": error.what, "cure": error.cure, "exit": error.exit_code}, lambda: None)
    return error.exit_code


if __name__ == "__main__":
    main()

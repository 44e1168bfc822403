"""Commands of alerts: what is open, that somebody knows of it, whether every address takes a message."""

import getpass
import socket
import sys
from datetime import UTC, datetime

import click

from jobs.commands.completion import RUN
from jobs.commands.groups import Group
from jobs.commands.options import common, echo, shared


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
@common
def alerts(ctx: click.Context) -> None:
    """Show what is wrong now, since when, and who was informed of it."""
    if ctx.invoked_subcommand is None:
        from jobs.alerts import listing

        session = shared.session(workers=0)
        found = listing.listing(session.config, session.connection, datetime.now(UTC))
        shared.print(found, lambda: listing.show(found))


@alerts.command()
@click.argument("names", nargs=-1, shell_complete=RUN, metavar="[CLIENT/PIPELINE…]")
@click.option("--all", "everything", is_flag=True, help="Everything that is open.")
@common
def ack(names: tuple[str, ...], everything: bool) -> None:
    """Say that you know of what is wrong: it is not said again."""
    from jobs.alerts import listing

    if bool(names) == everything:
        raise click.UsageError("give CLIENT/PIPELINE, CLIENT, or --all")
    session = shared.session(workers=0)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    done = listing.acknowledge(session.config, session.connection, names, by, datetime.now(UTC))
    shared.print(
        done,
        lambda: echo("\n".join(f"acknowledged {line['who']}: {line['what']}" for line in done) or "nothing is open"),
    )


@alerts.command()
@common
def test() -> None:
    """Send a message to every address now, and say which have taken it."""
    from etl.errors import ConfigError
    from jobs.alerts import send

    answers = send.test(shared.configuration())
    if not answers:
        raise ConfigError("no address is configured", 'add [alerts] to = ["${ALERT_URL}"] to etl.toml')
    lines = [{"place": each.place, "ok": each.error is None, "error": each.error} for each in answers]
    shared.print(lines, lambda: echo("\n".join(f"{each.place}: {each.error or 'taken'}" for each in answers)))
    sys.exit(int(any(each.error for each in answers)))

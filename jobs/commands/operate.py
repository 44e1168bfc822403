"""Commands for whoever operates the system: clients, schedules, workers, the dashboard, the doctor."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from jobs.commands.completion import CLIENT
from jobs.commands.groups import Group
from jobs.commands.options import common, echo, shared


@click.command()
@click.option("--fix", is_flag=True, help="First rescue lost jobs, close lost runs and remove old leftovers.")
@common
def doctor(fix: bool) -> None:
    """Check what a run needs; each failure comes with its remedy."""
    from jobs.views import doctor

    fixed = doctor.fix(shared.config, shared.redis) if fix else []
    found = [*fixed, *doctor.examine(shared.config, shared.redis), *_addresses()]
    shared.print(found, lambda: doctor.show(found))
    sys.exit(doctor.exit_code(found))


def _addresses() -> list[dict[str, Any]]:
    """Return what is wrong with the addresses of alerts; they are above what the doctor knows."""
    from etl.errors import ConfigError
    from jobs.alerts import send

    try:
        found = send.mistakes(shared.configuration())
    except ConfigError:  # the doctor has said so
        return []
    return [{"check": "alerts", "ok": False, "what": each.what, "cure": each.cure, "exit": 0} for each in found]


@click.command()
@click.option("-n", "count", type=click.IntRange(1), default=1, help="How many processes.")
@click.option("--burst", is_flag=True, help="End when there is nothing to do.")
@common
def worker(count: int, burst: bool) -> None:
    """Work on jobs: `rq worker` with our classes."""
    from jobs.commands import processes

    sys.exit(processes.worker(shared.config, shared.redis, count, burst=burst))


@click.command()
@common
def cron() -> None:
    """Start what schedules and deliveries ask for, until interrupted."""
    from jobs.commands import processes

    sys.exit(processes.cron(shared.config, shared.redis))


@click.command()
@common
def workers() -> None:
    """List the workers that are alive, and what they do."""
    from jobs.views import clients, console

    found = clients.workers(shared.session(workers=0))
    columns = ("name", "host", "pid", "state", "job", "jobs_done", "heartbeat_age")
    # A process has a number, not an amount.
    lines = [{key: str(value) if isinstance(value, int) else value for key, value in line.items()} for line in found]
    shared.print(found, lambda: console.table(columns, lines))


@click.group(cls=Group, invoke_without_command=True)
@click.pass_context
@common
def clients(ctx: click.Context) -> None:
    """Show who waits and who works; pause, resume and limit clients."""
    if ctx.invoked_subcommand is None:
        from jobs.views import clients, console

        session = shared.session(workers=0)
        found = clients.overview(session.connection, list(session.config.clients))
        fairness = clients.fairness(found)
        shared.print({"clients": found, "fairness": fairness}, lambda: console.clients(found, fairness))


@clients.command()
@click.argument("names", nargs=-1, required=True, metavar="CLIENT…", shell_complete=CLIENT)
@common
def pause(names: tuple[str, ...]) -> None:
    """Hold clients' waiting jobs; what runs ends."""
    _change_limits("pause", names, f"paused {', '.join(names)}")


@clients.command()
@click.argument("names", nargs=-1, required=True, metavar="CLIENT…", shell_complete=CLIENT)
@common
def resume(names: tuple[str, ...]) -> None:
    """Let clients' jobs go on."""
    _change_limits("resume", names, f"resumed {', '.join(names)}")


@clients.command()
@click.argument("name", metavar="CLIENT", shell_complete=CLIENT)
@click.argument("most", type=click.IntRange(1), required=False)
@common
def limit(name: str, most: int | None) -> None:
    """Cap a client's jobs in progress at MOST, else as etl.toml says."""
    text = f"{name}: at most {most} jobs at once" if most else f"{name}: as etl.toml says"
    _change_limits("limit", (name,), text, most)


def _change_limits(verb: str, names: Sequence[str], text: str, most: int | None = None) -> None:
    from etl.config.pipeline import known_client
    from jobs.store import limits
    from jobs.views.clients import overview

    session = shared.session(workers=0)
    for name in names:
        known_client(session.config, name)
    if verb == "limit":
        limits.limit(session.connection, names[0], most)
    else:
        {"pause": limits.pause, "resume": limits.resume}[verb](session.connection, names)
    shared.print(overview(session.connection, names), lambda: echo(text))


@click.group(cls=Group)
def schedule() -> None:
    """Schedules: hand them to rq-scheduler, list them."""


@schedule.command()
@common
def sync() -> None:
    """Make rq-scheduler's entries those of etl.toml."""
    from jobs.run import schedules
    from jobs.views import console

    session = shared.session(workers=0)
    found = schedules.sync(session.config, session.connection)
    columns = ("action", "client", "pipeline", "cron", "timezone", "catchup")
    shared.print(found, lambda: console.table(columns, found))


@schedule.command("list")
@common
def list_() -> None:
    """Show each schedule's next three times, in the client's zone."""
    from jobs.run import schedules
    from jobs.views import console

    session = shared.session(workers=0)
    found = schedules.listing(session.config, session.connection)
    columns = ("client", "pipeline", "cron", "timezone", "catchup", "synced", "next")
    lines = [{**line, "next": "\n".join(line["next"])} for line in found]
    shared.print(found, lambda: console.table(columns, lines))


@click.command()
@click.option("--port", type=int, default=9181, help="Port on the loopback address.")
@common
def dashboard(port: int) -> None:
    """Serve rq-dashboard and our runs on 127.0.0.1."""
    from jobs.dashboard import serve

    serve(shared.session(workers=0), port)


@click.command()
@common
def metrics() -> None:
    """Print queues, workers, runs and lateness for Prometheus."""
    from jobs.views import metrics

    found = metrics.collect(shared.session(workers=0))
    shared.print([sample._asdict() for sample in found], lambda: click.echo(metrics.text(found), nl=False))


@click.command()
@click.option("-n", "count", type=click.IntRange(1), default=2, help="How many workers.")
@click.option("--port", type=int, default=9181, help="Port of the dashboard.")
@common
def up(count: int, port: int) -> None:
    """Run workers and the dashboard here until interrupted."""
    from jobs.commands import processes

    sys.exit(processes.up(shared.config, shared.redis, count, port))

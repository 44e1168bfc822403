"""Commands that look at runs and change nothing: plan, status, deliveries, runs, show, logs."""

import sys
from datetime import UTC, datetime

import click

from jobs.commands.arguments import check_state, client_pipelines, moment_before, name_broken, parameters
from jobs.commands.completion import CLIENT, PIPELINE, RUN, STATE
from jobs.commands.options import common, echo, shared


@click.command()
@click.argument("pipeline", shell_complete=PIPELINE)
@click.option("--client", shell_complete=CLIENT, help="Whose files to look at.")
@click.option("--all-clients", is_flag=True, help="Look at every client that has the pipeline, a line each.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the run.")
@click.option("--rows", type=click.IntRange(1), help="Show so many rows as they would be loaded.")
@click.option("--start", metavar="D", help="Date or moment at which the run's window begins, in the client's zone.")
@click.option("--end", metavar="D", help="Where it ends; not part of it.")
@common
def plan(
    pipeline: str,
    client: str | None,
    all_clients: bool,
    params: tuple[str, ...],
    rows: int | None,
    start: str | None,
    end: str | None,
) -> None:
    """Show the partitions a run would have; nothing is enqueued."""
    from etl.config.pipeline import resolve
    from jobs.views import plan

    if bool(client) == all_clients:
        raise click.UsageError("give --client NAME or --all-clients")
    config, given = shared.configuration(), parameters(params)
    if client:
        found = plan.plan(resolve(config, pipeline, client, params=given), rows, start, end)
        shared.print(found, lambda: plan.show(found))
        return
    pairs = client_pipelines(config, [pipeline], [], given)
    lines = plan.plans([resolve(config, name, owner, params=given) for owner, name in pairs], start, end)
    shared.print(lines, lambda: plan.show_plans(lines))
    sys.exit(name_broken(config))


@click.command()
@click.option("--client", shell_complete=CLIENT, help="Only this client.")
@common
def status(client: str | None) -> None:
    """Show each client's pipelines: last run, last success, its age."""
    from etl.config.pipeline import known_client
    from jobs.views import console, status

    if client:
        known_client(shared.configuration(), client)  # before a Redis is looked for, or started
    session = shared.session(workers=0)
    found = status.status(session, client)
    shared.print(found, lambda: console.status(found))
    name_broken(session.config)


@click.command()
@click.option("--client", shell_complete=CLIENT, help="Only this client.")
@click.option("--since", metavar="7d", default="7d", help="Only those due within this span, and the next one.")
@common
def deliveries(client: str | None, since: str) -> None:
    """Show what was due and what came, how late, missing or odd."""
    from jobs.deliveries import claims, listing
    from jobs.views import console, waiting

    session = shared.session(workers=0)
    first = datetime.fromtimestamp(moment_before(since) or 0.0, UTC)
    found = listing.listing(session.config, session.connection, client=client, since=first)
    shared.print(found, lambda: console.deliveries(found))
    pairs = {(line["client"], line["pipeline"]) for line in found}
    for pair, looked in sorted(claims.looked(session.connection).items()):
        if looked.error and pair in pairs:
            echo(f"rq-etl: {'/'.join(pair)}: {looked.error}", err=True)
    if waiting.without_cron(session.connection, session.config, pairs):
        echo(f"rq-etl: {waiting.NO_CRON}: nothing is looked at, or started, until then", err=True)
    name_broken(session.config)


@click.command()
@click.option("--client", shell_complete=CLIENT, help="Only this client.")
@click.option("--state", shell_complete=STATE, help="Only runs in this state.")
@click.option("--since", metavar="24h", help="Only runs submitted within this span.")
@common
def runs(client: str | None, state: str | None, since: str | None) -> None:
    """List runs, newest first."""
    from jobs.views import console, history

    session = shared.session(workers=0)
    check_state(state)
    found = history.recent(session, client=client, state=state, since=moment_before(since))
    shared.print(found, lambda: console.results(found, ages=True))


@click.command()
@click.argument("run", shell_complete=RUN)
@common
def show(run: str) -> None:
    """Show one run: its counts, partitions, failures and warnings."""
    from jobs.views import console, details, waiting

    session = shared.session(workers=0)
    found = details.run_with_stages(session, run)
    pair = found["client"], found["pipeline"]
    without = waiting.without_cron(session.connection, session.config, [pair]) and not shared.json
    shared.print(found, lambda: console.show(found, waiting.NO_CRON if without else ""))


@click.command()
@click.argument("run", shell_complete=RUN)
@common
def logs(run: str) -> None:
    """Print what a run's stages said, printed and raised."""
    from jobs.views import details

    lines = details.logs(shared.session(workers=0), run)
    shared.print(lines, lambda: echo("\n".join(line["text"] for line in lines)))

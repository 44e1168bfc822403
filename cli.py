"""The command line: `rq-etl`. Commands read options, call jobs, print; heavy imports wait until a command runs."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.commands.operate import COMMANDS
from jobs.commands.options import common, pairs, shared, working

if TYPE_CHECKING:
    from etl.errors import EtlError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rq-etl")
@common
def cli() -> None:
    """Extract, clean and load many clients' files and tables as RQ jobs."""


@cli.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@common
def init(folder: Path) -> None:
    """Write a first etl.toml, functions and a sample file into FOLDER."""
    from jobs.demo.init import write

    written = write(folder)
    shared.print([str(path) for path in written], lambda: click.echo("\n".join(f"wrote {path}" for path in written)))


@cli.command()
@common
def validate() -> None:
    """Check etl.toml, clients/*.toml and the functions they name."""
    from jobs import settings
    from jobs.commands import run as commands
    from jobs.views import console

    settings.use(shared.config)
    config = settings.config()
    commands.check_functions(config, config.pipelines)
    count = {"pipelines": len(config.pipelines), "clients": len(config.clients), "targets": len(config.targets)}
    text = ", ".join(console.plural(number, name.rstrip("s")) for name, number in count.items())
    shared.print({"valid": True, **count}, lambda: click.echo(f"{config.path}: fine ({text})"))


@cli.command()
@click.argument("pipeline")
@click.option("--client", help="Whose files to look at.")
@click.option("--all-clients", is_flag=True, help="Look at every client that has the pipeline, a line each.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the run.")
@click.option("--rows", type=click.IntRange(1), help="Show so many rows as they would be loaded.")
@common
def plan(pipeline: str, client: str | None, all_clients: bool, params: tuple[str, ...], rows: int | None) -> None:
    """Show the partitions a run would have; nothing is enqueued."""
    from etl.config.pipeline import resolve
    from jobs import settings
    from jobs.commands import run as commands
    from jobs.views import plan as preview

    if bool(client) == all_clients:
        raise click.UsageError("give --client NAME or --all-clients")
    settings.use(shared.config)
    config = settings.config()
    if not client:
        chosen = commands.wanted(config, [pipeline], [], pairs(params))
        lines = preview.plans([resolve(config, name, owner, params=pairs(params)) for owner, name in chosen])
        shared.print(lines, lambda: preview.show_plans(lines))
        return
    found = preview.plan(resolve(config, pipeline, client, params=pairs(params)), rows)
    shared.print(found, lambda: preview.show(found))


@cli.command()
@click.argument("pipelines", nargs=-1)
@click.option("--client", "clients", multiple=True, help="Run for this client (may be repeated).")
@click.option("--all-clients", is_flag=True, help="Run for every client that has the pipeline.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the run.")
@working
@click.option("--full-refresh", is_flag=True, help="Read and load again what is loaded already.")
@click.option("--max-rejects", metavar="N", help="Rows, or a percentage, that may be rejected.")
@click.option("--queue", is_flag=True, help="Where a run is active, wait for its end instead of refusing.")
@common
def run(
    pipelines: tuple[str, ...],
    clients: tuple[str, ...],
    all_clients: bool,
    params: tuple[str, ...],
    wait: bool,
    inline: bool,
    workers: int | None,
    full_refresh: bool,
    max_rejects: str | None,
    queue: bool,
) -> None:
    """Run pipelines for clients; without PIPELINE all that the client has."""
    from jobs import settings
    from jobs.commands import run as commands

    if bool(clients) == all_clients:
        raise click.UsageError("give --client NAME or --all-clients")
    settings.use(shared.config)
    wanted = commands.wanted(settings.config(), pipelines, clients, pairs(params))
    with closing(shared.session(inline=inline, workers=workers)) as session:
        code = commands.run(
            session,
            wanted,
            params=pairs(params),
            max_rejects=max_rejects,
            full_refresh=full_refresh,
            queue=queue,
            waiting=wait or inline or workers is not None or session.is_ours,
            as_json=shared.json,
        )
    sys.exit(code)


@cli.command()
@click.argument("pipeline")
@click.option("--client", required=True, help="Whose windows.")
@click.option("--start", required=True, metavar="D", help="Date or moment of the first window, in the client's zone.")
@click.option("--end", required=True, metavar="D", help="Where the last window ends; not part of it.")
@click.option("--every", default="1d", metavar="1d", help="Length of a window.")
@click.option("--parallel", type=click.IntRange(1), default=1, help="So many windows at once; one means in order.")
@click.option("--param", "params", multiple=True, metavar="K=V", help="A parameter of the runs.")
@click.option("--reprocess", is_flag=True, help="Load windows that are loaded already too.")
@click.option("--dry-run", is_flag=True, help="Show what would be done.")
@working
@common
def backfill(
    pipeline: str,
    client: str,
    start: str,
    end: str,
    every: str,
    parallel: int,
    params: tuple[str, ...],
    reprocess: bool,
    dry_run: bool,
    wait: bool,
    inline: bool,
    workers: int | None,
) -> None:
    """Run a pipeline for windows of the past, one run each, skipping those that are loaded."""
    from jobs import settings
    from jobs.commands import run as commands
    from jobs.run import backfill as past

    settings.use(shared.config)
    resolved = past.of(settings.config(), pipeline, client, pairs(params))
    found = past.windows(start, end, every, resolved.timezone)
    with closing(shared.session(inline=inline, workers=0 if dry_run else workers)) as session:
        code = commands.backfill(
            session,
            resolved,
            found,
            parallel=parallel,
            reprocess=reprocess,
            dry_run=dry_run,
            waiting=wait or inline or workers is not None or session.is_ours,
            as_json=shared.json,
        )
    sys.exit(code)


@cli.command()
@click.option("--client", help="Only this client.")
@common
def status(client: str | None) -> None:
    """Show each client's pipelines: the last run, the last success, its age."""
    from jobs.views import console
    from jobs.views import status as state

    found = state.status(shared.session(workers=0), client)
    shared.print(found, lambda: console.status(found))


@cli.command()
@click.option("--client", help="Only this client.")
@click.option("--state", help="Only runs in this state.")
@click.option("--since", metavar="24h", help="Only runs submitted within this span.")
@common
def runs(client: str | None, state: str | None, since: str | None) -> None:
    """List runs, newest first."""
    from jobs.commands import run as commands
    from jobs.views import console

    found = commands.list_runs(shared.session(workers=0), client, state, since)
    shared.print(found, lambda: console.results(found))


@cli.command()
@click.argument("run")
@common
def show(run: str) -> None:
    """Show one run: its counts, partitions, failures and warnings."""
    from jobs.commands import run as commands
    from jobs.views import console

    found = commands.one(shared.session(workers=0), run)
    shared.print(found, lambda: console.show(found))


@cli.command()
@click.argument("run")
@common
def logs(run: str) -> None:
    """Print what a run's stages said and, from staging, what they raised."""
    from jobs.commands import run as commands

    lines = commands.logs(shared.session(workers=0), run)
    shared.print(lines, lambda: click.echo("\n".join(line["text"] for line in lines)))


@cli.command()
@click.argument("run")
@common
def wait(run: str) -> None:
    """Wait until a run has ended."""
    from jobs.commands import run as commands

    # Where the Redis is ours, nobody else works on what a killed command has left there.
    with closing(shared.session()) as session:
        code = commands.wait(session, [run], as_json=shared.json)
    sys.exit(code)


@cli.command()
@click.argument("run")
@click.option("--rows", is_flag=True, help="Each rejected row instead of counts.")
@click.option("--export", type=click.Path(path_type=Path, dir_okay=False), help="Write the rejected rows as CSV.")
@click.option(
    "--load", type=click.Path(path_type=Path, dir_okay=False), help="Load rows that --export wrote and you mended."
)
@common
def rejects(run: str, rows: bool, export: Path | None, load: Path | None) -> None:
    """Count a run's rejected rows by file, column and reason."""
    from jobs.commands import run as commands

    sys.exit(commands.rejects(shared, run, rows=rows, export=export, load=load))


@cli.command()
@click.argument("runs", nargs=-1)
@click.option("--failed", is_flag=True, help="Every run that failed.")
@click.option("--since", metavar="24h", help="With --failed: submitted within this span.")
@common
def retry(runs: tuple[str, ...], failed: bool, since: str | None) -> None:
    """Run again what is missing of failed runs, with today's config and code."""
    from jobs.commands import run as commands

    if bool(runs) == failed:
        raise click.UsageError("give RUN… or --failed")
    sys.exit(commands.retry(shared, runs, since))


@cli.command()
@click.argument("runs", nargs=-1)
@click.option("--client", help="Every active run of this client.")
@common
def cancel(runs: tuple[str, ...], client: str | None) -> None:
    """Stop runs; what they have loaded stays loaded."""
    from jobs.commands import run as commands

    if bool(runs) == bool(client):
        raise click.UsageError("give RUN… or --client C")
    found = commands.cancel(shared.session(workers=0), runs, client)
    told = [f"{line['run']} {line['state']}" for line in found] or [f"no run of {client} is active"]
    shared.print(found, lambda: click.echo("\n".join(told)))


@cli.command()
@click.argument("folder", default="rq-etl-demo", type=click.Path(file_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(500), help="How many rows to make, about.")
@common
def demo(folder: Path, rows: int | None) -> None:
    """Make three clients' claims files in FOLDER and load them."""
    from jobs.demo import show as demo_show

    sys.exit(demo_show.main(shared, folder, rows))


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    """Run the command line; what goes wrong is one or two lines on stderr and an exit code."""
    shared.forget()
    try:
        cli(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message())
        sys.exit(2)
    except click.ClickException as exc:
        sys.exit(misused(exc))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as exc:
        sys.exit(fail(exc))


def misused(exc: click.ClickException) -> int:
    """Tell what is wrong with the command itself, as any other error is told, and return the exit code."""
    from etl.errors import ConfigError

    shared.json = shared.json or "--json" in sys.argv  # the mistake may stand before it
    context = getattr(exc, "ctx", None)
    tell(ConfigError(exc.format_message(), f"see {context.command_path if context else 'rq-etl'} --help"))
    return 2


def fail(exc: Exception) -> int:
    """Tell an error to the user and return the exit code; what is not theirs to mend keeps its traceback."""
    from redis.exceptions import AuthenticationError, ConnectionError, TimeoutError

    from etl.errors import BrokerUnreachable, EtlError
    from jobs.store import redis_errors

    if isinstance(exc, ConnectionError | TimeoutError | AuthenticationError):
        exc = BrokerUnreachable("Redis went away", "start it, or see rq-etl doctor")
    if isinstance(exc, redis_errors.FULL):
        exc = redis_errors.full(exc)
    if not isinstance(exc, EtlError):
        raise exc
    tell(exc)
    return exc.exit_code


def tell(error: "EtlError") -> None:
    """Print an error: on stderr for people, with --json also as the one document on stdout."""
    click.echo(f"rq-etl: {error}", err=True)
    if shared.json:
        shared.print({"error": error.what, "cure": error.cure, "exit": error.exit_code}, lambda: None)


if __name__ == "__main__":
    main()

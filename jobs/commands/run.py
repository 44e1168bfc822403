"""Commands that start runs, wait for them and redo them: run, backfill, retry, wait, rejects."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.commands.arguments import check_functions, client_pipelines, moment_before, name_broken, parameters
from jobs.commands.completion import CLIENT, PIPELINE, RUN
from jobs.commands.interrupt import interruptible
from jobs.commands.options import common, echo, shared, working

if TYPE_CHECKING:
    from jobs.session import Session

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("pipelines", nargs=-1, shell_complete=PIPELINE)
@click.option("--client", "clients", multiple=True, shell_complete=CLIENT, help="Run for this client; repeatable.")
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
    full_refresh: bool,
    max_rejects: str | None,
    queue: bool,
) -> None:
    """Run pipelines for clients; without PIPELINE all they have."""
    from etl.config.pipeline import resolve
    from etl.errors import AlreadyRunning
    from jobs.run.submit import submit_run
    from jobs.views import history

    if bool(clients) == all_clients:
        raise click.UsageError("give --client NAME or --all-clients")
    given = parameters(params)
    pairs = client_pipelines(shared.configuration(), pipelines, clients, given)
    ids: list[str] = []
    with closing(shared.session()) as session, interruptible(session, ids):
        config = session.config
        code = name_broken(config) if all_clients else 0
        if session.is_ours:  # elsewhere the functions' modules need be where workers are, and nowhere else
            left_out = check_functions(config, pairs)
            code, pairs = 2 if left_out else code, [pair for pair in pairs if pair not in left_out]
        for client, pipeline in pairs:
            try:
                resolved = resolve(config, pipeline, client, params=given, max_rejects=max_rejects)
                ids.append(submit_run(session.connection, resolved, full_refresh=full_refresh, queue=queue))
            except AlreadyRunning as exc:  # it holds up no other
                echo(f"rq-etl: {exc}", err=True)
                code = 1
        if shared.waits(session):
            code = max(code, await_runs(session, ids))
        else:
            found = history.snapshot(session, ids)
            shared.print(found, lambda: _submitted(found))
            code = max(code, _exit_code(found))
    sys.exit(code)


def _submitted(found: Sequence[Mapping[str, Any]]) -> None:
    from jobs.views import console

    for line in found:
        echo(f"{line['client']}/{line['pipeline']} {line['state']} as run {line['run']}")
    # What a run that goes on has noticed so far is said when it has ended.
    console.causes([line if line["error"] else {**line, "warnings": []} for line in found])


@click.command()
@click.argument("pipeline", shell_complete=PIPELINE)
@click.option("--client", shell_complete=CLIENT, required=True, help="Whose windows.")
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
) -> None:
    """Run a pipeline for windows of the past that are not loaded."""
    from jobs.run import backfill
    from jobs.views import console, history

    resolved = backfill.of(shared.configuration(), pipeline, client, parameters(params))
    windows = backfill.windows(start, end, every, resolved.timezone)
    ids: list[str] = []
    with closing(shared.session(workers=0 if dry_run else None)) as session, interruptible(session, ids):
        windows = backfill.examine(
            windows, resolved, history.recent(session, client=client, pipeline=resolved.name, limit=None)
        )
        windows = windows if reprocess else backfill.compared(windows, resolved)
        lines = [
            {
                "start": window.start.isoformat(),
                "end": window.end.isoformat(),
                "action": "skip" if window.is_loaded and not reprocess else "run",
                "run": window.run,
                "state": window.state,
                "changed": list(window.changed),
            }
            for window in windows
        ]
        for window in windows:
            if window.changed:
                more = f" and {len(window.changed) - 1} more" if len(window.changed) > 1 else ""
                text = f"{window.start:%Y-%m-%d %H:%M} is skipped, but {window.changed[0]}{more} has changed since run "
                click.echo(f"rq-etl: {text}{window.run} loaded it\n  --reprocess loads it again", err=True)
        if dry_run:
            shared.print(lines, lambda: console.table(("start", "end", "action", "state", "run"), lines))
            sys.exit(0)
        ids += backfill.submit(
            session.config, session.connection, resolved, windows, parallel=parallel, reprocess=reprocess
        )
        if shared.waits(session):
            sys.exit(await_runs(session, ids))
        text = f"{console.plural(len(ids), 'run')} submitted, "
        text += f"{console.plural(len(lines) - len(ids), 'window')} loaded already"
        shared.print(history.snapshot(session, ids), lambda: echo(text))
    sys.exit(0)


@click.command()
@click.argument("run", shell_complete=RUN)
@common
def wait(run: str) -> None:
    """Wait until a run has ended."""
    from etl.errors import UnknownName
    from jobs.store.runs import find
    from jobs.views import history

    ids: list[str] = []
    # Where the Redis is ours, nobody else works on what a killed command has left there.
    with closing(shared.session()) as session, interruptible(session, ids):
        try:
            ids.append(find(session.connection, run))
        except UnknownName:  # it has ended with --inline, or long ago
            found = [history.find(session, run)]
            shared.print(found, lambda: _ended(found))
            sys.exit(_exit_code(found))
        sys.exit(await_runs(session, ids))


def await_runs(session: "Session", ids: Sequence[str]) -> int:
    """Wait for runs, print them and return the exit code."""
    from jobs.views import progress

    found = progress.watch(session, ids, quiet=shared.json)
    shared.print(found, lambda: _ended(found))
    lost = sorted({*ids} - {run["run"] for run in found})
    for id in lost:
        echo(
            f"rq-etl: run {id} is not known to Redis any more\n"
            "  run its pipeline again: what is loaded stays loaded, and what is missing is loaded",
            err=True,
        )
    return max(_exit_code(found), int(bool(lost)))


def _ended(found: Sequence[Mapping[str, Any]]) -> None:
    from jobs.views import console, progress

    if found:
        console.results(found)
    if len(found) > 1:
        print(progress.sums(found))


def _exit_code(found: Sequence[Mapping[str, Any]]) -> int:
    bad = [run["exit"] or 1 for run in found if run["state"] in ("failed", "canceled")]
    return 3 if bad and all(code == 3 for code in bad) else int(bool(bad))


@click.command()
@click.argument("run", shell_complete=RUN)
@click.option("--rows", is_flag=True, help="Each rejected row instead of counts.")
@click.option("--export", type=FILE, help="Write the rejected rows as CSV.")
@click.option("--load", type=FILE, help="Load rows that --export wrote and you fixed.")
@common
def rejects(run: str, rows: bool, export: Path | None, load: Path | None) -> None:
    """Count a run's rejected rows by file, column and reason."""
    from jobs.views import console, history, rejects

    ids: list[str] = []
    with closing(shared.session(workers=None if load else 0)) as session, interruptible(session, ids):
        id = history.find(session, run)["run"]
        if load:
            ids.append(rejects.load(session, id, load))
            sys.exit(await_runs(session, ids))
        elif export:
            count = rejects.export(session, id, export)
            text = f"wrote {console.plural(count, 'row')} to {export}"
            shared.print({"rows": count, "file": str(export)}, lambda: echo(text))
        elif rows:
            keys = ("file", "row", "column", "value", "reason")
            found = [{key: entry[key] for key in keys} for entry in rejects.listed(session, id)]
            shared.print(found, lambda: console.table(keys, found))
        else:
            counts = rejects.counted(session, id)
            shared.print(counts, lambda: console.table(("file", "column", "reason", "rows"), counts))
    sys.exit(0)


@click.command()
@click.argument("runs", nargs=-1, shell_complete=RUN)
@click.option("--failed", is_flag=True, help="Every run that failed.")
@click.option("--since", metavar="24h", help="With --failed: submitted within this span.")
@working
@common
def retry(runs: tuple[str, ...], failed: bool, since: str | None) -> None:
    """Run what is missing of failed runs, by today's config and code."""
    from etl.errors import EtlError
    from jobs.run.retry import retry_run
    from jobs.views import history

    if bool(runs) == failed:
        raise click.UsageError("give RUN… or --failed")
    started: list[str] = []
    with closing(shared.session()) as session, interruptible(session, started):
        texts = history.failed(session, moment_before(since)) if failed else runs
        ids = [history.recall(session, text) for text in texts]
        code, config = 0, session.config
        for id in ids:
            try:
                _, changes = retry_run(config, session.connection, id)
            except EtlError as exc:
                echo(f"rq-etl: {exc}", err=True)
                code = 1
                continue
            started.append(id)
            for change in changes:
                echo(f"{id}: {change}", err=True)
        if started and shared.waits(session):
            code = max(code, await_runs(session, started))
        else:
            _print_states(history.snapshot(session, started), "nothing is retried")
    sys.exit(code)


def _print_states(found: Sequence[Mapping[str, Any]], none: str) -> None:
    from jobs.views import console

    lines = [f"{run['run']} {run['state']}" for run in found] or [none]

    def show() -> None:
        echo("\n".join(lines))
        console.causes([{**run, "failures": [], "error": None, "warnings": []} for run in found])

    shared.print(found, show)

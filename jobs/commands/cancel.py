"""The cancel command: which runs are stopped, what they were doing, and what becomes of those behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from jobs.commands.completion import CLIENT, RUN
from jobs.commands.options import common, echo, shared


@click.command()
@click.argument("runs", nargs=-1, shell_complete=RUN)
@click.option("--client", shell_complete=CLIENT, help="Every active run of this client.")
@common
def cancel(runs: tuple[str, ...], client: str | None) -> None:
    """Stop runs; what they have loaded stays loaded."""
    from etl.config.pipeline import known_client
    from jobs.run.cancel import cancel_runs, find_pending
    from jobs.store.runs import active, held, snapshot
    from jobs.views import history

    if bool(runs) == bool(client):
        raise click.UsageError("give RUN… or --client C")
    session = shared.session(workers=0)
    ids, ended = list[str](), list[dict[str, Any]]()
    for text in runs:
        if id := find_pending(session.connection, text):
            ids.append(id)
        else:
            ended.append(history.find(session, text))
    if client:
        known_client(session.config, client)
        # What is held first, or it would start when the run before it ends.
        pending = snapshot(session.connection, [*reversed(held(session.connection)), *active(session.connection)])
        ids = list(dict.fromkeys(run["run"] for run in pending if run["client"] == client))
    found = [*cancel_runs(session.connection, ids), *ended]
    shared.print(found, lambda: _show(found, f"no run of {client} is active"))


def _show(found: Sequence[Mapping[str, Any]], none: str) -> None:
    for run in found:
        if run.get("was") is None:  # it had ended
            echo(f"{run['run']} {run['state']}")
            continue
        stays = "nothing of it was loaded"
        if run["stays"]:
            stays = f"{run['stays']:,} of its {run['partitions']['total']:,} partitions are loaded and stay"
        echo(f"{run['run']} canceled: {run['client']}/{run['pipeline']} was {run['was']}; {stays}")
        for other in run["behind"]:
            echo(f"  run {other['run']} of {other['client']}/{other['pipeline']} {other['becomes']}")
    if not found:
        echo(none)

"""The cursor commands: how far a client's source has been loaded, set and cleared by hand."""

from typing import Any

import click

from jobs.commands.completion import CLIENT, PIPELINE
from jobs.commands.groups import Group
from jobs.commands.options import common, echo, shared


@click.group(cls=Group)
@common
def cursor() -> None:
    """Show, set or clear how far a client's source has been loaded."""


@cursor.command()
@click.argument("pipeline", shell_complete=PIPELINE)
@click.option("--client", shell_complete=CLIENT, required=True, help="Whose source.")
@common
def get(pipeline: str, client: str) -> None:
    """Show the cursor."""
    _print(pipeline, client)


@cursor.command("set")
@click.argument("pipeline", shell_complete=PIPELINE)
@click.argument("value")
@click.option("--client", shell_complete=CLIENT, required=True, help="Whose source.")
@common
def set_(pipeline: str, client: str, value: str) -> None:
    """Have the next run read from VALUE on, such as 12 or 2024-01-31."""
    from etl.load import cursors
    from etl.types.cursor import guess

    resolved = _resolved(pipeline, client)
    there = cursors.read(resolved)
    column = resolved.columns.get(resolved.extract.cursor or "")
    is_text_of_database = resolved.extract.FACTS.windows == "query"  # SQLite keeps times as text
    kind = there.cursor.kind if there else column.type if column and not is_text_of_database else None
    cursors.place(resolved, guess(value, kind))
    _print(pipeline, client)


@cursor.command()
@click.argument("pipeline", shell_complete=PIPELINE)
@click.option("--client", shell_complete=CLIENT, required=True, help="Whose source.")
@common
def clear(pipeline: str, client: str) -> None:
    """Forget the cursor: the next run reads everything."""
    from etl.load import cursors

    cursors.clear(_resolved(pipeline, client))
    _print(pipeline, client)


def _print(pipeline: str, client: str) -> None:
    from etl.load import cursors

    resolved = _resolved(pipeline, client)
    there = cursors.read(resolved)
    found = {
        "client": client,
        "pipeline": pipeline,
        "column": resolved.extract.cursor,
        "value": there.cursor.value if there else None,
        "type": there.cursor.kind if there else None,
        "updated_at": there.updated_at.isoformat() if there else None,
        "run": (there.run or None) if there else None,
    }
    text = f"is at {found['value']}" if there else "is not set: the next run reads everything"
    by = f" (run {found['run']}, {found['updated_at']})" if found["run"] else ""
    shared.print(found, lambda: echo(f"{client}/{pipeline}: cursor {found['column']} {text}{by}"))


def _resolved(pipeline: str, client: str) -> Any:
    from etl.config.pipeline import resolve
    from etl.errors import ConfigError

    resolved = resolve(shared.configuration(), pipeline, client)
    if resolved.extract.cursor is None:
        raise ConfigError(f"pipeline {pipeline} has no cursor", 'give its extract one, such as cursor = "updated_at"')
    return resolved

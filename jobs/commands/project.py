"""Commands that make a project or check it: init, validate, demo."""

import sys
from pathlib import Path

import click

from jobs.commands.options import common, echo, shared


@click.command()
@click.argument("folder", default=".", type=click.Path(file_okay=False, path_type=Path))
@common
def init(folder: Path) -> None:
    """Write a first etl.toml, functions and a file into FOLDER."""
    from jobs.demo.init import ignore, write

    written = [*write(folder), *ignore(folder)]
    shared.print([str(path) for path in written], lambda: echo("\n".join(f"wrote {path}" for path in written)))


@click.command()
@common
def validate() -> None:
    """Check etl.toml, clients/*.toml and the functions they name."""
    from etl.config.code import check_functions
    from etl.config.pipeline import mistaken
    from jobs.views.console import plural

    config = shared.configuration()
    lines = [line for lines in config.broken.values() for line in lines]
    lines += map(str, check_functions(config))
    if lines:
        raise mistaken(tuple(lines), config.path)
    count = {"pipelines": len(config.pipelines), "clients": len(config.clients), "targets": len(config.targets)}
    text = ", ".join(plural(number, name.rstrip("s")) for name, number in count.items())
    shared.print({"valid": True, **count}, lambda: echo(f"{config.path}: fine ({text})"))


@click.command()
@click.argument("folder", default="rq-etl-demo", type=click.Path(file_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(500), help="How many rows to make, about.")
@common
def demo(folder: Path, rows: int | None) -> None:
    """Make three clients' claims files in FOLDER and load them."""
    from jobs.demo import show

    outcome, wrong = show.load(folder, rows, shared.redis, quiet=shared.json)
    shared.print(outcome, lambda: show.show(outcome))
    if wrong:
        print(f"rq-etl: {wrong}")
    sys.exit(1 if wrong else 0)

"""The options that every command has, and what they open. Imported when the command line starts: nothing heavy here."""

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from etl.config.pipeline import Config
    from jobs.session import Session


class Shared:
    """The options that are accepted before and after a command's name."""

    def __init__(self) -> None:
        self.config: str | None = None
        self.redis: str | None = None
        self.json = False
        self.document: TextIO | None = None

    def forget(self) -> None:
        """Forget what was given, as for another command line in the same process."""
        if self.document is not None and sys.stdout is sys.stderr:
            sys.stdout = self.document
        self.__init__()  # type: ignore[misc]

    def update(self, config: str | None, redis: str | None, json: bool) -> None:
        """Keep what was given; what comes after the command's name wins."""
        self.config = config or self.config
        self.redis = redis or self.redis
        if json and not self.json:
            self.json = True
            # What the user's functions print is no part of the document.
            self.document, sys.stdout = sys.stdout, sys.stderr

    def configuration(self) -> "Config":
        """Return the configuration that the command is about."""
        from jobs import settings

        settings.use(self.config)
        return settings.config()

    def session(self, **options: Any) -> "Session":
        """Open the broker, with workers where it is ours."""
        from jobs.session import Session

        return Session(self.config, self.redis, **options)

    def print(self, value: Any, human: Callable[[], None]) -> None:
        """Print a value as one JSON document, or for people."""
        if self.json:
            print_json(value)
        else:
            human()


def print_json(value: Any) -> None:
    """Print a value as one JSON document on stdout."""
    print(json.dumps(value, indent=2, default=str), file=shared.document, flush=True)


shared = Shared()


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that every command has."""

    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        shared.update(**{"config": None, "redis": None, "json": False, str(param.name): value})

    options = (
        click.option(
            "--config", metavar="FILE", expose_value=False, callback=keep, help="etl.toml to use (or ETL_CONFIG)."
        ),
        click.option("--redis", metavar="URL", expose_value=False, callback=keep, help="Redis to use (or REDIS_URL)."),
        click.option("--json", is_flag=True, expose_value=False, callback=keep, help="Print one JSON document."),
    )
    for option in options:
        command = option(command)
    return command


def working(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that starts runs the options of where they are worked on, and whether it waits for them."""
    options = (
        click.option(
            "--workers", type=click.IntRange(1), help="Start so many worker processes for the command's life."
        ),
        click.option("--inline", is_flag=True, help="Run the same graph in this process, without Redis."),
        click.option("--wait", is_flag=True, help="Wait until the runs have ended."),
    )
    for option in options:
        command = option(command)
    return command

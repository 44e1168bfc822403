"""The options that every command has, and what they open. Imported when the command line starts: nothing heavy here."""

import json
import sys
from collections.abc import Callable
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from etl.config.pipeline import Config
    from jobs.session import Session


class Shared:
    """The options that several commands have, as they were given before or after the command's name."""

    config: str | None = None
    redis: str | None = None
    json = False
    inline = False
    workers: int | None = None
    wait = False
    document: TextIO | None = None
    opened: "Session | None" = None

    def forget(self) -> None:
        """Forget what was given, as for another command line in the same process."""
        if self.document is not None and sys.stdout is sys.stderr:
            sys.stdout = self.document
        vars(self).clear()

    def keep(self, ctx: click.Context, param: click.Parameter, value: Any) -> None:
        """Keep an option's value, if it was given; what comes after the command's name wins."""
        if not value:
            return
        if param.name == "json" and not (self.json or ctx.resilient_parsing):  # which only completes a word
            # What the user's functions print is no part of the document.
            self.document, sys.stdout = sys.stdout, sys.stderr
        setattr(self, str(param.name), value)

    def configuration(self) -> "Config":
        """Return the configuration that the command is about."""
        from jobs import settings

        settings.use(self.config)
        return settings.config()

    def session(self, workers: int | None = None) -> "Session":
        """Open the broker, with as many workers as given; None means those of `--workers`, or two where it is ours."""
        from jobs.session import Session

        count = self.workers if workers is None else workers
        self.opened = Session(self.config, self.redis, inline=self.inline, workers=count)
        return self.opened

    def waits(self, session: "Session") -> bool:
        """Whether a command that starts runs waits for their ends."""
        return self.wait or self.inline or self.workers is not None or session.is_ours

    def print(self, value: Any, human: Callable[[], None]) -> None:
        """Print a value as one JSON document, or for people."""
        if self.opened is not None:
            self.opened.say_whose()
        if self.json:
            print(json.dumps(value, indent=2, default=str), file=self.document, flush=True)
        else:
            human()


def echo(text: object, *, err: bool = False) -> None:
    """Print a text that may quote names and values: control characters do nothing to a terminal, nor in a pipe."""
    from etl.safe_message import printable

    click.echo(printable(str(text), keep="\n\t"), err=err)


shared = Shared()

_option = partial(click.option, expose_value=False, callback=shared.keep)
COMMON = (
    _option("--config", metavar="FILE", help="etl.toml to use (or ETL_CONFIG)."),
    _option("--redis", metavar="URL", help="Redis to use (or REDIS_URL)."),
    _option("--json", is_flag=True, help="Print one JSON document."),
)
WORKING = (
    _option("--workers", type=click.IntRange(1), help="Start so many worker processes for the command's life."),
    _option("--inline", is_flag=True, help="Run the same graph in this process, without Redis."),
    _option("--wait", is_flag=True, help="Wait until the runs have ended."),
)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that every command has."""
    return reduce(lambda made, option: option(made), COMMON, command)


def working(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that starts runs the options of where they are worked on, and whether it waits for them."""
    return reduce(lambda made, option: option(made), WORKING, command)

"""How a command that has others lists them: under headings, each in a line that is never cut."""

from collections.abc import Mapping, Sequence

import click
from typing_extensions import override


class Group(click.Group):
    """A command that has others.

    Args:
        headings: The names of its commands by heading, in the order in which they are listed.
    """

    def __init__(self, *args: object, headings: Mapping[str, Sequence[str]] | None = None, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.headings = headings

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by heading; click's own cuts what they say of themselves."""
        for heading, names in (self.headings or {"Commands": self.list_commands(ctx)}).items():
            width = max(map(len, self.commands))
            lines = [(name.ljust(width), _said(self.commands[name])) for name in names]
            with formatter.section(heading):
                formatter.write_dl(lines)


def _said(command: click.Command) -> str:
    """Return the first sentence of a command's help."""
    return (command.help or "").partition("\n\n")[0].replace("\n", " ")

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
    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command; of what it says of itself the first sentence is listed, of which click cuts nothing."""
        cmd.short_help = cmd.short_help or (cmd.help or "").partition("\n\n")[0].replace("\n", " ")
        super().add_command(cmd, name)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by heading, all of them in the same two columns."""
        width = max(map(len, self.commands))
        for heading, names in (self.headings or {"Commands": self.list_commands(ctx)}).items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), self.commands[name].short_help or "") for name in names])

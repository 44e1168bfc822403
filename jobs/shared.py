"""The options that every command has, and what they open. Imported when the command line starts: nothing heavy here."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.session import Session


class Shared:
    """The options that are accepted before and after a command's name."""

    def __init__(self) -> None:
        self.config: str | None = None
        self.redis: str | None = None
        self.json = False

    def take(self, config: str | None, redis: str | None, json: bool) -> None:
        """Keep what was given; what stands after the command's name wins."""
        self.config = config or self.config
        self.redis = redis or self.redis
        self.json = json or self.json

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
    print(json.dumps(value, indent=2, default=str))

"""Messages that wait to be sent, in Redis: without an address, leased while they are sent, gone when all have them."""

import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

from jobs.alerts.cause import Cause, cause_of
from jobs.store import forms

MOST = 200  # messages in the outbox above which those of a route are joined, whatever they are about
LINES = 1000  # of a message; of more only the number is kept


@dataclass(frozen=True)
class Line:
    """A cause in a message.

    Args:
        opened, ended: Moments in seconds since the epoch; 0 where it isn't over.
    """

    cause: Cause
    opened: float
    ended: float = 0.0


@dataclass(frozen=True)
class Message:
    """What is said in one message. Moments are in seconds since the epoch.

    Args:
        route: Whom it is for: see `jobs.alerts.addresses`.
        group: What its causes have in common.
        is_over: Whether it says that they are over.
        made: When it was made.
        due: Not sent before; what comes until then is added.
        after: Not tried again before.
        lease: Until when somebody is sending it, 0 where nobody is.
        tries: How often it could not be sent to all.
        got: Marks of the addresses that have it.
        more: How many lines have been left out.
    """

    route: str
    group: str
    is_over: bool
    made: float
    due: float
    after: float = 0.0
    lease: float = 0.0
    tries: int = 0
    got: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    more: int = 0

    def as_json(self) -> str:
        """Return it as Redis keeps it."""
        lines = [[line.cause.as_json(), line.opened, line.ended] for line in self.lines]
        return json.dumps(vars(self) | {"lines": lines})

    def with_lines(self, added: Iterable[Line]) -> "Message":
        """Return it with more lines; of a cause that comes again, the later stands."""
        lines = {line.cause.key: line for line in (*self.lines, *added)}
        kept = tuple(lines.values())[:LINES]
        return replace(self, lines=kept, more=self.more + len(lines) - len(kept))


def outbox_of(raw: Any) -> dict[str, Message]:
    """Return the messages of Redis by id."""
    found = {}
    for id, value in forms.fit("messages", cast(dict[Any, Any], raw)).items():
        known = json.loads(value)
        kept = {name: known[name] for name in Message.__dataclass_fields__ if name in known}
        lines = tuple(Line(cause_of(cause), opened, ended) for cause, opened, ended in kept["lines"])
        found[id] = Message(**kept | {"lines": lines, "got": tuple(kept.get("got", ()))})
    return found


def join(outbox: dict[str, Message], message: Message, now: float) -> None:
    """Add a message to those that wait, or its lines to one that nobody has and nobody is sending.

    An outbox that grows since nothing can be sent stays small: what the same addresses lack becomes one message.
    """
    is_crowded = len(outbox) >= MOST
    for id, other in outbox.items():
        is_waiting = not other.got and other.lease <= now and (other.tries or other.due > now)
        same = (other.route, other.is_over) == (message.route, message.is_over)
        if is_waiting and same and (other.group == message.group or is_crowded):
            due, after = min(other.due, message.due), min(other.after, now)
            outbox[id] = replace(other.with_lines(message.lines), due=due, after=after)
            return
    outbox[secrets.token_hex(8)] = message
    _tidy(outbox, now)


def _tidy(outbox: dict[str, Message], now: float) -> None:
    """Join what the same addresses have not got yet."""
    is_crowded = len(outbox) > MOST
    kept: dict[Any, str] = {}
    for id, message in list(outbox.items()):
        if not message.tries or message.lease > now:
            continue
        same = message.route, message.is_over, message.got, message.group if not is_crowded else ""
        first = kept.setdefault(same, id)
        if first != id:
            outbox[first] = outbox[first].with_lines(message.lines)
            del outbox[id]

"""What a message says: a subject of one line; what, who, since when, what to do. No value of a row, no secret."""

from collections.abc import Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from etl import errors
from etl.config.pipeline import Config
from etl.errors import EtlError, SourceUnreachable, TargetUnreachable
from etl.safe_message import printable
from jobs.alerts.cause import AT_ONCE, Cause, is_a
from jobs.alerts.messages import Line, Message
from jobs.views.console import plural

SUBJECT = 80  # letters
SHOWN = 50  # lines

_SAID = {  # by kind: of one, of many
    "late": ("late", "late"),
    "missing": ("the delivery of {of} is missing", "{count} deliveries are missing"),
    "odd": ("the delivery of {of} is odd", "{count} deliveries are odd"),
    "rejects": ("{rows} rejected", "rows were rejected"),
    "stuck": ("nothing happens to its run", "nothing happens to their runs"),
    "no worker": ("no worker is alive, waiting: {runs}", ""),
    "no scheduler": ("no scheduler is alive: no schedule starts anything", ""),
}
_CURES = {  # what to type, by kind
    "failed": "rq-etl show {who} says more; when it is corrected: {retry}",
    "late": "rq-etl status shows what is due, rq-etl runs --since 24h what has run",
    "missing": "ask who delivers; rq-etl deliveries shows what came, and when",
    "odd": "look at the files, ask who delivers; rq-etl deliveries shows each delivery",
    "rejects": "rq-etl rejects {who} shows which rows, and why",
    "stuck": "rq-etl workers and rq-etl doctor show what holds it up; rq-etl cancel {who} ends it",
    "no worker": "rq-etl worker -n 2 starts two; rq-etl doctor says whether all is well",
    "no scheduler": "rq-etl cron starts one; rq-etl doctor says whether all is well",
}
_UNSYNCED = "the schedules are not known to rq-scheduler: none starts anything", "rq-etl schedule sync makes them known"


def subject(message: Message) -> str:
    """Return a message's subject, of at most SUBJECT letters."""
    causes = [line.cause for line in message.lines]
    number = len(causes) + message.more
    is_over = message.is_over or all(line.ended for line in message.lines)
    if len({cause.group for cause in causes}) == 1:
        said = what(causes[0], number)
    else:
        said = ", ".join(dict.fromkeys(cause.kind for cause in causes))
    text = f"[rq-etl] {'recovered: ' if is_over else ''}{_whose(causes, number)}{said}"
    text = printable(text)
    return text if len(text) <= SUBJECT else f"{text[: SUBJECT - 1]}…"


def body(config: Config, message: Message) -> str:
    """Return a message's text."""
    shown = message.lines[:SHOWN]
    lines = [_line(config, line, message.is_over) for line in shown]
    if left := len(message.lines) - len(shown) + message.more:
        lines.append(f"… and {left:,} more: rq-etl alerts")
    open_ = [line.cause for line in message.lines if not line.ended]
    if not message.is_over and open_:
        mine = {cause.who for cause in open_ if cause.client}
        ack = f"rq-etl alerts ack {mine.pop() if len(mine) == 1 else '--all'} says that you know of it"
        lines += ["", "What to do:", *dict.fromkeys(_cure(cause, len(open_)) for cause in open_), ack]
    return printable("\n".join(lines), keep="\n") + "\n"


def _whose(causes: Sequence[Cause], number: int) -> str:
    """Return whose causes are, with a colon; nothing for what concerns all, and where deliveries are counted."""
    clients = {cause.client for cause in causes if cause.client}
    if not clients:
        return ""
    if number == 1:
        return f"{causes[0].who}: "
    if len(clients) > 1 or len(causes) < number:
        return "" if {cause.kind for cause in causes} <= {*AT_ONCE} else f"{len(clients):,} clients: "
    pairs = {cause.who for cause in causes}
    return f"{pairs.pop()}: " if len(pairs) == 1 else f"{clients.pop()}, {len(pairs):,} pipelines: "


def what(cause: Cause, number: int = 1) -> str:
    """Return in a few words what is wrong."""
    if cause.kind == "failed":
        return _failure(cause)
    if cause.kind == "no scheduler" and cause.of == "synced":
        return _UNSYNCED[0]
    one, many = _SAID[cause.kind]
    if number > 1:
        return many.format(count=f"{number:,}")
    of = cause.of if _is_day(cause.of) else f"run {cause.of}"
    return one.format(of=of, rows=plural(cause.count, "row"), runs=plural(cause.count, "run"))


def _failure(cause: Cause) -> str:
    """Return the sentence of an error's class, with the target or the host; of a class of the user's, its name."""
    found = getattr(errors, cause.error, None)
    if not cause.error:
        return "failed"
    if not (isinstance(found, type) and issubclass(found, EtlError)):
        return f"{cause.error} in {cause.stage}"
    text = (found.__doc__ or "").strip().partition("\n")[0].rstrip(".").partition(" (")[0]
    text = text[:1].lower() + text[1:]
    if is_a(cause.error, SourceUnreachable):
        return f"source {cause.place} can't be reached" if cause.place else text
    return text.replace("the target", f"target {cause.place}", 1) if cause.place else text


def _line(config: Config, line: Line, is_over: bool) -> str:
    cause, zone = line.cause, _zone(config, line.cause.client)
    since = f"since {_moment(cause.since or line.opened, zone)}"
    end = f"; recovered {_moment(line.ended, zone)}" if line.ended else ""
    window = f", window {cause.of}" if cause.kind == "failed" and cause.of else ""
    run = f", run {cause.run}" if cause.run else ""
    whose = f"{cause.who}: " if cause.client else ""
    detail = f"\n    {cause.detail}" if cause.detail and not is_over and cause.detail != what(cause) else ""
    return f"{whose}{what(cause)}{window}, {since}{end}{run}{detail}"


def _cure(cause: Cause, number: int) -> str:
    if cause.kind == "no scheduler" and cause.of == "synced":
        return _UNSYNCED[1]
    who = cause.who if number == 1 else "CLIENT/PIPELINE"
    retry = f"rq-etl retry {cause.run or who}" if number == 1 else "rq-etl retry --failed --since 24h"
    if cause.kind == "failed" and is_a(cause.error, TargetUnreachable, SourceUnreachable):
        return f"rq-etl doctor says what can't be reached; when it can be: {retry}"
    return _CURES[cause.kind].format(who=who, retry=retry)


def _zone(config: Config, client: str) -> str:
    owner = config.clients.get(client)
    return owner.timezone if owner else "UTC"


def _moment(moment: float, zone: str) -> str:
    return f"{datetime.fromtimestamp(moment, UTC).astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M} {zone}"


def _is_day(text: str) -> bool:
    return len(text) == 10 and text[4:5] == "-"

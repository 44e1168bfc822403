"""What is open, as `rq-etl alerts` shows it."""

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from redis import Redis

from etl.config.pipeline import Config, known_client, pipelines_of, resolve
from jobs.alerts import causes, memory, state, texts
from jobs.alerts.cause import Cause, Entry
from jobs.store.run_json import iso
from jobs.views import console

SILENT = 60.0  # seconds without a look after which the cron process counts as dead
COLUMNS = ("kind", "who", "what", "since", "sent", "acknowledged")


def listing(config: Config, connection: Redis, now: datetime) -> list[dict[str, Any]]:
    """Return a line for each open cause, the oldest first.

    Where no cron process looks, these are the causes of now, and a warning on stderr says that nobody is informed.
    """
    known = state.entries(connection)
    if now.timestamp() - memory.recalled(connection).looked <= SILENT:
        found = [entry for entry in known.values() if not entry.over]
    else:
        print("rq-etl: warning: no cron process is alive: nobody is informed; start rq-etl cron", file=sys.stderr)
        current = causes.current(config, connection, now).causes
        found = [known.get(key) or Entry(cause, now.timestamp()) for key, cause in current.items()]
    return [_line(entry) for entry in sorted(found, key=lambda entry: entry.cause.since or entry.opened)]


def acknowledge(
    config: Config, connection: Redis, names: Sequence[str], by: str, now: datetime
) -> list[dict[str, Any]]:
    """Acknowledge what is open of clients, or of their pipelines; of everything where none is named.

    Args:
        names: `client` or `client/pipeline`.
        by: Who does.

    Raises:
        UnknownName: There is no such client or pipeline.
    """
    for name in names:
        client, _, pipeline = name.partition("/")
        known_client(config, client)
        if pipeline and pipeline not in pipelines_of(config, client):
            resolve(config, pipeline, client)  # raises what is wrong, with the nearest name

    def wanted(cause: Cause) -> bool:
        return not names or cause.client in names or cause.who in names

    return [_line(entry) for entry in state.acknowledge(connection, wanted, by, now)]


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each open cause."""
    if not found:
        console.say("nothing is open")
        return
    moments = ("since", "sent")
    lines = [
        {**line, **{name: console.moment(line[name]) for name in moments}, "acknowledged": line["by"]} for line in found
    ]
    console.table(COLUMNS, lines, spare=("sent",))
    console.say(f"times are in {console.zone()}")


def show_acknowledged(found: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each cause that was acknowledged."""
    console.say("\n".join(f"acknowledged {line['who']}: {line['what']}" for line in found) or "nothing is open")


def _line(entry: Entry) -> dict[str, Any]:
    cause = entry.cause
    names = ("client", "pipeline", "error", "stage", "place", "run", "detail")
    return {
        "kind": cause.kind,
        "who": cause.who or "all",
        "what": texts.what(cause),
        **{name: getattr(cause, name) or None for name in names},
        "since": iso(cause.since or entry.opened),
        "sent": iso(entry.sent or None),
        "acknowledged": iso(entry.acknowledged or None),
        "by": entry.by or None,
    }

"""What is open, and what has to be said: each look compares the causes of the present with those open in Redis.

One transaction writes what has changed, so that of two cron processes one says it. The first of a group of causes is
said at once; what follows within five minutes is collected and said together. A cause that ended is remembered for an
hour: one that comes and goes is open until it has stayed away, each time for longer.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.config.pipeline import Config
from jobs.alerts import causes, memory, recall, seen
from jobs.alerts.addresses import ALL, addresses, kinds_of, routes
from jobs.alerts.cause import AT_ONCE, Cause, Conditions, Entry, entries_of
from jobs.alerts.messages import Line, Message, join, outbox_of
from jobs.store import forms, runs
from jobs.store.keys import CAUSES, DIGESTS, OUTBOX
from jobs.views import waiting

COLLECTED = 300.0  # seconds from the first of a group in which what follows is collected
REMEMBERED = 3600.0  # seconds for which a cause is remembered after its end


def look(config: Config, connection: Redis, now: datetime) -> None:
    """Work out what is wrong now, and put into the outbox what has to be said of it.

    Args:
        now: In UTC.
    """
    recall.recall(config, connection)
    seen.note(config, connection, now)
    found = causes.current(config, connection, now)
    _explain(connection, found)
    compare(config, connection, found, now.timestamp())
    memory.keep(connection, looked=now)


def _explain(connection: Redis, found: Conditions) -> None:
    """Say why the runs wait to which nothing happens."""
    stuck = {cause.run: cause for cause in found.causes.values() if cause.kind == "stuck"}
    known = runs.snapshot(connection, list(stuck))
    waiting.explain(connection, known)
    found.add(*(replace(stuck[run["run"]], detail=run["waiting"] or "") for run in known))


def entries(connection: Redis) -> dict[str, Entry]:
    """Return the causes that are open, or were until lately, by key."""
    return entries_of(connection.hgetall(CAUSES))


def acknowledge(connection: Redis, wanted: Callable[[Cause], bool], by: str, now: datetime) -> list[Entry]:
    """Acknowledge open causes; returns them.

    Args:
        by: Who does.
    """
    done: list[Entry] = []

    def write(pipe: RedisPipeline) -> None:
        known = entries_of(pipe.hgetall(CAUSES))
        done[:] = [
            replace(entry, by=by, acknowledged=now.timestamp())
            for entry in known.values()
            if not entry.over and not entry.acknowledged and wanted(entry.cause)
        ]
        pipe.multi()
        for entry in done:
            pipe.hset(CAUSES, entry.cause.key, entry.as_json())

    connection.transaction(write, CAUSES)
    return done


@dataclass
class _Changes:
    """What a look changes: entries by key (None: forgotten), and what is said."""

    entries: dict[str, Entry | None] = field(default_factory=dict)
    new: list[Entry] = field(default_factory=list)
    over: list[Entry] = field(default_factory=list)


def compare(config: Config, connection: Redis, found: Conditions, now: float) -> None:
    """Open what is new, end what is over, and put into the outbox what has to be said of both.

    Args:
        now: In seconds since the epoch.
    """
    ways = routes(config)

    def write(pipe: RedisPipeline) -> None:
        known = entries_of(pipe.hgetall(CAUSES))
        digests = {
            group: json.loads(value)
            for group, value in forms.fit("objects", cast(dict[Any, Any], pipe.hgetall(DIGESTS))).items()
        }
        waiting = outbox_of(pipe.hgetall(OUTBOX))
        changes = _changes(config, known, found, now)
        posted = dict(waiting)
        windows = dict(digests)
        _say(config, ways, changes, posted, windows, now)
        pipe.multi()
        for key, entry in changes.entries.items():
            pipe.hdel(CAUSES, key) if entry is None else pipe.hset(CAUSES, key, entry.as_json())
        for name, before, after, spell in (
            (OUTBOX, waiting, posted, lambda message: message.as_json()),
            (DIGESTS, digests, windows, json.dumps),
        ):
            for key in before.keys() - after.keys():
                pipe.hdel(name, key)
            for key, value in after.items():
                if before.get(key) != value:
                    pipe.hset(name, key, spell(value))

    connection.transaction(write, CAUSES, DIGESTS, OUTBOX)


def _changes(config: Config, known: Mapping[str, Entry], found: Conditions, now: float) -> _Changes:
    changes, same = _Changes(), _same(known, found)
    for key, cause in found.causes.items():
        if cause.kind not in kinds_of(config, cause.client, cause.pipeline):
            continue
        old = known.get(same.get(key, key))
        if old and same.get(key, key) != key:
            changes.entries[same[key]] = None
        if old is None:
            entry = Entry(cause, now)
        elif old.over:
            entry = Entry(cause, now, again=old.again + 1)
        else:
            entry = replace(old, cause=_updated(old.cause, cause), ended=0.0)
        is_worse = old is not None and cause.kind in AT_ONCE and cause.count > old.cause.count
        if old is None or old.over or is_worse:
            changes.new.append(entry)
        if entry != old:
            changes.entries[key] = entry
    kept = {same.get(key, key) for key in found.causes}
    for key, entry in known.items():
        if key in kept and entry.cause.kind in kinds_of(config, entry.cause.client, entry.cause.pipeline):
            continue
        if not entry.over and (found.is_unsure(entry.cause) or entry.cause.client in config.broken):
            continue
        ended = replace(entry, ended=entry.ended or now)
        if not ended.over and entry.cause.subject not in found.fine:
            changes.entries[key] = None  # nobody will know: its client is gone, or its delivery is too old
        elif not ended.over and now - ended.ended >= ended.away:
            changes.entries[key] = replace(ended, over=now)
            changes.over.append(ended)
        elif ended.over and now - ended.over > REMEMBERED:
            changes.entries[key] = None
        elif ended != entry:
            changes.entries[key] = ended
    return changes


def _updated(old: Cause, new: Cause) -> Cause:
    """Return a cause that goes on as it is now; it goes on since it began, and all that was odd counts."""
    since = min(filter(None, (old.since, new.since)), default=0.0)
    return replace(new, since=since, count=max(old.count, new.count) if new.kind in AT_ONCE else new.count)


def _same(known: Mapping[str, Entry], found: Conditions) -> dict[str, str]:
    """Return by key those causes that are open under another: of one of the two, the error's class is not known.

    That is so of a failure that was asked of a target after a flush.
    """
    vague = {entry.cause.subject: key for key, entry in known.items() if not entry.cause.error and not entry.over}
    clear = {entry.cause.subject: key for key, entry in known.items() if entry.cause.error and not entry.over}
    return {
        key: other
        for key, cause in found.causes.items()
        if key not in known
        and (other := (vague if cause.error else clear).get(cause.subject))
        and other not in found.causes
    }


def _say(
    config: Config,
    ways: Mapping[tuple[str, str], str],
    changes: _Changes,
    outbox: dict[str, Message],
    digests: dict[str, Any],
    now: float,
) -> None:
    """Put into the outbox what has to be said of the changes."""
    for group, window in list(digests.items()):
        if now >= window["until"]:
            if not window["next"]:
                del digests[group]
            else:
                digests[group] = {"until": max(window["next"], now), "next": 0.0}
    said: dict[tuple[str, str, bool], list[Line]] = {}
    for entry in changes.new:
        about = _route(ways, entry.cause), entry.cause.group, False
        said.setdefault(about, []).append(Line(entry.cause, entry.opened))
    for entry in changes.over:
        cause = entry.cause
        if not _mark_ended(outbox, entry) and "recovered" in kinds_of(config, cause.client, cause.pipeline):
            line = Line(cause, entry.opened, entry.ended)
            said.setdefault((_route(ways, cause), cause.group, True), []).append(line)
    for (route, group, is_over), lines in said.items():
        if not addresses(config, route):
            continue
        name = f"{route} {'recovered ' if is_over else ''}{group}"
        window, due = digests.get(name), now
        if window:
            due = window["until"]
            digests[name] = {"until": due, "next": due + COLLECTED}
        elif is_over or lines[0].cause.kind not in AT_ONCE:
            digests[name] = {"until": now + COLLECTED, "next": 0.0}
        join(outbox, Message(route, group, is_over, now, due, lines=tuple(lines)), now)


def _route(ways: Mapping[tuple[str, str], str], cause: Cause) -> str:
    return ways.get((cause.client, cause.pipeline), ALL)


def _mark_ended(outbox: dict[str, Message], entry: Entry) -> bool:
    """Say in what is still unsent of a cause that it is over; whether that is enough, as nobody has heard of it."""
    is_enough = False
    for id, message in outbox.items():
        mine = [line for line in message.lines if line.cause.key == entry.cause.key and line.opened == entry.opened]
        if mine and not message.is_over:
            lines = tuple(replace(line, ended=entry.ended) if line in mine else line for line in message.lines)
            outbox[id] = replace(message, lines=lines)
            is_enough = not message.got and not message.lease
    return is_enough

"""Causes among what has ended, or should have: failed runs and windows, rejects, what was odd, what is late."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from redis import Redis

from etl.calendar import cron
from etl.config.pipeline import Config, Pair, definition_of, pairs_of
from etl.config.urls import parse_url, with_secrets
from etl.errors import EtlError, SourceUnreachable, TargetBusy, TargetRefused, TargetUnreachable
from jobs.alerts.cause import ANY, Cause, Conditions, is_a, one_line
from jobs.store import forms, keys, malformed
from jobs.store.keys import run_key

WHILE_ACTIVE = 3600.0  # seconds after which a due run is late although it has begun or waits
FIELDS = ("state", "start", "started", "ended", "error", "kind", "failures", "rows", "odd", "client", "pipeline")
RECALL = "recall"  # what says whether the targets were asked, see `jobs.alerts.recall`
ALL, SOME = "all", "some"  # of the targets that have answered
OF_RUNS = ("failed", "late", "rejects", "odd")


@dataclass(frozen=True)
class Known:
    """What Redis knows of the ends of runs.

    Args:
        last: By `client/pipeline`, the id of the run that ended last, and its state.
        succeeded: When it succeeded last, in seconds since the epoch.
        begun: When its schedule was looked at last.
        windows: By `client/pipeline/start`, the run of a window that failed.
        active: `client/pipeline` of runs without a window that have not ended.
        records: Fields of runs' hashes, by id.
    """

    last: Mapping[str, tuple[str, str]]
    succeeded: Mapping[str, float]
    begun: Mapping[str, float]
    windows: Mapping[str, str]
    active: frozenset[str]
    records: Mapping[str, Mapping[str, str]]


def judge(config: Config, connection: Redis, now: datetime, days: Mapping[str, str], found: Conditions) -> None:
    """Add the causes among the last runs of clients' pipelines, windows and schedules.

    Args:
        days: Of deliveries, by the run that they were loaded by.
    """
    known = _known(connection)
    is_recalled = connection.get(keys.once_key(RECALL)) == ALL.encode()
    for pair in pairs_of(config):
        name = "/".join(pair)
        if name not in known.last and not is_recalled:
            found.doubt(OF_RUNS, *pair)
            continue
        _last_run(config, pair, known, days, found)
        _late(config, pair, known, now, found)
    _windows(config, known, found)


def _known(connection: Redis) -> Known:
    pipe = connection.pipeline(transaction=False)
    for key in (keys.LAST, keys.SUCCEEDED, keys.DUE, keys.WINDOWS):
        pipe.hgetall(key)
    pipe.smembers(keys.ACTIVE)
    *raw, active = malformed.answers(pipe)
    forms_of = ("last", "moments", "due", "windows")
    last, succeeded, due, windows = (forms.fit(form, each or {}) for form, each in zip(forms_of, raw, strict=True))
    ended = {name: (text.partition(" ")[0], text.partition(" ")[2]) for name, text in last.items()}
    ids = malformed.ids(active or ())
    records = _records(connection, [*(run for run, _ in ended.values()), *windows.values(), *ids])
    return Known(
        ended,
        {name: float(moment) for name, moment in succeeded.items()},
        {name: float(moment) for name, moment in due.items()},
        windows,
        frozenset(
            f"{records[run].get('client')}/{records[run].get('pipeline')}"
            for run in ids
            if not records[run].get("start")
        ),
        records,
    )


def _records(connection: Redis, ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the fields of runs' hashes that are asked here; those that aren't there have none."""
    wanted = list(dict.fromkeys(ids))
    pipe = connection.pipeline(transaction=False)
    for run in wanted:
        pipe.hmget(run_key(run), *FIELDS)
    found = {}
    for run, values in zip(wanted, malformed.answers(pipe), strict=True):
        there = {name.encode(): value for name, value in zip(FIELDS, values or (), strict=False) if value is not None}
        found[run] = forms.fit("record", there)
    return found


# --- runs ---


def _last_run(config: Config, pair: Pair, known: Known, days: Mapping[str, str], found: Conditions) -> None:
    """Add what is wrong with the run that ended last."""
    run, state = known.last.get("/".join(pair), ("", ""))
    record = known.records.get(run, {})
    if state == "failed":
        found.add(_failed(config, pair, run, record))
        found.doubt(("rejects",), *pair)
        return
    if state == "canceled":  # by an operator: nothing is known that wasn't before
        found.doubt(("failed", "rejects"), *pair)
        return
    found.fine |= {("failed", *pair, ""), ("rejects", *pair, "")}
    if rejected := json.loads(record.get("rows") or "{}").get("rejected", 0):
        found.add(Cause("rejects", *pair, since=_ended(record), run=run, count=rejected))
    if odd := json.loads(record.get("odd") or "[]"):
        about: dict[str, Any] = {
            "since": _ended(record),
            "run": run,
            "count": len(odd),
            "detail": one_line("; ".join(odd)),
        }
        cause = Cause("odd", *pair, of=days.get(run, run), **about)
        found.causes.setdefault(cause.key, cause)  # its delivery may have said so


def _failed(config: Config, pair: Pair, run: str, record: Mapping[str, str], window: str = "") -> Cause:
    failures = [each for each in json.loads(record.get("failures") or "[]") if each.get("state") != "blocked"]
    kinds = Counter((str(each.get("kind") or ""), str(each["stage"])) for each in failures)
    if kinds:  # of several errors of a run, the commonest stands for it
        error, stage = min(kinds, key=lambda each: (-kinds[each], each))
        said = next(each["error"] for each in failures if (each.get("kind") or "", each["stage"]) == (error, stage))
    else:
        error, said = record.get("kind") or "", record.get("error") or ""
        stage = ("finish" if record.get("started") else "plan") if error else ""
    place = _place(config, pair, error)
    detail = one_line(str(said or ""))
    return Cause("failed", *pair, error, stage, place, window, _ended(record), run, len(failures), detail)


def _place(config: Config, pair: Pair, error: str) -> str:
    """Return the target's name for errors of targets, the host for those of sources that can't be reached."""
    definition = definition_of(config, *pair)
    if is_a(error, TargetUnreachable, TargetBusy, TargetRefused):
        return definition.load.target
    if is_a(error, SourceUnreachable):
        try:
            url = str(definition.extract.model_dump().get("url") or "")
            return parse_url(with_secrets(url.replace("{client}", pair[0]), "url")).host or ""
        except EtlError:
            pass  # this process may lack what the workers have
    return ""


def _windows(config: Config, known: Known, found: Conditions) -> None:
    found.fine |= {("failed", *pair, ANY) for pair in pairs_of(config)}  # what is loaded is in the list no more
    for field, run in known.windows.items():
        client, pipeline, window = field.split("/", 2)
        if client in config.clients and pipeline in config.clients[client].pipelines and known.records.get(run):
            found.add(_failed(config, (client, pipeline), run, known.records[run], window))


def _ended(record: Mapping[str, str]) -> float:
    return float(record.get("ended") or 0)


# --- schedules ---

_moments: dict[tuple[str, str], tuple[datetime | None, datetime]] = {}


def _before(line: str, zone: str, now: datetime) -> datetime | None:
    """Return the last moment of a cron line, which is worked out anew only after the next."""
    before, following = _moments.get((line, zone), (None, now))
    if before is None or not before <= now < following:
        before, following = cron.latest(line, zone, now), cron.following(line, zone, now)[0]
        _moments[line, zone] = before, following
    return before


def _late(config: Config, pair: Pair, known: Known, now: datetime, found: Conditions) -> None:
    """Add a pipeline that is late, unless the failure of its run says so already."""
    name, owner = "/".join(pair), config.clients[pair[0]]
    schedule = owner.schedule.get(pair[1])
    run, state = known.last.get(name, ("", ""))
    record = known.records.get(run, {})
    good = known.succeeded.get(name) or (_ended(record) if state == "succeeded" else 0.0)
    before = _before(schedule.cron, owner.timezone, now) if schedule else None
    begun = None if run else known.begun.get(name, now.timestamp())
    definition = definition_of(config, *pair)
    fresh = definition.expect.fresh if definition.expect else None
    late = cron.lateness(before, datetime.fromtimestamp(good, UTC) if good else None, begun, fresh, now)
    is_said = state == "failed" and before is not None and _ended(record) >= before.timestamp()
    if late > (WHILE_ACTIVE if name in known.active else cron.GRACE) and not is_said:
        found.add(Cause("late", *pair, since=round(now.timestamp() - late, 3)))
    elif late <= cron.GRACE:
        found.fine.add(("late", *pair, ""))
    else:
        found.doubt(("late",), *pair)

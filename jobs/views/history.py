"""Runs that Redis has forgotten, as the targets remember them; where both know a run, Redis is right."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from etl.config.pipeline import Pair, pairs_of
from etl.errors import UnknownName
from etl.staging import Staging
from jobs.store import leftover, runs
from jobs.store.run_json import seconds_of
from jobs.views import waiting
from jobs.views.remembered import remembered

if TYPE_CHECKING:
    from jobs.session import Session


def recent(
    session: "Session",
    *,
    client: str | None = None,
    pipeline: str | None = None,
    state: str | None = None,
    since: float | None = None,
    limit: int | None = runs.SHOWN,
) -> list[dict[str, Any]]:
    """Return runs in the public JSON shape, newest first, from Redis and, where it may not know all, elsewhere.

    Args:
        since: Only runs submitted after this moment (seconds since the epoch).
        limit: How many at most, which is said on stderr where there are more; None means all.
    """
    most = None if limit is None else limit + 1
    known = runs.search(session.connection, client=client, pipeline=pipeline, state=state, since=since)
    found = list(islice(known, most))
    if since is None or not runs.knows_all(session.connection, since):
        after = datetime.fromtimestamp(since, UTC) if since is not None else None
        pairs = pairs_of(session.config, client) if client else None
        older = [
            run
            for run in remembered(
                session.config, pairs, client=client, pipeline=pipeline, state=state, since=after, limit=most
            )
            if since is None or seconds_of(run["submitted"]) >= since
        ]
        left = [
            run
            for run in leftover.ended(session.config.staging, client)
            if run["pipeline"] == (pipeline or run["pipeline"])
            and run["state"] == (state or run["state"])
            and seconds_of(run["submitted"]) >= (since or 0)
        ]
        found = _newest([*found, *_forgotten(session, [*older, *left])])
    if limit is not None and len(found) > limit:
        cure = "narrow them with --client, --state or --since"
        print(f"rq-etl: warning: there are more runs than the newest {limit:,}; {cure}", file=sys.stderr)
    waiting.explain(session.connection, found[:limit], works=session.has_workers)
    return found[:limit]


def snapshot(session: "Session", ids: Sequence[str], *, works: bool = False) -> list[dict[str, Any]]:
    """Return runs in the public JSON shape, those that Redis knows, in the order given, and why they wait.

    Args:
        works: Whether this process works on them.
    """
    found = runs.snapshot(session.connection, ids)
    waiting.explain(session.connection, found, works=works or session.has_workers)
    return found


def latest(session: "Session", pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return, of clients' pipelines, the last run and the last success as targets remember them, newest first."""
    return _newest(_forgotten(session, remembered(session.config, pairs, latest=True)))


def find(session: "Session", text: str) -> dict[str, Any]:
    """Return a run in the public JSON shape, by an id, a unique beginning of one, or `client/pipeline` (the latest).

    Redis is asked first, then staging, which knows what has failed with `--inline`, then the targets.

    Raises:
        UnknownName: No run, or several, are meant.
    """
    unknown, url = UnknownName(f"no run {text} is known", "see rq-etl runs"), session.config.staging
    client, slash, pipeline = text.partition("/")
    found: list[dict[str, Any]] = []
    try:
        found = snapshot(session, [runs.find(session.connection, text)])
    except UnknownName as exc:
        unknown = exc
    if slash:
        is_configured = client in session.config.clients and pipeline in session.config.pipelines
        if is_configured:
            found = found or latest(session, [(client, pipeline)])[:1]
            left = [run for run in leftover.ended(url, client) if run["pipeline"] == pipeline]
            found = _newest({run["run"]: run for run in [*found, *_forgotten(session, left)]}.values())[:1]
    elif not found and text:
        left = leftover.find(url, text)
        sure = [run for run in left if run["error"] != leftover.UNKNOWN]
        found = sure or list(remembered(session.config, run=text)) or left
        found = [run for run in found if run["run"] == text] or found
    if len(found) > 1:
        some = ", ".join(run["run"] for run in found[:5])
        raise UnknownName(f"run {text} is not unique: {some}", "give more characters")
    if not found:
        raise unknown
    return found[0]


def failed(session: "Session", since: float | None) -> list[str]:
    """Return the ids of the runs that have failed and may be retried, oldest first: what one needs comes before it.

    Args:
        since: Only those submitted after this moment (seconds since the epoch).
    """
    found = runs.recent(session.connection, state="failed", since=since, limit=None)
    left = [run for run in leftover.ended(session.config.staging) if run["state"] == "failed"]
    left = [run for run in _forgotten(session, left) if seconds_of(run["submitted"]) >= (since or 0)]
    return [run["run"] for run in reversed(_newest([*found, *left]))]


def recall(session: "Session", text: str) -> str:
    """Return the id of the run that is meant, see `find`; one that failed and Redis doesn't know is written into it.

    Raises:
        UnknownName: No run, or several, are meant.
        EtlError: Redis doesn't know the run, which has succeeded.
    """
    run = find(session, text)
    leftover.restore(session.connection, session.config.staging, run)
    return str(run["run"])


def staging_of(session: "Session", run: Mapping[str, Any]) -> Staging:
    """Return the staging of a run that is given in the public JSON shape."""
    return Staging(session.config.staging, run["client"], run["run"])


def _forgotten(session: "Session", found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those runs that Redis does not know."""
    unique = {run["run"]: run for run in found}
    known = {run["run"] for run in runs.snapshot(session.connection, list(unique))}
    return [run for id, run in unique.items() if id not in known]


def _newest(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(found, key=lambda run: seconds_of(run["submitted"]), reverse=True)

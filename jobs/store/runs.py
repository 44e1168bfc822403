"""What Redis knows of runs: their records, their stages' counts, who is active, who waits."""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.errors import EtlError, UnknownName
from etl.staging import Staging
from jobs import settings
from jobs.store import forms, malformed, over, scripts
from jobs.store.keys import (
    ACTIVE,
    CLAIMED,
    HELD,
    INDEX,
    LAST,
    SINCE,
    client_key,
    held_key,
    holder_key,
    lost_key,
    run_key,
    stages_key,
)
from jobs.store.run_json import StageRecord, of_record, record_of, records_of, text_of
from jobs.store.transitions import sources

STAGES_KEPT = 7 * 86400  # seconds; what each stage counted is asked for while a run may be retried
SHOWN = 1000  # runs that are listed at most where nobody says how many
ENDED, STATES = forms.ENDED, forms.STATES
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_id() -> str:
    """Return a run id: ten random characters, so that a short beginning is unique."""
    return id_of(secrets.token_bytes(10))


def id_of(seed: bytes) -> str:
    """Return the run id that follows from ten bytes or more."""
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in seed[:10])


def create(
    pipe: RedisPipeline,
    run: str,
    *,
    client: str,
    pipeline: str,
    params: Mapping[str, Any],
    start: str | None,
    end: str | None,
    partitions: int,
    warnings: Sequence[str],
    max_active: int,
    weight: int = 1,
) -> None:
    """Write a new run's keys, or those of one that was held, into an open transaction."""
    now = time.time()
    fields: dict[Any, Any] = {
        **about(client, pipeline, params, start, end),
        "state": "queued",
        "partitions": partitions,
        "warnings": json.dumps(list(warnings)),
        "attempt": 1,
    }
    pipe.hset(run_key(run), mapping=fields)
    pipe.hsetnx(run_key(run), "created", repr(now))
    index(pipe, run, now)
    pipe.zrem(HELD, run)
    pipe.zrem(held_key(client, pipeline, start), run)
    pipe.sadd(ACTIVE, run)
    pipe.set(holder_key(client, pipeline, start), run)
    pipe.hset(client_key(client), mapping={"max_active": max_active, "weight": weight})


def about(client: str, pipeline: str, params: Mapping[str, Any], start: str | None, end: str | None) -> dict[str, str]:
    """Return as fields of a run's hash whose run it is, and for what."""
    whose = {"client": client, "pipeline": pipeline, "params": json.dumps(dict(params))}
    return {**whose, "start": start or "", "end": end or ""}


def index(pipe: RedisPipeline, run: str, now: float) -> None:
    """List a run by the moment of its submission."""
    pipe.zadd(INDEX, {run: now}, nx=True)
    pipe.set(SINCE, repr(now), nx=True)
    pipe.expire(SINCE, int(2 * settings.history()))


def knows_all(connection: Redis, since: float) -> bool:
    """Whether Redis has forgotten no run that was submitted after a moment (in seconds since the epoch)."""
    first = cast(bytes | None, connection.get(SINCE))
    is_known = first is not None and forms.is_number(first)
    return is_known and float(first or 0) <= since and since > time.time() - settings.history()


def not_retried(run: str, state: str | None) -> str:
    """Say why a run in a state is not retried."""
    if state in sources("reopen"):
        return f"run {run} has been retried and has {state} again"
    return f"run {run} is {state}; only failed and canceled runs are retried"


def held(connection: Redis) -> list[str]:
    """Return the ids of the runs that wait for others, the oldest first."""
    return malformed.ids(connection.zrange(HELD, 0, -1))


def last(connection: Redis, client: str, pipeline: str) -> tuple[str, str] | None:
    """Return the id and the state of the run of a client and pipeline that ended last, or None."""
    found = forms.fit("last", {f"{client}/{pipeline}".encode(): connection.hget(LAST, f"{client}/{pipeline}") or b""})
    if not found:
        return None
    run, _, state = found.popitem()[1].partition(" ")
    return run, state


def reopen(
    pipe: RedisPipeline, run: str, record: Mapping[str, str], attempt: int, partitions: int, redone: Iterable[str]
) -> None:
    """Write an ended run's keys back to `queued` for another attempt, in an open transaction.

    Args:
        redone: Stage record fields (`<partition>:<stage>`) that will be made again.
    """
    fresh: dict[Any, Any] = dict.fromkeys(("error", "rows", "ended", "odd"), "")
    pipe.hset(run_key(run), mapping={"state": "queued", "attempt": attempt, "partitions": partitions, **fresh})
    pipe.hdel(run_key(run), "started")  # an attempt has its own time
    pipe.persist(run_key(run))
    pipe.persist(stages_key(run))
    pipe.persist(lost_key(run))
    pipe.sadd(ACTIVE, run)
    pipe.set(holder_key(record["client"], record["pipeline"], record.get("start")), run)
    fields = list(redone)
    if fields:
        pipe.hdel(stages_key(run), *fields)


def begin(connection: Redis, run: str) -> dict[str, str]:
    """Mark a queued run as running and return its hash; empty where Redis has forgotten it."""
    flat = scripts.begin(connection, run_key(run), repr(time.time()), ",".join(sources("begin")))
    return record_of(dict(zip(flat[::2], flat[1::2], strict=True))) or {}


def close(
    connection: Redis,
    run: str,
    state: str,
    *,
    rows: Mapping[str, int] | None = None,
    partitions: Mapping[str, int] | None = None,
    failures: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] | None = None,
    odd: Sequence[str] | None = None,
    error: str | None = None,
    exit: int = 0,
    kind: str | None = None,
    attempt: int | None = None,
    client: str | None = None,
) -> bool:
    """End a run; the first ending stands.

    Args:
        odd: Sentences about what its delivery is not as expected in.
        kind: The name of the error's class, where it is the run's own and no stage's.
        client: Whose run it is, to say in its staging that it has ended; None where nobody knows.
        attempt: Only this attempt of it; None whichever there is.

    Returns:
        True where this call ended it.
    """
    history = int(settings.history())
    fields: dict[str, str] = {"state": state, "ended": repr(time.time()), "error": error or "", "exit": str(exit)}
    fields |= {"failures": json.dumps(list(failures)), "kind": kind or ""}
    for name, value in (("rows", rows), ("done", partitions), ("warnings", warnings), ("odd", odd)):
        if value is not None:
            fields[name] = json.dumps(value)
    flat = [part for pair in fields.items() for part in pair]
    states = ",".join(sources("close"))
    answer = text_of(scripts.close(connection, run, states, history, min(history, STAGES_KEPT), attempt or "", *flat))
    connection.zremrangebyscore(INDEX, 0, time.time() - history)
    if answer == "closed" and client is not None:
        with suppress(EtlError):  # as on a full disk: the run has ended all the same
            over.mark(Staging(settings.staging(), client, run))
    return answer == "closed"


def record_stage(
    connection: Redis,
    run: str,
    partition: int,
    stage: str,
    state: str,
    counts: Mapping[str, int] | None = None,
    *,
    seconds: float = 0.0,
    error: str | None = None,
    exit: int = 0,
    kind: str | None = None,
    about: Mapping[str, Any] | None = None,
    lease: tuple[str, str] | None = None,
) -> None:
    """Keep what a stage counted, or why it failed, for `status`, progress and `finish`.

    Args:
        about: More fields of its `StageRecord`.
        lease: Queue and entry of the lease under which it is said; without one that stands, nothing is written.
    """
    value: dict[str, Any] = {
        "state": state,
        **(about or {}),
        "counts": dict(counts or {}),
        "seconds": round(seconds, 3),
    }
    if error:
        value["error"] = error
        value["exit"] = exit
    if error and kind:
        value["kind"] = kind
    field = f"{partition}:{stage}"
    scripts.record(connection, run_key(run), stages_key(run), field, json.dumps(value), STAGES_KEPT, *(lease or ()))


def stage_records(connection: Redis, run: str) -> dict[tuple[int, str], StageRecord]:
    """Return what every stage of a run said last, by partition and stage."""
    return records_of(cast(dict[Any, Any], connection.hgetall(stages_key(run))))


def read(connection: Redis, run: str) -> dict[str, str] | None:
    """Return a run's hash, or None where Redis has no such run."""
    return read_many(connection, [run]).get(run)


def read_many(connection: Redis, runs: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the hashes of those runs that Redis knows, by id, in one question; malformed ones are not known."""
    ids, pipe = list(runs), connection.pipeline(transaction=False)
    for run in ids:
        pipe.hgetall(run_key(run))
    found = zip(ids, map(record_of, malformed.answers(pipe)), strict=True)
    return {run: record for run, record in found if record is not None}


def holder(connection: Redis, client: str, pipeline: str, start: str | None = None) -> str | None:
    """Return the id of the active run of a client and pipeline, or of one that a claim keeps its place for, or None.

    What says so without either is of nobody: nothing would ever end it.
    """
    key = holder_key(client, pipeline, start)
    run = text_of(connection.get(key))
    if run is None or connection.sismember(ACTIVE, run):
        return run
    return run if 0 <= connection.pttl(key) <= CLAIMED * 1000 else None


def pending(connection: Redis, client: str, pipeline: str, start: str | None = None) -> str | None:
    """Return the run of a client, pipeline and window that will end last: the newest held one, else the active one."""
    key = held_key(client, pipeline, start)
    for run in malformed.ids(connection.zrevrange(key, 0, -1)):
        if connection.zscore(HELD, run) is not None:
            return run
        connection.zrem(key, run)  # its record was lost, and nothing has ended it
    return holder(connection, client, pipeline, start)


def active(connection: Redis) -> list[str]:
    """Return the ids of the runs that have not ended."""
    return sorted(malformed.ids(connection.smembers(ACTIVE)))


def snapshot(connection: Redis, runs: Sequence[str]) -> list[dict[str, Any]]:
    """Return runs in the public JSON shape, those that Redis knows, in the order given."""
    pipe = connection.pipeline(transaction=False)
    for run in runs:
        pipe.hgetall(run_key(run))
        pipe.hgetall(stages_key(run))
    answers = malformed.answers(pipe)
    found = zip(runs, map(record_of, answers[::2]), answers[1::2], strict=True)
    return [of_record(run, record, records_of(stages)) for run, record, stages in found if record is not None]


def recent(
    connection: Redis,
    *,
    client: str | None = None,
    state: str | None = None,
    since: float | None = None,
    limit: int | None = SHOWN,
) -> list[dict[str, Any]]:
    """Return runs in the public JSON shape, newest first; see `search`.

    Args:
        limit: How many are returned at most; None means all.
    """
    return list(islice(search(connection, client=client, state=state, since=since), limit))


def search(
    connection: Redis,
    *,
    client: str | None = None,
    pipeline: str | None = None,
    state: str | None = None,
    since: float | None = None,
    look: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield runs in the public JSON shape, newest first, for who stops where enough is found.

    Args:
        since: Only runs submitted after this moment (seconds since the epoch).
        look: How many runs are looked at, at most, whatever they are; None means all.
    """
    wanted = {name: value for name, value in (("client", client), ("pipeline", pipeline), ("state", state)) if value}
    lowest, most = "-inf" if since is None else since, -1 if look is None else look
    ids = malformed.ids(connection.zrevrangebyscore(INDEX, "+inf", lowest, start=0, num=most))
    at, size = 0, 200
    while at < len(ids):
        found = snapshot(connection, _matching(connection, ids[at : at + size], wanted))
        yield from (run for run in found if all(run[name] == value for name, value in wanted.items()))
        at, size = at + size, 2000 if wanted else 200


def _matching(connection: Redis, ids: list[str], wanted: Mapping[str, str]) -> list[str]:
    """Return those of some runs whose records have these values, without reading the whole of each."""
    if not wanted:
        return ids
    pipe = connection.pipeline(transaction=False)
    for run in ids:
        pipe.hmget(run_key(run), *wanted)
    values = [value.encode() for value in wanted.values()]
    return [run for run, found in zip(ids, malformed.answers(pipe), strict=True) if found == values]


def newest(connection: Redis) -> Iterator[dict[str, Any]]:
    """Yield all runs in the public JSON shape, newest first, for who stops where enough is found."""
    return search(connection)


def _ids(connection: Redis) -> list[str]:
    return malformed.ids(connection.zrevrange(INDEX, 0, -1))


def find(connection: Redis, text: str) -> str:
    """Return the id of the run meant by an id, a unique beginning of one, or `client/pipeline` (the latest).

    Raises:
        UnknownName: No run, or several, are meant.
    """
    if connection.exists(run_key(text)):
        return text
    client, slash, pipeline = text.partition("/")
    if slash:
        of_both = search(connection, client=client, pipeline=pipeline) if client and pipeline else ()
        matches = [run["run"] for run in islice(of_both, 1)]
    else:
        matches = [id for id in _ids(connection) if text and id.startswith(text)]
    if len(matches) > 1:
        raise UnknownName(f"run {text} is not unique: {', '.join(matches[:5])}", "give more characters")
    if not matches:
        raise UnknownName(f"no run {'of ' if '/' in text else ''}{text} is known", "see rq-etl runs")
    return str(matches[0])

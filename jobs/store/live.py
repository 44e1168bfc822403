"""What is alive: workers, the cron process, a stage while it runs; and which workers were lost with a stage in hand."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from redis import ConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry
from rq import worker_registration
from rq.utils import utcparse

from jobs import settings
from jobs.store import forms, keys, malformed, runs, scripts
from jobs.store.keys import lost_key, run_key, stages_key
from jobs.store.run_json import iso, record_of
from jobs.store.transitions import sources

SILENCE = 60.0  # seconds that Redis knows a worker at least, after its last sign of life
HEARD = 10  # seconds that a scheduler's key lasts at least, as long as each sign of life comes in time
SCANNED = 5000  # keys that one step of a look for a process goes through
EVERY = 1.0  # seconds between two counts of rows
PATIENCE = 0.5  # seconds that a count waits for Redis
PAUSE = 30.0  # seconds without counts where Redis has not taken one


# --- processes ---


class Worker(NamedTuple):
    """A worker that Redis knows.

    Args:
        silent: Seconds since its last sign of life, of which one is due every quarter of a lease.
    """

    name: str
    host: str
    state: str
    silent: float

    @property
    def is_alive(self) -> bool:
        """Whether it has given the last sign of life that was due."""
        return self.silent <= max(2.0, 0.4 * settings.lease())


def workers(connection: Redis) -> list[Worker]:
    """Return the workers that Redis knows; who was killed is among them until it has been silent for a minute."""
    names = malformed.ids(connection.smembers(worker_registration.REDIS_WORKER_KEYS))
    pipe = connection.pipeline(transaction=False)
    pipe.time()
    for key in names:
        pipe.hgetall(key)
        pipe.ttl(key)
    now, *answers = malformed.answers(pipe)
    found = []
    for at, key in enumerate(names):
        if raw := answers[2 * at]:
            about = forms.fit("worker", raw)
            silent = _silent(about.get("last_heartbeat", ""), answers[2 * at + 1], now[0] + now[1] / 1e6)
            name = key.removeprefix(keys.WORKER)
            found.append(Worker(name, about.get("hostname", ""), about.get("state", ""), silent))
    return found


def _silent(heartbeat: str, left: int, now: float) -> float:
    """Return for how many seconds a worker has been silent: by Redis's clock, where the end of its key says so.

    Args:
        left: Seconds until its key ends.
    """
    whole = max(SILENCE, round(5 * settings.lease()))  # as each sign of life sets it
    if 0 <= left <= whole:
        return whole - left
    return now - utcparse(heartbeat).timestamp() if heartbeat else math.inf


def cron_alive(connection: Redis) -> bool:
    """Whether a process is there that looks at schedules and deliveries: `rq-etl cron`, or an rqscheduler alone.

    One that was killed is noticed when its next sign of life is due: its key would last ten seconds longer.
    """
    if crons(connection):
        return True
    found = list(connection.scan_iter(f"{keys.SCHEDULERS}*", count=SCANNED))
    pipe = connection.pipeline(transaction=False)
    for key in found:
        pipe.hexists(key, "death")
        pipe.ttl(key)
    answers = malformed.answers(pipe)
    pairs = zip(answers[::2], answers[1::2], strict=True)
    return any(not is_dead and (left == -1 or left >= HEARD) for is_dead, left in pairs)


def crons(connection: Redis) -> list[str]:
    """Return the processes of `rq-etl cron` that are alive, as `host-pid`."""
    found = malformed.ids(connection.scan_iter(keys.cron_key("*"), count=SCANNED))
    return sorted(key.removeprefix(keys.cron_key("")) for key in found)


def sign(connection: Redis, process: str) -> None:
    """Say that a process of `rq-etl cron` is alive; it counts as dead when it hasn't said so for five seconds."""
    connection.set(keys.cron_key(process), repr(time.time()), px=int(keys.CRON_SIGN * 1000))


def leave(connection: Redis, process: str) -> None:
    """Say that a process of `rq-etl cron` has ended."""
    connection.delete(keys.cron_key(process))


# --- stages ---


@dataclass
class Running:
    """The record of one execution of a stage.

    Args:
        lease: Queue and entry of the lease under which it runs; None where there is none.
        about: Of its record what stays: `worker`, `attempt` and `began`.
        since: When it began, by the monotonic clock in seconds.
    """

    connection: Redis
    run: str
    partition: int
    stage: str
    lease: tuple[str, str] | None
    about: Mapping[str, Any]
    since: float = field(default_factory=time.monotonic)
    _next: float = 0.0
    _impatient: Redis | None = None

    def count(self, counts: Mapping[str, int]) -> None:
        """Write the rows so far, about once a second: a Redis that is away fails nothing, and is not waited for."""
        now = time.monotonic()
        if self.lease is None or now < max(self._next, self.since + EVERY):
            return
        self._next = now + EVERY
        try:
            self._impatient = self._impatient or impatient(self.connection)
            self._write(self._impatient, "running", counts, about={"by": _by(self.lease), **self.about})
        except (RedisError, OSError):
            self._next = time.monotonic() + PAUSE

    def end(
        self, state: str, counts: Mapping[str, int], error: str | None = None, exit: int = 0, kind: str | None = None
    ) -> None:
        """Write how it ended, unless its job has been given to another meanwhile."""
        if self._impatient is not None:
            self._impatient.close()
        ended = {**self.about, "ended": iso(time.time())}
        self._write(self.connection, state, counts, error=error, exit=exit, kind=kind, about=ended)

    def _write(self, connection: Redis, state: str, counts: Mapping[str, int], **more: Any) -> None:
        which = connection, self.run, self.partition, self.stage
        seconds = time.monotonic() - self.since
        runs.record_stage(*which, state, counts, seconds=seconds, lease=self.lease, **more)


def begin(
    connection: Redis,
    run: str,
    attempt: str,
    partition: int,
    stage: str,
    *,
    worker: str | None = None,
    lease: tuple[str, str] | None = None,
) -> tuple[dict[str, str], Running]:
    """Mark a queued run as running, and a stage of it; the stage of another attempt of the run is left alone.

    Args:
        attempt: Of the run, that the stage belongs to.
        partition: 0 is the whole run's.
        worker: Name of the worker, where it is a process of its own.
        lease: Queue and entry of the lease under which it runs.

    Returns:
        The run's hash, empty where Redis has forgotten it, and the stage's record.
    """
    now = time.time()
    fixed: dict[str, Any] = {"worker": worker} if worker else {}
    fixed["began"] = iso(now)
    about = json.dumps({"by": _by(lease)} if lease else {})[1:-1]
    head = ", ".join(filter(None, ('{"state": "running"', about, '"attempt": ')))
    tail = f", {json.dumps({**fixed, 'counts': {}, 'seconds': 0.0})[1:]}"
    states, field = ",".join(sources("begin")), f"{partition}:{stage}"
    record = attempt, stages_key(run), field, head, tail, *(lease or ())
    flat = scripts.begin(connection, run_key(run), repr(now), states, *record)
    found = dict(zip(flat[::2], flat[1::2], strict=True))
    tries = int(found.pop(b"stage_attempt", b"1"))
    running = Running(connection, run, partition, stage, lease, {"attempt": tries, **fixed})
    return record_of(found) or {}, running


def impatient(connection: Redis) -> Redis:
    """Return a connection to the same Redis that gives up at once where it doesn't answer."""
    pool = connection.connection_pool
    limits = {"retry": Retry(NoBackoff(), 0), "socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE}
    made = ConnectionPool(pool.connection_class, **{**pool.connection_kwargs, **limits})
    return Redis(connection_pool=made)


def losses(connection: Redis, run: str) -> list[dict[str, Any]]:
    """Return which workers were lost with a stage of a run in hand, the first loss first.

    Each is `at`, `worker`, `partition`, `stage`, `resumed` and `seconds`, with `host` and `pid` of the worker and what
    was lost of it (`what`): the `worker`, or its `process` alone. `resumed` is None until the stage has begun again.
    """
    raw = cast(dict[Any, Any], connection.hgetall(lost_key(run)))
    found = sorted((json.loads(value) for value in forms.fit("lost", raw).values()), key=lambda each: each["at"])
    return [
        {
            "at": iso(each["at"]),
            "worker": each["worker"] or None,
            "partition": each["partition"],
            "stage": each["stage"],
            "resumed": iso(each["resumed"]),
            "seconds": None if each["resumed"] is None else round(max(0.0, each["resumed"] - each["at"]), 1),
            "host": each["host"] or None,
            "pid": int(each["pid"]) if each["pid"].isdecimal() else None,
            "what": each["what"],
        }
        for each in found
    ]


def _by(lease: tuple[str, str]) -> str:
    return lease[1].rpartition(":")[2]

"""The pass: what every worker does every few seconds so that no job is ever left behind.

*Reap*: a job whose lease has expired goes back to the front of its queue. *Release*: a retry that is due,
and a job of an active run whose parents are all over, is queued. *Sweep*, now and then: a run that nothing
will end any more is closed, and what has expired is forgotten. One worker at a time does it for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis
from rq import worker_registration
from rq.utils import now, utcformat

from jobs import settings
from jobs.job import EtlJob
from jobs.process.complete import PACKED
from jobs.queue import FairQueue
from jobs.run import held
from jobs.store import keys, runs, scripts
from jobs.store.keys import PREFIX

CLEANUP_EVERY = 3600  # seconds
UPKEEP = f"{PREFIX}_upkeep"  # the queue of the sweep


@dataclass(frozen=True)
class Maintained:
    """What a pass has found.

    Args:
        lost: Ids of jobs whose lease had expired.
        due: How many retries were due.
        released: How many jobs of active runs were queued that nothing else had queued.
        closed: Ids of runs whose last job has ended without ending the run.
    """

    lost: tuple[str, ...] = ()
    due: int = 0
    released: int = 0
    closed: tuple[str, ...] = ()


def maintain(connection: Redis, names: Sequence[str]) -> Maintained:
    """Reap and release.

    Args:
        names: Names of all queues.
    """
    at = utcformat(now())
    lost, due = rescue(connection, names)
    sweep = bool(connection.set("etl:sweep", 1, nx=True, px=int(settings.LOST_JOBS_EVERY * 1000)))
    released, closed = 0, []
    for raw in cast(set[bytes], connection.smembers(keys.ACTIVE)):
        run = raw.decode()
        count, left = scripts.promote(connection, at, int(sweep), keys.jobs_key(run))
        released += count
        if sweep and not left and _close(connection, run):
            closed.append(run)
    released += held.promote(connection)
    if sweep:
        _forget(connection, names)
    return Maintained(lost, due, released, tuple(closed))


def rescue(connection: Redis, names: Sequence[str], *, apart: float = 0.0) -> tuple[tuple[str, ...], int]:
    """Queue the jobs whose lease has expired and the retries that are due: one cheap question, so each worker asks it.

    Args:
        names: Names of all queues.
        apart: Seconds that must have passed since somebody asked, so that many workers don't ask all the time.

    Returns:
        Ids of the jobs that were lost, and how many retries were due.
    """
    packed = (utcformat(now()), settings.MAX_LOSSES, PACKED, "\n".join(names), settings.lease(), apart)
    lost, due = scripts.rescue(connection, *packed)
    return tuple(entry.decode().rpartition(":")[0] for entry in lost), due


def take_turn(connection: Redis, worker: str) -> bool:
    """Whether this worker is the one to do the next pass."""
    return bool(connection.set("etl:pass", worker, nx=True, px=int(settings.lease() / 4 * 900)))


def request_cleanup(connection: Redis) -> None:
    """Have a worker sweep staging and targets, once an hour: see `jobs.sweep`."""
    if connection.set("etl:swept", 1, nx=True, ex=CLEANUP_EVERY):
        FairQueue(UPKEEP, connection=connection).enqueue_call(
            "jobs.stages.cleanup",
            timeout=CLEANUP_EVERY,
            result_ttl=CLEANUP_EVERY,
            failure_ttl=24 * CLEANUP_EVERY,
            description="sweep",
        )


def _close(connection: Redis, run: str) -> bool:
    """End a run whose jobs have all ended without doing so: its finish was lost, stopped or out of time."""
    ids = sorted(raw.decode() for raw in cast(set[bytes], connection.smembers(keys.jobs_key(run))))
    why = "its jobs are gone from Redis"
    for id in ids:
        if "-finish-" in id and EtlJob.exists(id, connection):
            result = EtlJob(id, connection=connection).latest_result()
            why = f"finish: {(result and result.exc_string) or 'did not run'}"
    if runs.close(connection, run, "failed", error=why, exit=1):
        return True
    if not connection.exists(keys.run_key(run)):
        connection.srem(keys.ACTIVE, run)
    return False


def _forget(connection: Redis, names: Sequence[str]) -> None:
    """Take jobs that Redis has deleted, and workers that have died, from RQ's lists."""
    until = now().timestamp()
    known = list(cast(set[bytes], connection.smembers(worker_registration.REDIS_WORKER_KEYS)))
    connection.zremrangebyscore(keys.INDEX, 0, until - settings.history())
    pipe = connection.pipeline(transaction=False)
    for worker in known:
        pipe.exists(worker)
    dead = [worker for worker, there in zip(known, pipe.execute(), strict=True) if not there]
    for name in names:
        pipe.zremrangebyscore(f"rq:finished:{name}", 0, until)
        pipe.zremrangebyscore(f"rq:failed:{name}", 0, until)
        if dead:
            pipe.srem(worker_registration.WORKERS_BY_QUEUE_KEY % name, *dead)
    if dead:
        pipe.srem(worker_registration.REDIS_WORKER_KEYS, *dead)
    pipe.execute()

"""Maintenance: what workers do every few seconds so that no job and no run is ever left behind.

One worker at a time does it for all. TASKS lists what is done, and how often.
"""

from collections.abc import Callable, Sequence
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
from jobs.store import keys, malformed, runs, scripts
from jobs.store.keys import PREFIX

HELD_EVERY = 60.0  # seconds; the end of a run lists those that wait for it, so this finds only what Redis has lost
CLEANUP_EVERY = 3600  # seconds
UPKEEP = f"{PREFIX}-upkeep"  # the queue of the cleanup: no client can have such a name


def once_every(connection: Redis, name: str, seconds: float) -> bool:
    """Whether it is time to do something: true for one caller in so many seconds, whichever process it is."""
    return bool(scripts.once_every(connection, keys.once_key(name), int(seconds * 1000)))


@dataclass
class Maintained:
    """What maintenance has done.

    Args:
        lost: Ids of jobs whose lease had expired.
        due: How many retries were due.
        released: How many jobs of active runs were queued that nothing else had queued, and held runs started.
        closed: Ids of runs whose last job has ended without ending the run.
    """

    lost: tuple[str, ...] = ()
    due: int = 0
    released: int = 0
    closed: tuple[str, ...] = ()


def is_time(connection: Redis) -> bool:
    """Whether it is time for maintenance, and this worker is the one to do it."""
    return once_every(connection, "maintenance", 0.9 * settings.lease() / 4)


def maintain(connection: Redis, names: Sequence[str], *, all_tasks: bool = False) -> Maintained:
    """Do the tasks whose interval has passed.

    Args:
        names: Names of all queues.
        all_tasks: Whether to do every task, however lately it was done.
    """
    found = Maintained()
    for task, seconds in TASKS:
        if all_tasks or not seconds or once_every(connection, task.__name__, seconds):
            task(connection, names, found)
    return found


def rescue(connection: Redis, names: Sequence[str], *, apart: float = 0.0) -> tuple[tuple[str, ...], int]:
    """Queue the jobs whose lease has expired and the retries that are due: one cheap call, so each worker makes it.

    Args:
        names: Names of all queues.
        apart: Seconds that must have passed since any worker did it.

    Returns:
        Ids of the jobs that were lost, and how many retries were due.
    """
    packed = (utcformat(now()), settings.MAX_LOSSES, PACKED, "\n".join(names), settings.lease(), apart)
    lost, due = scripts.rescue_expired(connection, *packed)
    return tuple(entry.rpartition(":")[0] for entry in malformed.ids(lost)), due


def request_cleanup(connection: Redis) -> None:
    """Have a worker clean up staging and targets, once an hour: see `jobs.process.cleanup`."""
    if once_every(connection, "cleanup", CLEANUP_EVERY):
        FairQueue(UPKEEP, connection=connection).enqueue_call(
            "jobs.stages.cleanup",
            timeout=CLEANUP_EVERY,
            result_ttl=CLEANUP_EVERY,
            failure_ttl=24 * CLEANUP_EVERY,
            description="cleanup",
        )


def check_types(connection: Redis, names: Sequence[str], found: Maintained) -> None:
    """Set aside a key of another type among those that everybody asks, and what else would end rq-scheduler."""
    malformed.set_aside(connection, malformed.FIXED, only_types=True)
    malformed.set_aside(connection, [keys.ENTRIES])


def rescue_all(connection: Redis, names: Sequence[str], found: Maintained) -> None:
    """Rescue lost jobs and due retries."""
    found.lost, found.due = rescue(connection, names)


def promote(connection: Redis, names: Sequence[str], found: Maintained) -> None:
    """Queue jobs of active runs whose parents are over, and start held runs whose wait is over."""
    for run in runs.active(connection):
        found.released += _promote_run(connection, run)[0]
    found.released += held.promote(connection)


def find_lost(connection: Redis, names: Sequence[str], found: Maintained) -> None:
    """Queue jobs of active runs that are in no list, and close the runs that have no job left to run."""
    for run in runs.active(connection):
        count, left = _promote_run(connection, run, lost=True)
        found.released += count
        if not left and _close(connection, run):
            found.closed += (run,)


def promote_held(connection: Redis, names: Sequence[str], found: Maintained) -> None:
    """Start held runs whose wait is over, where Redis has lost who waits for whom."""
    found.released += held.promote_all(connection)


def trim(connection: Redis, names: Sequence[str], found: Maintained) -> None:
    """Remove jobs that Redis has deleted, and workers that have died, from RQ's lists."""
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


# What is done, and how many seconds must have passed since any worker did it; 0: whenever there is maintenance.
Task = Callable[[Redis, Sequence[str], Maintained], None]
TASKS: tuple[tuple[Task, float], ...] = (
    (check_types, 0),
    (rescue_all, 0),
    (promote, 0),
    (find_lost, settings.LOST_JOBS_EVERY),
    (promote_held, HELD_EVERY),
    (trim, settings.LOST_JOBS_EVERY),
)


def _promote_run(connection: Redis, run: str, *, lost: bool = False) -> tuple[int, int]:
    """Return how many jobs of a run were queued, and how many have not ended."""
    promoted, left = scripts.promote(connection, utcformat(now()), int(lost), keys.jobs_key(run))
    return promoted, left


def _close(connection: Redis, run: str) -> bool:
    """End a run whose jobs have all ended without doing so: its finish was lost, stopped or out of time."""
    ids = sorted(malformed.ids(connection.smembers(keys.jobs_key(run))))
    record = runs.read(connection, run) or {}
    why, exit, kind = "its jobs are gone from Redis", 1, None
    if record.get("error"):  # its submitter has died before it could end the run
        why, exit, kind = record["error"], int(record.get("exit") or 1), record.get("kind")
    for id in ids:
        if "-finish-" in id and EtlJob.exists(id, connection):
            why = f"finish: {EtlJob(id, connection=connection).failure or 'did not run'}"
    if runs.close(connection, run, "failed", error=why, exit=exit, kind=kind, client=record.get("client")):
        return True
    if not record:
        connection.srem(keys.ACTIVE, run)
    return False

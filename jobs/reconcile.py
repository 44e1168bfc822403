"""The pass: what every worker does every few seconds so that no job is ever left behind.

*Reap*: a job whose lease has expired goes back to the front of its queue. *Release*: a retry that is due,
and a job of an active run whose parents are all over, is queued. One worker at a time does it for all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis import Redis
from rq.utils import now, utcformat

from jobs import lua, runs, settings
from jobs.settle import PACKED


@dataclass(frozen=True)
class Mended:
    """What a pass has found.

    Args:
        lost: Ids of jobs whose lease had expired.
        due: How many retries were due.
        released: How many jobs of active runs were queued that nothing else had queued.
    """

    lost: tuple[str, ...] = ()
    due: int = 0
    released: int = 0


def reconcile(connection: Redis, names: Sequence[str]) -> Mended:
    """Reap and release.

    Args:
        names: Names of all queues.
    """
    at = utcformat(now())
    lost, due = lua.reap(connection, at, settings.MAX_LOSSES, PACKED, "\n".join(names))
    sweep = bool(connection.set("etl:sweep", 1, nx=True, px=int(settings.SWEEP * 1000)))
    released = sum(
        _release(connection, run.decode(), at, sweep) for run in cast(set[bytes], connection.smembers(runs.ACTIVE))
    )
    if sweep:
        _trim(connection, names)
    return Mended(tuple(entry.decode().rpartition(":")[0] for entry in lost), due, released)


def take_turn(connection: Redis, worker: str) -> bool:
    """Whether this worker is the one to do the next pass."""
    return bool(connection.set("etl:pass", worker, nx=True, px=int(settings.lease() / 4 * 900)))


def _release(connection: Redis, run: str, at: str, sweep: bool) -> int:
    ids = list(cast(set[bytes], connection.smembers(runs.jobs_key(run))))
    return sum(
        lua.release(connection, at, int(sweep), *ids[start : start + 1000]) for start in range(0, len(ids), 1000)
    )


def _trim(connection: Redis, names: Sequence[str]) -> None:
    """Forget finished and failed jobs whose time to live is over; Redis has deleted them already."""
    until = now().timestamp()
    pipe = connection.pipeline(transaction=False)
    for name in names:
        pipe.zremrangebyscore(f"rq:finished:{name}", 0, until)
        pipe.zremrangebyscore(f"rq:failed:{name}", 0, until)
    pipe.execute()

"""One queue per client, served in turn: FairQueue, and *take*, the only way a job leaves a queue."""

import time
from collections.abc import Iterable
from typing import Any, cast
from uuid import uuid4

from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat

from jobs import lua, settings
from jobs.job import EtlJob

PREFIX = "etl-"  # of every client's queue


class FairQueue(Queue):
    """An RQ queue of EtlJobs; clients' queues are served in turn, each no further than its `max_active`."""

    job_class = EtlJob

    def __init__(self, name: str = "default", connection: Redis | None = None, **options: Any) -> None:
        options |= {"serializer": JSONSerializer, "job_class": EtlJob}
        super().__init__(name, connection=connection, **options)

    @classmethod
    def dequeue_any(  # type: ignore[override]  # the lease needs the worker's name
        cls,
        queues: Iterable[Queue],
        timeout: int | None = None,
        connection: Redis | None = None,
        *,
        worker: str = "",
        **_: Any,
    ) -> tuple[EtlJob, "FairQueue"] | None:
        """Take the next job of the queues whose turn it is, with its lease; returns None at once where there is none.

        Args:
            queues: Queues to look at.
            timeout: Ignored; *take* never blocks.
            worker: Name of the worker that takes it.
        """
        assert connection is not None
        return take(connection, [queue.name for queue in queues], worker)


def take(connection: Redis, names: Iterable[str], worker: str = "") -> tuple[EtlJob, FairQueue] | None:
    """Take the next job of the queues whose turn it is; the job's `execution` is its lease.

    Args:
        names: Names of queues, in an order that all workers share.
        worker: Name of the worker that takes it, where it is registered.

    Returns:
        The job and its queue, or None where no queue has one to give, or workers are suspended.
    """
    execution = uuid4().hex
    at = now()
    found = lua.take(connection, settings.lease(), execution, worker, utcformat(at), at.timestamp(), "\n".join(names))
    if not found:
        return None
    name, id, pairs = found[0].decode(), found[1].decode(), found[2]
    job = EtlJob(id, connection=connection)
    job.execution = Execution(execution, id, connection, worker_name=worker)
    job.read(dict(zip(pairs[::2], pairs[1::2], strict=True)))
    job.origin = name
    return job, FairQueue(name, connection=connection)


class Line:
    """The queues that a worker serves: all clients', and those it was told.

    Args:
        names: Names of queues on the command line.
    """

    def __init__(self, connection: Redis, names: Iterable[str] = ()) -> None:
        self.connection = connection
        self.told = frozenset(names)
        self.names: list[str] = sorted(self.told)
        self._known = -1

    def refresh(self) -> bool:
        """Look for new clients' queues; returns whether there was a change."""
        keys = cast(set[bytes], self.connection.smembers(Queue.redis_queues_keys))
        self._known = len(keys)
        found = {key.decode().removeprefix(Queue.redis_queue_namespace_prefix) for key in keys}
        names = sorted(self.told | {name for name in found if name.startswith(PREFIX)})
        changed = names != self.names
        self.names = names
        return changed

    def stirs(self) -> bool:
        """Whether any queue holds a job, or there is a queue that `refresh` has not seen: one cheap question."""
        prefix = Queue.redis_queue_namespace_prefix
        pipe = self.connection.pipeline(transaction=False)
        pipe.scard(Queue.redis_queues_keys)
        for start in range(0, len(self.names), 1000):
            pipe.exists(*[prefix + name for name in self.names[start : start + 1000]])
        known, *filled = pipe.execute()
        return any(filled) or (known != self._known and self.refresh())

    def due(self) -> float | None:
        """Return in how many seconds the next retry is due, or None where none waits."""
        pipe = self.connection.pipeline(transaction=False)
        for name in self.names:
            pipe.zrange(f"rq:scheduled:{name}", 0, 0, withscores=True)
        scores = [found[0][1] for found in pipe.execute() if found]
        return max(0.0, min(scores) - time.time()) if scores else None


__all__ = ["PREFIX", "FairQueue", "Job", "Line", "take"]

"""One queue per client, served in turn: FairQueue, and `dequeue`, the only way a job leaves a queue."""

from collections.abc import Iterable
from typing import Any
from uuid import uuid4

from redis import Redis
from rq import Queue
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now, utcformat
from typing_extensions import override

from jobs import settings
from jobs.job import EtlJob
from jobs.store import malformed, scripts
from jobs.store.keys import PREFIX, READY


class FairQueue(Queue):
    """An RQ queue of EtlJobs; clients' queues are served in turn, each no further than its `max_active`."""

    job_class = EtlJob

    def __init__(self, name: str = "default", connection: Redis | None = None, **options: Any) -> None:
        options |= {"serializer": JSONSerializer, "job_class": EtlJob}
        super().__init__(name, connection=connection, **options)

    @override
    def _enqueue_async_job(self, job: Job, pipeline: Any = None, at_front: bool = False, unique: bool = False) -> Job:
        """Put a job into the queue, as all ways of enqueueing end, and the queue into the ring of turns."""
        super()._enqueue_async_job(job, pipeline, at_front, unique)
        if self.name.startswith(PREFIX):
            (self.connection if pipeline is None else pipeline).zadd(READY, {self.name: 0})
        return job

    @classmethod
    @override
    def dequeue_any(
        cls, queues: Iterable[Queue], timeout: int | None, connection: Redis, *_: Any, **__: Any
    ) -> tuple[EtlJob, "FairQueue"] | None:
        """Dequeue from these queues and no others, for RQ's own workers; returns None at once where there is no job."""
        return dequeue(connection, [queue.name for queue in queues], clients=False)


def dequeue(
    connection: Redis, names: Iterable[str] = (), worker: str = "", *, clients: bool = True
) -> tuple[EtlJob, FairQueue] | None:
    """Lend a worker the next job of the queues whose turn it is; the job's `execution` is its lease.

    Args:
        names: Names of queues that are served besides the clients'.
        worker: Name of the worker, where it is registered.
        clients: Whether all clients' queues are served.

    Returns:
        The job and its queue, or None where no queue has one to give, or workers are suspended.
    """
    execution = uuid4().hex
    at = now()
    arguments = (execution, worker, utcformat(at), at.timestamp(), int(clients), "\n".join(names))
    found = scripts.dequeue(connection, settings.lease(), *arguments)
    if not found:
        return None
    name, id, pairs = found[0].decode(), found[1].decode(errors="backslashreplace"), found[2]
    job = EtlJob(id, connection=connection)
    job.execution = Execution(execution, id, connection, worker_name=worker)
    job.read(dict(zip(pairs[::2], pairs[1::2], strict=True)))
    job.origin = name
    return job, FairQueue(name, connection=connection)


class ServedQueues:
    """The queues that a worker serves: all clients', and those that its command line names.

    Args:
        named: The latter's names.
    """

    def __init__(self, connection: Redis, named: Iterable[str] = ()) -> None:
        self.connection = connection
        self.named = frozenset(named)
        self.names: list[str] = sorted(self.named)

    def refresh(self) -> None:
        """Look for new clients' queues."""
        keys = malformed.ids(self.connection.smembers(Queue.redis_queues_keys))
        found = {key.removeprefix(Queue.redis_queue_namespace_prefix) for key in keys}
        self.names = sorted(self.named | {name for name in found if name.startswith(PREFIX)})

    def dequeue(self, worker: str = "") -> tuple[EtlJob, FairQueue] | None:
        """Lend a worker the next job; see `dequeue`."""
        return dequeue(self.connection, self.named, worker)

    def has_jobs(self) -> bool:
        """Whether any queue holds a job: one cheap question."""
        named = [Queue.redis_queue_namespace_prefix + name for name in self.named]
        return bool(self.connection.exists(READY, *named))

    def due(self) -> float | None:
        """Return in how many seconds the next retry is due, or None where none waits."""
        pipe = self.connection.pipeline(transaction=False)
        for name in self.names:
            pipe.zrange(f"rq:scheduled:{name}", 0, 0, withscores=True)
        scores = [found[0][1] for found in pipe.execute() if found]
        return max(0.0, min(scores) - scripts.clock(self.connection)) if scores else None

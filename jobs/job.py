"""The jobs that our workers run: JSON only, and only functions that the company has allowed."""

import importlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution
from rq.job import Job, JobStatus, _job_stack
from rq.results import Result
from rq.serializers import JSONSerializer
from typing_extensions import override

from etl.errors import EtlError
from jobs import settings
from jobs.store.redis_errors import translated

OURS = frozenset(
    f"jobs.stages.{name}" for name in ("extract", "transform", "load", "finish", "start", "start_due", "cleanup")
)
MOST_SECONDS = 10**9


class JobRefused(EtlError):
    """A job asks for something that workers don't do for whoever can write to Redis."""


class JobFailed(EtlError):
    """A job has failed."""


class Snooze(Exception):
    """A job can't go on before some time has passed; it is queued again then, and no retry is used up.

    Args:
        seconds: How long that is.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class _Id(str):
    """A job id that rq-dashboard can `decode`."""

    __slots__ = ()

    def decode(self, *_: str) -> str:
        return str(self)


class EtlJob(Job):
    """An RQ job whose data is JSON and whose function is one of our stages or in an allowed module."""

    execution: Execution | None = None  # the lease under which this process works on it
    raw: Mapping[bytes, bytes]  # the hash it was read from

    def __init__(self, id: str | None = None, connection: Redis | None = None, serializer: object = None) -> None:
        super().__init__(id, connection=connection, serializer=JSONSerializer)

    @property
    @override
    def success_callback(self) -> None:
        """None: what is in Redis is never imported as a callback, whoever asks for it."""

    failure_callback = stopped_callback = success_callback

    def read(self, raw: Mapping[bytes, bytes]) -> None:
        """Read the job from its hash; what can't be read fails when it is performed, not here."""
        self.raw = raw
        try:
            self.restore(raw)
        except Exception:
            self.data = b"unreadable"
        if not _is_usable(self.meta):
            self.meta = {}  # or saving the job would fail, and with it the worker

    @classmethod
    @override
    def fetch(cls, id: str, connection: Redis | None = None, serializer: object = None, **_: object) -> "EtlJob":
        """Return a job; one that can't be read stops no one who reads others, such as rq-scheduler.

        Raises:
            NoSuchJobError: There is no such job, or not even its dates can be read.
        """
        try:
            job = cast(EtlJob, super().fetch(id, connection=connection))
        except (NoSuchJobError, RedisError):
            raise
        except Exception as error:  # RQ reads each field in its own way
            raise NoSuchJobError(f"job {id} can't be read") from error
        return job._repaired()

    @classmethod
    @override
    def fetch_many(cls, job_ids: Iterable[str], connection: Redis, serializer: object = None) -> list["EtlJob | None"]:  # type: ignore[override]
        """Return jobs; None for one that is not there or can't be read."""
        ids, pipe = list(job_ids), connection.pipeline(transaction=False)
        for id in ids:
            pipe.hgetall(cls.key_for(id))
        found: list[EtlJob | None] = []
        for id, raw in zip(ids, pipe.execute(), strict=True):
            job = cls(id, connection=connection)
            try:
                job.restore(raw)
                found.append(job._repaired())
            except Exception:
                found.append(None)
        return found

    def _repaired(self) -> "EtlJob":
        """Return the job as others can do with: its function's name can be asked for, its meta be acted on and saved.

        Raises:
            NoSuchJobError: What it waits for can't be read.
        """
        if not (isinstance(self._dependency_ids, list) and all(isinstance(id, str) for id in self._dependency_ids)):
            raise NoSuchJobError(f"job {self.id} can't be read")
        try:
            self.func_name  # noqa: B018 - it is read when it is asked for
        except DeserializationError:
            self._func_name = "unreadable"  # which a worker refuses
        if not _is_usable(self.meta):
            self.meta = {}
        return self

    @property
    def is_ours(self) -> bool:
        """Whether it calls one of our stages, not a function of the company's own."""
        try:
            return str(self.func_name) in OURS
        except DeserializationError:
            return False

    @property
    @override
    def func(self) -> Callable[..., Any]:
        """The function to call.

        Raises:
            JobRefused: It may not be called.
        """
        return allowed(str(self.func_name))

    @property
    @override
    def dependency_ids(self) -> list[str]:
        """Ids of the jobs this one waits for."""
        return [_Id(id) for id in super().dependency_ids]

    @override
    def latest_result(self, timeout: int = 0) -> Result | None:
        """Return how the latest execution ended; None where there was none or what stands there can't be read."""
        try:
            return super().latest_result(timeout)
        except RedisError:
            raise
        except Exception:  # RQ reads each field in its own way
            return None

    @property
    def failure(self) -> str:
        """What the latest execution said of its failure, "" where it has said nothing or the job is gone."""
        result = self.latest_result()
        return (result.exc_string if result else None) or ""

    @override
    def return_value(self, refresh: bool = False) -> Any:
        """Return what the latest execution returned, or None; a stage's counts stand in the job's hash.

        Raises:
            RedisAway: Redis can't be reached.
        """
        with translated():
            value = super().return_value(refresh)
            raw = self.connection.hget(self.key, "result") if value is None else None
        return self.serializer.loads(raw) if isinstance(raw, bytes) else value

    @override
    def perform(self) -> Any:
        """Call the job's function and return its value.

        Raises:
            JobRefused: The job isn't one that workers here run.
        """
        self.check()
        _job_stack.push(self)  # type: ignore[no-untyped-call]
        try:
            return self._execute()
        finally:
            _job_stack.pop()  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Refuse a job with an instance, callbacks or webhooks."""
        extras = {
            "an instance": self.instance,
            "callbacks": self._success_callback_name or self._failure_callback_name or self._stopped_callback_name,
            "webhooks": self.webhooks,
        }
        for what, there in extras.items():
            if there:
                raise JobRefused(f"job {self.id} has {what}", "enqueue a plain function")

    def wait(self, timeout: float | None = None) -> Any:
        """Wait until the job has ended and return its value.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.

        Raises:
            JobFailed: It failed, was stopped or canceled, or is gone.
            TimeoutError: It has not ended by then.
            RedisAway: Redis can't be reached.
        """
        with translated():
            return self._wait(timeout)

    def _wait(self, timeout: float | None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            raw = self.connection.hget(self.key, "status")
            status = raw.decode() if isinstance(raw, bytes) else raw
            if status == JobStatus.FINISHED:
                return self.return_value(refresh=True)
            if status in (None, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED):
                why = (self.failure if status else "") or status or "gone from Redis"
                raise JobFailed(f"job {self.id}: {why}")
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {self.id} is {status} after {timeout} s")
            time.sleep(0.02)


def _is_usable(meta: object) -> bool:
    """Whether rq-scheduler, which acts on a job's meta, can; it would import what `queue_class_name` says."""
    if not isinstance(meta, dict) or {"unserialized", "queue_class_name"} & meta.keys():
        return False
    numbers, line = (meta.get("interval"), meta.get("repeat")), meta.get("cron_string")
    if not all(number is None or (isinstance(number, int) and 0 <= number < MOST_SECONDS) for number in numbers):
        return False
    if line is None:
        return True
    from croniter import croniter

    return isinstance(line, str) and bool(croniter.is_valid(line))


def allowed(name: str) -> Callable[..., Any]:
    """Return the function of a dotted name, if it may be called.

    Args:
        name: `module.function`, as a job has it.

    Raises:
        JobRefused: It is neither a stage nor in one of the modules of etl.toml, or there is no such function.
    """
    module, _, attribute = name.rpartition(".")
    if name not in OURS:
        modules = settings.modules()
        if not _within(module, modules):
            if module.startswith("jobs."):  # as every module of ours that a job has ever named
                what = f"{name} is a function of an older rq-etl"
                raise JobRefused(what, "let runs end before upgrading, then rq-etl schedule sync: docs/upgrading.md")
            raise JobRefused(f"{name} may not be called", _cure(module))
        folder = settings.module_folder()
        if folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        function = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        raise JobRefused(f"{name} can't be called: there is no module {error.name}", _where()) from error
    if not callable(function):
        raise JobRefused(f"{name} can't be called: module {module} has no function {attribute}", _where())
    if name not in OURS and not _within(str(getattr(function, "__module__", "")), modules):
        raise JobRefused(f"{name} may not be called: it comes from {function.__module__}", _cure(function.__module__))
    return function  # type: ignore[no-any-return]


def _within(module: str, modules: frozenset[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in modules for length in range(1, len(parts) + 1))


def _cure(module: str) -> str:
    return f'add "{module}" to modules under [settings] in etl.toml (or to ETL_MODULES where there is none)'


def _where() -> str:
    return f"modules are imported from {settings.module_folder()}"

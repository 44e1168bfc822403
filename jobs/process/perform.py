"""Running jobs' functions in this process: one, or, in a horse, one after another as they come."""

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from rq.defaults import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD

from etl.errors import EtlError
from etl.safe_message import safe_message
from jobs import settings
from jobs.job import EtlJob, Snooze
from jobs.process.complete import Outcome
from jobs.store.redis_errors import AWAY

PRELOADED = ("jobs.stages", "etl.sources.formats.csv", "fsspec.implementations.local")


def perform(job: EtlJob) -> Outcome:
    """Run the job's function in this process; whatever it raises becomes an outcome without its words."""
    try:
        value = job.perform()
    except KeyboardInterrupt:
        raise
    except Snooze as snooze:
        return Outcome("snoozed", delay=snooze.seconds)
    except BaseException as exc:
        keep_traceback(job, exc)
        curable = exc.retryable if isinstance(exc, EtlError) else True
        return Outcome("failed", error=safe_message(exc, _modules()), curable=curable)
    try:
        return Outcome("done", value=json.dumps(value))
    except (TypeError, ValueError):
        return Outcome("done", value=json.dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD))


def keep_traceback(job: EtlJob, exc: BaseException) -> None:
    """Hand the whole text of what a stage raised to whoever keeps it privately."""
    with contextlib.suppress(Exception):
        if str(job.func_name).startswith("jobs.stages."):
            text = "".join(traceback.format_exception(exc))
            importlib.import_module("jobs.run.stage").keep_traceback(job, text)


def _modules() -> frozenset[str]:
    try:
        return settings.modules()
    except EtlError:
        return frozenset()


def serve(pipe: Connection, connection: Redis) -> None:
    """Run jobs as they come until the worker closes the pipe or kills this process; the horse's whole life.

    Each message is a job's id and hash, each answer an outcome and, where modules were imported, the user's files among
    them; the first answer, before any job, says that the horse is ready.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    connection.connection_pool.reset()
    # A job waits for Redis as its worker does; where that takes too long, its timeout or its lease ends it.
    connection.set_retry(Retry(ConstantBackoff(0.5), 240, AWAY))
    try:
        if settings.path().is_file():
            with contextlib.suppress(Exception):
                for module in PRELOADED:
                    importlib.import_module(module)
        pipe.send_bytes(json.dumps([None, None]).encode())
        imported = 0
        while True:
            id, fields = json.loads(pipe.recv_bytes())
            random.seed()
            job = EtlJob(id, connection=connection)
            job.read({key.encode(): value.encode("latin-1") for key, value in fields.items()})
            answer = {**asdict(perform(job)), "memory": _memory()}
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sources = _sources() if len(sys.modules) != imported else None
            imported = len(sys.modules)
            pipe.send_bytes(json.dumps([answer, sources]).encode())
    except EOFError:
        os._exit(0)
    except BaseException:
        os._exit(1)


def _sources() -> dict[str, int]:
    """Return the files in etl.toml's folder that this process has imported, and when they were changed."""
    folder = settings.module_folder() + os.sep
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return {file: settings.changed(file) for file in files if file.startswith(folder) and "site-packages" not in file}


def _memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

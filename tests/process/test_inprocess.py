"""The worker within this process: the same steps, and it never sleeps longer than it must."""

import cProfile
import csv
import decimal
import gc
import locale
import logging
import os
import random
import signal
import socket
import sqlite3
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import fakeredis
import numpy as np
import pandas as pd
import pytest
from redis import Redis
from rq.job import Job, Retry

from etl.errors import TRIED_AGAIN
from etl.load.targets import kind_named
from etl.load.targets.driver_errors import translated
from jobs import settings
from jobs.job import EtlJob
from jobs.process.inprocess import InProcessWorker
from jobs.process.surroundings import restored
from jobs.queue import FairQueue
from jobs.store.runs import find
from tests.helpers.careless import spoil

BUSY = f"the warehouse: database is locked by another program\n  {TRIED_AGAIN}"
calls: list[str] = []


def add(a: int, b: int) -> int:
    return a + b


def fail_until(times: int) -> int:
    calls.append("fail_until")
    if len(calls) < times:
        raise ValueError("could not convert 'Jane Roe'")
    return len(calls)


def loop_for_ever() -> None:
    while True:
        pass


def busy() -> None:
    """Have our own code raise what another try may cure."""
    error = sqlite3.OperationalError()
    error.sqlite_errorname = "SQLITE_BUSY"
    with translated(kind_named("sqlite"), "the warehouse"):
        raise error


def missing() -> None:
    """Have our own code raise what no other try cures."""
    find(fakeredis.FakeRedis(), "nothing")


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _only_this_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ETL_CONFIG", raising=False)
    monkeypatch.setenv("ETL_MODULES", "test_inprocess")
    settings.use(None)
    calls.clear()


@pytest.fixture
def queue(connection: Redis) -> FairQueue:
    return FairQueue("etl-acme", connection=connection)


def why(job: Job) -> str | None:
    """Return why a job's last try failed."""
    result = job.latest_result()
    return result.exc_string if result else EtlJob.fetch(job.id, connection=job.connection)._exc_info


def test_it_works_until_nothing_is_left(queue: FairQueue) -> None:
    first = queue.enqueue(add, 2, 3)
    second = queue.enqueue(add, 3, 4, depends_on=first)
    worker = InProcessWorker(queue.connection)
    assert worker.work()
    assert (first.return_value(), second.return_value()) == (5, 7)
    assert not worker.work()


def test_it_stops_where_it_should(queue: FairQueue) -> None:
    jobs = [queue.enqueue(add, 2, i) for i in range(5)]
    InProcessWorker(queue.connection).work(until=lambda: jobs[1].is_finished)
    assert [job.get_status() for job in jobs] == ["finished", "finished", "queued", "queued", "queued"]


def test_retries_are_waited_for(queue: FairQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        for id in queue.scheduled_job_registry.get_job_ids():
            queue.connection.zadd("rq:scheduled:etl-acme", {id: time.time() - 1})

    monkeypatch.setattr("jobs.process.inprocess.time.sleep", sleep)
    job = queue.enqueue(fail_until, 3, retry=Retry(max=2, interval=[5, 30]))
    InProcessWorker(queue.connection).work()
    assert job.return_value() == 3
    assert [round(seconds) for seconds in slept] == [5, 30]


def test_a_failure_is_reported_without_its_words(queue: FairQueue) -> None:
    job = queue.enqueue(fail_until, 9)
    InProcessWorker(queue.connection).work()
    assert str(why(job)).startswith("ValueError at test_inprocess:fail_until:")


def test_our_own_errors_are_reported_whole_and_only_some_are_tried_again(queue: FairQueue) -> None:
    curable, incurable = (queue.enqueue(body, retry=Retry(max=1, interval=60)) for body in (busy, missing))
    worker = InProcessWorker(queue.connection)
    assert [worker.step(), worker.step()] == [True, True]
    assert (curable.get_status(), why(curable)) == ("scheduled", BUSY)
    assert (incurable.get_status(), why(incurable)) == ("failed", "no run nothing is known\n  see rq-etl runs")


def test_a_job_that_takes_too_long_times_out(queue: FairQueue) -> None:
    job = queue.enqueue(loop_for_ever, job_timeout=1)
    InProcessWorker(queue.connection).work()
    assert why(job) == "timed out after 1 s"


def test_ctrl_c_puts_the_job_back(queue: FairQueue) -> None:
    job = queue.enqueue(interrupt)
    with pytest.raises(KeyboardInterrupt):
        InProcessWorker(queue.connection).step()
    assert (job.get_status(), queue.job_ids) == ("queued", [job.id])


def test_working_for_a_while_ends_early_when_the_work_does(queue: FairQueue) -> None:
    queue.enqueue(add, 2, 3)
    assert InProcessWorker(queue.connection).work_for(3600)


def test_working_for_a_while_without_work_gives_up(queue: FairQueue) -> None:
    assert not InProcessWorker(queue.connection).work_for(0.02)


def spoil_and_fail() -> None:
    spoil()
    raise ValueError("no")


def spoil_and_stop() -> None:
    spoil()
    raise KeyboardInterrupt


def surroundings() -> list[Any]:
    """Return what `spoil` changes."""
    mask = os.umask(0o22)
    os.umask(mask)
    context, default = decimal.getcontext(), decimal.DefaultContext
    signals = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    return [
        context.prec, dict(context.traps), default.prec, dict(default.traps), dict(os.environ), time.tzname,
        os.getcwd(), mask, locale.setlocale(locale.LC_ALL), signals, signal.getitimer(signal.ITIMER_REAL),
        list(warnings.filters), random.getstate(), str(np.random.get_state()), np.geterr(),
        pd.get_option("display.max_rows"), pd.get_option("display.precision"), sys.excepthook,
        threading.excepthook, sys.unraisablehook, list(sys.path), sys.getrecursionlimit(), socket.getdefaulttimeout(),
        logging.getLogger().level, logging.root.manager.disable, signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        warnings.showwarning, warnings.formatwarning, csv.field_size_limit(), sys.getswitchinterval(),
        sys.get_int_max_str_digits(), gc.isenabled(),
    ]  # fmt: skip


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize("body", [spoil, spoil_and_fail, spoil_and_stop])
def test_what_a_function_changes_in_the_process_is_put_back_after_its_job(
    fake_redis: Redis, body: Callable[[], None], inline: bool
) -> None:
    queue = FairQueue("etl-acme", connection=fake_redis)
    before = surroundings()
    queue.enqueue(body)
    worker = InProcessWorker(fake_redis, inline=inline)
    with pytest.raises(KeyboardInterrupt) if body is spoil_and_stop else nullcontext():
        worker.step()
    assert surroundings() == before


def test_a_profiler_that_looks_on_sees_what_comes_after_a_job_too() -> None:
    profiler = cProfile.Profile()
    with profiler:
        with restored():
            pass
        decimal.Decimal("1.5").normalize()
    called = [entry.code for entry in profiler.getstats()]
    assert any("normalize" in str(code) for code in called)


def test_each_job_has_its_own_random_numbers(fake_redis: Redis) -> None:
    queue = FairQueue("etl-acme", connection=fake_redis)
    jobs = [queue.enqueue(draw) for _ in range(2)]
    InProcessWorker(fake_redis).work()
    assert jobs[0].return_value() != jobs[1].return_value()


def draw() -> float:
    return random.random()

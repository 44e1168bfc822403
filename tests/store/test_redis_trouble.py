"""Redis away, flushed, full: what is loaded stays loaded, once, and what waits goes on by itself or says what to do."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from etl.errors import BrokerUnreachable
from jobs import session, settings
from jobs.api import Run
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.store import runs
from jobs.store.redis_errors import CannotWriteError
from tests.helpers.processes import kill_session, until
from tests.helpers.worker_project import LEASE, WorkerProject, shop, start
from tests.helpers.worker_tasks import serve
from tests.helpers.workers import StartWorkers

pytestmark = pytest.mark.slow

__all__ = ["shop", "start"]


class Own:
    """A Redis that may be stopped and started, a shop on it, and workers."""

    def __init__(self, home: Path, shop: WorkerProject) -> None:
        self.home, self.shop = home, shop
        self.server = serve(home, "everysec")
        shop.url = f"unix://{home}/r.sock"
        shop.connection = Redis.from_url(shop.url)
        self.workers = StartWorkers(shop.url, shop.root)

    def stop(self) -> None:
        self.server.terminate()
        self.server.wait()

    def back(self) -> None:
        self.server = serve(self.home, "everysec")

    def fill_disk(self) -> None:
        """Let no file of Redis grow any more, as on a full disk."""
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
        until(self.refuses_data)

    def make_room(self) -> None:
        resource.prlimit(self.server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def refuses_data(self) -> bool:
        try:
            self.shop.connection.set("probe", 1, px=1)
        except CannotWriteError:
            return True
        return False


@pytest.fixture
def own(shop: WorkerProject, server_folder: Path) -> Iterator[Own]:
    home = server_folder / f"own-{os.urandom(3).hex()}"
    home.mkdir()
    made = Own(home, shop)
    yield made
    for process in (*made.workers.processes, made.server):
        kill_session(process)


def work_some(shop: WorkerProject, steps: int) -> None:
    worker = InProcessWorker(shop.connection, inline=True)
    for _ in range(steps):
        worker.step()


# --- away ---


def test_a_run_and_who_waits_for_it_go_on_when_redis_is_back(own: Own) -> None:
    shop = own.shop
    for name in ("a", "b", "c"):
        shop.file(name, *(["hold"] if name == "b" else []))
    own.workers(2, env={"ETL_LEASE": LEASE})
    command = shop.cli("run", "visits", "--client", "acme", "--wait", "--json")
    until(lambda: shop.notes("hold"))
    own.stop()
    (shop.root / "go").touch()
    assert command.stderr is not None
    assert "Redis is away; waiting up to 60 s" in command.stderr.readline()
    own.back()
    out, err = command.communicate(timeout=60)
    assert (command.returncode, "Redis is back" in err) == (0, True)
    assert '"loaded": 9' in out
    assert shop.ids() == [f"{name}{i}" for name in "abc" for i in range(3)]
    assert [process.poll() for process in own.workers.processes] == [None, None]


def test_a_stage_waits_for_redis_and_uses_up_no_try(own: Own) -> None:
    """Retries are none here: a stage that failed for want of Redis would fail its run."""
    shop = own.shop
    for i in range(8):
        shop.file(f"f{i}")
    own.workers(2, env={"ETL_LEASE": LEASE})
    run = shop.submit()
    until(lambda: shop.run(run)["partitions"]["done"] >= 1)
    for _ in range(2):
        own.stop()
        own.back()
    found = shop.ended(run)
    assert (found["state"], found["rows"]["loaded"], found["attempt"]) == ("succeeded", 24, 1)
    assert len(shop.ids()) == 24


def test_waiting_for_redis_ends_after_a_minute(shop: WorkerProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PATIENCE", 0.3)

    def away() -> Any:
        raise ConnectionError

    opened = session.Session(shop.root / "etl.toml", shop.connection, workers=0)
    with pytest.raises(BrokerUnreachable, match="has been away"):
        opened.patiently(away)
    opened.close()


def test_waiting_in_python_survives_redis_being_away(shop: WorkerProject, capsys: pytest.CaptureFixture[str]) -> None:
    shop.file("a")
    opened = session.Session(shop.root / "etl.toml", shop.connection, workers=0)
    run = shop.submit()
    work_some(shop, 10)
    trouble = [ConnectionError(), ConnectionError()]
    active = opened.active

    def sometimes() -> frozenset[str]:
        if trouble:
            raise trouble.pop()
        return active()

    opened.active = sometimes  # type: ignore[method-assign]
    assert Run(opened, run).wait(5).state == "succeeded"
    assert "Redis is away" in capsys.readouterr().err


# --- a submission that is cut off ---


def test_a_submission_whose_answer_was_lost_is_not_taken_for_a_failed_one(
    shop: WorkerProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is done, the connection is cut before Redis can say so."""
    from redis.client import Pipeline
    from redis.exceptions import WatchError

    shop.file("a")
    execute, cuts = Pipeline.execute, [1]

    def cut(self: Any, *arguments: Any, **options: Any) -> Any:
        watching = self.watching
        answer = execute(self, *arguments, **options)
        if watching and cuts:
            cuts.pop()
            raise WatchError("A ConnectionError occurred while watching one or more keys")
        return answer

    monkeypatch.setattr(Pipeline, "execute", cut)
    run = shop.submit()
    work_some(shop, 10)
    assert shop.run(run)["state"] == "succeeded"
    assert shop.ids() == ["a0", "a1", "a2"]


# --- flushed ---


def test_a_flush_in_the_middle_loses_and_doubles_nothing(shop: WorkerProject) -> None:
    for i in range(6):
        shop.file(f"f{i}")
    shop.submit()
    work_some(shop, 11)
    assert 0 < len(shop.ids()) < 18
    shop.connection.flushall()
    again = shop.submit()
    work_some(shop, 40)
    found = shop.run(again)
    assert (found["state"], len(shop.ids()), len(set(shop.ids()))) == ("succeeded", 18, 18)
    assert found["rows"]["unchanged"] + found["rows"]["loaded"] == 18
    assert found["rows"]["unchanged"] > 0


def test_who_waits_for_a_run_that_was_flushed_is_reported(own: Own) -> None:
    shop = own.shop
    shop.file("a", "hold")
    own.workers(1, env={"ETL_LEASE": LEASE})
    command = shop.cli("run", "visits", "--client", "acme", "--wait")
    until(lambda: shop.notes("hold"))
    shop.connection.flushall()
    _, err = command.communicate(timeout=30)
    assert command.returncode == 1
    assert "is not known to Redis any more" in err
    assert "run its pipeline again" in err
    (shop.root / "go").touch()
    assert shop.ended(shop.submit())["state"] == "succeeded"
    assert shop.ids() == ["a0", "a1", "a2"]


# --- full ---


def test_a_full_redis_refuses_a_run_whole_and_takes_it_when_there_is_room(own: Own) -> None:
    shop = own.shop
    shop.file("a")
    shop.connection.config_set("maxmemory", 1)
    before = shop.connection.dbsize()
    command = shop.cli("run", "visits", "--client", "acme")
    _, err = command.communicate(timeout=30)
    assert command.returncode == 3, err
    assert "Redis is out of memory" in err
    assert err.count("\n") == 2
    assert shop.connection.dbsize() == before
    assert not list((shop.root / "staging").rglob("*.json"))
    with pytest.raises(BrokerUnreachable, match="out of memory"):
        shop.submit()
    shop.connection.config_set("maxmemory", 0)
    run = shop.submit()
    work_some(shop, 10)
    assert shop.run(run)["state"] == "succeeded"


def test_workers_wait_while_redis_is_full(own: Own) -> None:
    shop = own.shop
    shop.file("a", "hold")
    processes = own.workers(1, env={"ETL_LEASE": LEASE})
    run = shop.submit()
    until(lambda: shop.notes("hold"))
    shop.connection.config_set("maxmemory", 1)
    (shop.root / "go").touch()
    until(lambda: shop.connection.info("errorstats").get("errorstat_OOM", {}).get("count", 0) > 5)
    shop.connection.config_set("maxmemory", 0)
    assert shop.ended(run)["state"] == "succeeded"
    assert processes[0].poll() is None


def test_workers_and_waiters_go_on_when_the_disk_of_redis_has_room_again(own: Own) -> None:
    shop = own.shop
    shop.file("a", "hold")
    processes = own.workers(1, env={"ETL_LEASE": LEASE})
    command = shop.cli("run", "visits", "--client", "acme", "--wait")
    until(lambda: shop.notes("hold"))
    own.fill_disk()
    (shop.root / "go").touch()
    until(lambda: shop.connection.info("errorstats")["errorstat_MISCONF"]["count"] > 5)
    own.make_room()
    out, err = command.communicate(timeout=60)
    assert command.returncode == 0, out + err
    assert shop.ids() == ["a0", "a1", "a2"]
    assert processes[0].poll() is None


@pytest.mark.parametrize("words", [["run", "visits", "--client", "acme"], ["clients", "pause", "acme"]])
def test_a_command_says_in_two_lines_that_the_disk_of_redis_is_full(own: Own, words: list[str]) -> None:
    own.shop.file("a")
    own.fill_disk()
    command = own.shop.cli(*words)
    _, err = command.communicate(timeout=30)
    assert command.returncode == 3, err
    assert "it can't write to its disk" in err
    assert err.count("\n") == 2
    assert not list((own.shop.root / "staging").rglob("*.json"))
    own.make_room()
    until(lambda: not own.refuses_data())
    run = own.shop.submit()
    work_some(own.shop, 10)
    assert own.shop.run(run)["state"] == "succeeded"


def test_doctor_sees_that_the_disk_of_redis_is_full(own: Own) -> None:
    own.fill_disk()
    command = own.shop.cli("doctor", "--fix")
    out, err = command.communicate(timeout=30)
    assert command.returncode == 3, out + err
    assert out.count("it can't write to its disk") == 2


# --- attempts ---


def test_what_an_older_attempt_left_in_the_queue_does_nothing(shop: WorkerProject) -> None:
    shop.file("a")
    run = shop.submit()
    work_some(shop, 1)
    cancel_run(shop.connection, run)
    retry_run(settings.config(), shop.connection, run)
    queue = FairQueue("etl-acme", connection=shop.connection)
    queue.enqueue("jobs.stages.finish", args=(run,), job_id=f"{run}-0-finish-1", at_front=True)
    work_some(shop, 1)
    assert shop.run(run)["state"] == "running"
    assert not runs.close(shop.connection, run, "failed", attempt=1)
    work_some(shop, 10)
    assert shop.run(run)["state"] == "succeeded"

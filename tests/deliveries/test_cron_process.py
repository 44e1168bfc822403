"""The cron process: it gives a sign of life, and goes on whatever is wrong; several do nothing twice."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from etl.sources.arrivals import present
from jobs import cron, settings
from jobs.cron import process
from jobs.cron.process import Cron
from jobs.deliveries import claims, poll
from jobs.process.supervisor import Supervisor
from jobs.store import live, runs
from tests.helpers.processes import ROOT, kill_session, until
from tests.helpers.redis_server import RedisServer
from tests.helpers.watched_project import WatchedProject, config
from tests.helpers.workers import StartWorkers


@pytest.fixture
def house(tmp_path: Path, fake_redis: Redis) -> WatchedProject:
    return WatchedProject(tmp_path, fake_redis, config({"poll": "1s"}, clients=("acme", "globex")))


def stepped(cron: Cron, done: Callable[[], Any], seconds: float = 10) -> None:
    """Let a cron process go on until something is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it is not so"
        cron.step()
        time.sleep(0.01)


def test_a_tick_does_all_tasks_at_the_moment_it_is_given(house: WatchedProject) -> None:
    house.config(
        config({"poll": "1s", "run": "no"}).replace(
            "[clients.acme]", '[clients.acme]\nschedule = { claims = "0 2 * * *" }'
        )
    )
    house.drop("claims-20261126.csv")
    cron.tick(settings.config(), house.connection, house.at("26 06:00"))
    assert len(house.known().items) == 1
    assert claims.looked(house.connection)["acme", "claims"].at == house.now.timestamp()
    assert house.connection.zscore("rq:scheduler:scheduled_jobs", "schedule-acme-claims") is not None


def test_schedules_that_redis_has_lost_are_there_again_and_no_others_are_removed(house: WatchedProject) -> None:
    house.connection.zadd("rq:scheduler:scheduled_jobs", {"schedule-other-claims": 4e9})
    house.config(config({"run": "no"}).replace("[clients.acme]", '[clients.acme]\nschedule = { claims = "0 2 * * *" }'))
    for _ in range(2):
        cron.sync_schedules(settings.config(), house.connection, datetime.now(UTC))
    assert sorted(house.connection.zrange("rq:scheduler:scheduled_jobs", 0, -1)) == [
        b"schedule-acme-claims", b"schedule-other-claims"
    ]  # fmt: skip


def test_a_cron_process_gives_a_sign_of_life_until_it_ends(house: WatchedProject) -> None:
    assert not live.cron_alive(house.connection)
    running = Cron(house.connection)
    running.step()
    [name] = live.crons(house.connection)
    assert name.endswith(f"-{os.getpid()}")
    assert 0 < house.connection.pttl(f"etl:cron:{name}") <= 5000
    assert live.cron_alive(house.connection)
    running.end()
    assert live.crons(house.connection) == []


def test_a_share_that_hangs_holds_up_no_other(house: WatchedProject, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, goes_on = present, threading.Event()

    def hanging(pipeline: Any, *args: Any) -> Any:
        if pipeline.client == "acme":
            goes_on.wait(30)
        return seen(pipeline, *args)

    monkeypatch.setattr(poll, "present", hanging)
    running = Cron(house.connection)
    stepped(running, lambda: ("globex", "claims") in claims.looked(house.connection))
    first = claims.looked(house.connection)["globex", "claims"].at
    stepped(running, lambda: claims.looked(house.connection)["globex", "claims"].at > first)
    assert ("acme", "claims") not in claims.looked(house.connection)
    goes_on.set()
    stepped(running, lambda: ("acme", "claims") in claims.looked(house.connection))


def test_a_task_that_fails_stops_no_other_and_says_so_once(
    house: WatchedProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    count = []

    def broken(*_: Any) -> None:
        count.append(1)
        raise ValueError("Jane\nRoe")

    monkeypatch.setattr(process, "TASKS", (cron.Task(broken, 0.01), *cron.TASKS))
    with caplog.at_level(logging.INFO, "rq-etl.cron"):
        running = Cron(house.connection)
        stepped(running, lambda: len(count) > 3 and ("acme", "claims") in claims.looked(house.connection))
    said = [record.getMessage() for record in caplog.records if "broken" in record.getMessage()]
    assert len(said) == 1
    assert "\n" not in said[0]
    assert "Jane" not in said[0]


def test_a_mistake_in_etl_toml_is_said_once_and_it_goes_on_as_it_was(
    house: WatchedProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "READ_EVERY", 0.0)
    settings.override(None)
    settings.use(house.root / "etl.toml")
    running = Cron(house.connection)
    stepped(running, lambda: ("acme", "claims") in claims.looked(house.connection))
    with caplog.at_level(logging.INFO, "rq-etl.cron"):
        (house.root / "etl.toml").write_text("[settings\n")
        first = claims.looked(house.connection)["acme", "claims"].at
        stepped(running, lambda: claims.looked(house.connection)["acme", "claims"].at > first)
        house.config(config({"poll": "1s"}, clients=("initech",)))
        settings.override(None)
        stepped(running, lambda: ("initech", "claims") in claims.looked(house.connection))
    said = [record.getMessage() for record in caplog.records if "etl.toml" in record.getMessage()]
    assert len(said) == 2
    assert said[0].startswith("etl.toml can't be used, so it goes on as it was")
    assert said[1] == "etl.toml: well again"


def test_redis_may_go_away_and_come_back_empty(
    house: WatchedProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(process, "SIGN_EVERY", 0.0)
    away, seen = [False], live.sign

    def sign(*args: Any) -> None:
        if away[0]:
            raise ConnectionError("no")
        seen(*args)

    monkeypatch.setattr(live, "sign", sign)
    house.at("26 06:00")
    running = Cron(house.connection)
    with caplog.at_level(logging.INFO, "rq-etl.cron"):
        stepped(running, lambda: ("acme", "claims") in claims.looked(house.connection))
        away[0] = True
        for _ in range(20):
            running.step()
        house.connection.flushall()
        away[0] = False
        stepped(running, lambda: ("acme", "claims") in claims.looked(house.connection))
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith(("Redis", "redis"))]
    assert said == ["Redis is away: Redis went away", "redis: well again"]


def test_what_a_command_keeps_beside_its_workers_is_started_again(redis_server: RedisServer, tmp_path: Path) -> None:
    settings.use(tmp_path / "etl.toml")
    supervisor = Supervisor(redis_server.url)
    log = tmp_path / "log"
    code = f"import os, time; open({str(log)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    supervisor.keep_other([sys.executable, "-c", code])

    def pids() -> list[int]:
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    until(lambda: len(pids()) == 1)
    os.kill(pids()[0], signal.SIGKILL)

    def is_again() -> bool:
        supervisor.replace_dead()
        return len(pids()) == 2

    until(is_again)
    supervisor.end()
    with pytest.raises(ProcessLookupError):
        os.kill(pids()[1], 0)


@pytest.mark.parametrize(
    ("more", "needed"),
    [
        ("", False),
        ('[clients.acme]\nschedule = { claims = "0 2 * * *" }', True),
        ('[pipelines.claims.delivery]\ndue = "06:30"', True),
        ('[alerts]\nto = ["mailto://x"]', True),
        ('[alerts]\nheartbeat = "https://x"', True),
    ],
)
def test_cron_is_needed_for_schedules_deliveries_and_alerts(tmp_path: Path, more: str, needed: bool) -> None:
    from tests.helpers.project import Folder, etl_toml

    toml = etl_toml({"claims": {}}, ["acme"], defaults={"pipelines": ["claims"]})
    toml = toml.replace("[clients.acme]", more) if "[clients" in more else toml + more
    Folder(tmp_path, toml)
    assert cron.is_needed(settings.config()) == needed


# --- real processes ---


@pytest.fixture
def crons(
    redis_server: RedisServer, real_redis: Redis, tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts `rq-etl cron` in the test's folder; each is killed after the test, with what it has started."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        environment = {**os.environ, "REDIS_URL": redis_server.url, "PYTHONPATH": str(ROOT)}
        with (tmp_path / f"cron-{len(started)}.log").open("wb") as log:
            command = [sys.executable, "-P", "-m", "cli", "cron"]
            started.append(
                subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True)
            )
        count = len(live.crons(real_redis)) + 1
        until(lambda: len(live.crons(real_redis)) >= count)
        return started[-1]

    yield start
    for each in started:
        kill_session(each)


@pytest.mark.slow
def test_two_cron_processes_of_which_one_is_killed_start_each_run_once(
    crons: Callable[[], subprocess.Popen[bytes]], workers: StartWorkers, real_redis: Redis, tmp_path: Path
) -> None:
    clients = [f"c{number}" for number in range(8)]
    house = WatchedProject(
        tmp_path, real_redis, config({"poll": "1s"}, path="inbox/{client}/claims-*.csv", clients=clients)
    )
    settings.use(tmp_path / "etl.toml")
    workers(3)
    first, second = crons(), crons()
    until(lambda: len(claims.looked(real_redis)) == len(clients))

    def drop(number: int) -> None:
        for client in clients:
            path = house.write(f"inbox/{client}/claims-{number}.csv", f"claim_id,amount\nA{number},1\n")
            os.utime(path, (time.time() - 60, time.time() - 60))

    drop(1)
    until(lambda: len(house.runs()) >= len(clients) // 2)
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: len(house.runs()) == len(clients))
    until(lambda: len(live.crons(real_redis)) == 1)
    third = crons()
    drop(2)
    until(lambda: len(house.runs()) == 2 * len(clients) and not runs.active(real_redis))
    assert {run["state"] for run in house.runs()} == {"succeeded"}
    for client in clients:
        assert [run["rows"]["loaded"] for run in house.runs(client=client)] == [1, 1]
    for running in (second, third):
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 128 + signal.SIGTERM
    assert live.crons(real_redis) == []
    logs = "".join(path.read_text() for path in tmp_path.glob("cron-*.log"))
    assert logs.count(": run ") <= 2 * len(clients)  # who was killed may not have come to say so
    assert "Traceback" not in logs

"""A project whose `.env` alone names a Redis: nothing runs elsewhere, whatever is asked and from whatever folder."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from redis import Redis

import cli
from jobs.process import elsewhere
from jobs.settings import WORKER_CLASSES
from tests.helpers.processes import ROOT, die_with_parent, kill_session, until
from tests.helpers.project import CLAIMS, Project, etl_toml
from tests.helpers.redis_server import RedisServer

TOML = etl_toml(
    {
        "claims": {
            "transform": ["steps:seen"],
            "load": {"mode": "merge", "key": ["claim_id"]},
            "columns": {"claim_id": "string", "amount": "decimal", "secret": "string"},
        },
        "days": {"extract": {"type": "function", "function": "steps:days"}, "columns": {"id": "integer"}},
    },
    {"acme": {"schedule": {"claims": "0 2 * * *"}}, "globex": {}},
    url="sqlite:///${FOLDER}/warehouse.db",
)
STEPS = """
import os
import pandas as pd

def seen(df):
    return df.assign(secret=os.environ["SECRET"])

def days(start=None):
    return pd.DataFrame({"id": [1]})

def secret():
    return os.environ["SECRET"]
"""

# Every command that opens the broker, each in a way that ends by itself; the others are listed below.
LOOKING = (
    "status", "runs", "show acme/claims", "logs acme/claims", "rejects acme/claims", "workers", "clients",
    "clients pause globex", "clients resume globex", "clients limit globex 2", "schedule sync", "schedule list",
    "metrics", "deliveries", "alerts", "doctor", "doctor --fix", "cancel acme/claims", "wait acme/claims",
    "retry --failed",
    "run claims --client globex", "backfill days --client acme --start 2026-01-01 --end 2026-01-03",
)  # fmt: skip
AS_PROCESSES = {"worker", "up", "dashboard", "cron"}
WITHOUT_REDIS = {"init", "validate", "demo", "plan", "cursor", "completion"}  # demo is a project of its own


@pytest.fixture
def shop(tmp_path: Path, redis_server: RedisServer, real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a `.env` and nothing in the environment; the test is in another folder."""
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    env = f"# shared\nREDIS_URL={redis_server.url}\nexport SECRET='s # t'\nFOLDER={tmp_path}/shop\n"
    files = {".env": env, "steps.py": STEPS, "inbox/acme/1.csv": CLAIMS, "inbox/globex/1.csv": CLAIMS}
    return Project(tmp_path / "shop", TOML, files)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What a test starts, killed after it."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        kill_session(process)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **more}


def start(shop: Project, command: list[str], **more: str) -> subprocess.Popen[bytes]:
    with (shop.root.parent / "out.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *command], env=environment(**more), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip


def nothing_is_elsewhere(shop: Project) -> bool:
    return not list(shop.root.parent.rglob("redis.sock")) and not (shop.root / ".rq-etl" / "redis").exists()


def test_every_command_is_looked_at_here() -> None:
    """One that is new has its place in one of the three lists."""
    names = {words.split()[0] for words in LOOKING}
    assert isinstance(cli.cli, click.Group)
    assert names | AS_PROCESSES | WITHOUT_REDIS == set(cli.cli.commands)


@pytest.mark.parametrize("words", LOOKING)
def test_a_command_works_with_the_redis_that_env_names(
    shop: Project, words: str, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ("--config", str(shop.path))
    assert shop("run claims --client acme", *config).code == 0
    id = shop("runs --json", *config).json[0]["run"]
    assert shop(f"cancel {id}", *config).code == 0
    for more in (config, ()):  # from another folder, then in its own
        if not more:
            monkeypatch.chdir(shop.root)
        said = shop(words, *more)
        assert "no REDIS_URL" not in said.err
        assert "Traceback" not in said.err
        if words.startswith(("status", "show", "runs", "cancel", "wait", "logs")) and words != "logs acme/claims":
            assert id[:6] in said.out or "acme" in said.out, said
    assert nothing_is_elsewhere(shop)


def test_the_environment_beats_it(shop: Project, real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.write(".env", "REDIS_URL=redis://127.0.0.1:1\nSECRET=s\n")
    config = ("--config", str(shop.path))
    assert shop("run claims --client acme", *config).code == 3
    monkeypatch.setenv("FOLDER", str(shop.root))
    monkeypatch.setenv("REDIS_URL", f"unix://{real_redis.connection_pool.connection_kwargs['path']}")
    assert shop("run claims --client acme", *config).code == 0
    assert real_redis.zcard("etl:runs") == 1
    assert nothing_is_elsewhere(shop)


def test_a_mistake_in_it_is_an_error_of_every_command(shop: Project) -> None:
    shop.write(".env", "SECRET hunter2\n")
    for words in LOOKING:
        said = shop(words, "--config", str(shop.path))
        assert said.code == 2, words
        assert f"{shop.root}/.env, line 1" in said.out + said.err
        assert "hunter2" not in said.out + said.err
    assert nothing_is_elsewhere(shop)


def test_workers_work_for_it_and_functions_find_its_values(
    shop: Project, real_redis: Redis, processes: list[subprocess.Popen[bytes]]
) -> None:
    """Ours, started in another folder; and RQ's own, whose environment names the Redis and our classes alone."""
    url = f"unix://{real_redis.connection_pool.connection_kwargs['path']}"
    stock = {**WORKER_CLASSES, "RQ_REDIS_URL": url, "ETL_CONFIG": str(shop.path)}
    ours = ["-P", "-m", "cli", "worker", "--burst", "--config", str(shop.path)]
    for command, more in ((ours, {}), (["-P", "-m", "rq.cli", "worker", "--burst"], stock)):
        real_redis.flushall()
        assert shop("run claims --client acme --full-refresh", "--config", str(shop.path)).code == 0
        process = start(shop, command, **more)
        processes.append(process)
        assert process.wait(60) == 0, (shop.root.parent / "out.log").read_text()
        run = shop("runs --json", "--config", str(shop.path)).json[0]
        assert (run["state"], run["error"]) == ("succeeded", None)
    assert shop.rows("select distinct secret from claims") == [("s # t",)]
    assert nothing_is_elsewhere(shop)


def test_a_stock_worker_says_in_one_line_what_is_wrong_with_it(shop: Project, redis_server: RedisServer) -> None:
    shop.write(".env", "SECRET hunter2\n")
    more = {**WORKER_CLASSES, "RQ_REDIS_URL": redis_server.url, "ETL_CONFIG": str(shop.path)}
    command = [sys.executable, "-P", "-m", "rq.cli", "worker"]
    done = subprocess.run(command, env=environment(**more), capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr.startswith(f"rq-etl: {shop.root}/.env, line 1: ")
    assert done.stderr.count("\n") == 2
    assert "hunter2" not in done.stderr


SCRIPT = """
import sys
from rq_etl import enqueue, submit, wait
import steps
run = submit("claims", "acme", config=sys.argv[1])
job = enqueue("acme", steps.secret)
for ended in wait([run], 60):
    print(ended.state, job.wait(60))
"""


@pytest.mark.slow
def test_scripts_and_their_jobs_go_there(
    shop: Project, real_redis: Redis, processes: list[subprocess.Popen[bytes]]
) -> None:
    script = shop.root / "night.py"
    script.write_text(SCRIPT)
    processes.append(start(shop, ["-P", "-m", "cli", "worker", "--config", str(shop.path)]))
    command = [sys.executable, str(script), str(shop.path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=90)
    assert (done.stdout, done.stderr) == ("succeeded s # t\n", "")
    assert nothing_is_elsewhere(shop)


@pytest.mark.slow
def test_up_its_dashboard_and_rqscheduler_are_there_too(
    shop: Project, real_redis: Redis, processes: list[subprocess.Popen[bytes]]
) -> None:
    shop.write(".env", (shop.root / ".env").read_text() + "ETL_DASHBOARD_PASSWORD=pass\n")
    command = ["-P", "-m", "cli", "up", "-n", "1", "--port", "0", "--config", str(shop.path)]
    processes.append(start(shop, command))
    log = shop.root.parent / "out.log"
    until(lambda: real_redis.scard("rq:workers") == 1 and "dashboard: http" in log.read_text())
    until(lambda: list(real_redis.scan_iter("rq:scheduler_instance:*")))
    assert "(password: ETL_DASHBOARD_PASSWORD)" in log.read_text()
    assert "no REDIS_URL" not in log.read_text()
    assert nothing_is_elsewhere(shop)
    processes[0].send_signal(signal.SIGTERM)
    processes[0].wait(30)


# --- a private Redis says so ---


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that names no Redis, in the working directory."""
    monkeypatch.setattr(elsewhere, "_usual", lambda: iter(()))  # of the machine that tests run on
    root = tmp_path / "shop"
    made = Project(root, TOML, {"steps.py": STEPS, "inbox/acme/1.csv": CLAIMS, "inbox/globex/1.csv": CLAIMS})
    monkeypatch.chdir(root)
    monkeypatch.setenv("FOLDER", str(root))
    monkeypatch.setenv("SECRET", "s")
    return made


def test_a_private_redis_is_said_in_one_line(alone: Project) -> None:
    said = alone("run claims --client acme --json")
    assert said.json[0]["state"] == "succeeded"
    [line] = [line for line in said.err.splitlines() if "REDIS_URL" in line]
    assert line == (
        "rq-etl: no REDIS_URL: this command's own private Redis in .rq-etl/redis, with 2 workers; "
        "it ends with the command"
    )
    said = alone("status")
    assert (
        said.err
        == "rq-etl: no REDIS_URL: this command's own private Redis in .rq-etl/redis; it ends with the command\n"
    )


def test_a_redis_inside_the_process_is_said_too(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(alone.root))
    said = alone("run claims --client acme")
    assert said.code == 0
    assert said.err.splitlines()[0] == (
        "rq-etl: no REDIS_URL and no redis-server: jobs run in this process, with a Redis that ends with it"
    )


def test_nothing_is_said_of_redis_where_none_is_used(alone: Project) -> None:
    said = alone("run claims --client acme --inline")
    assert (said.code, said.err) == (0, "")
    assert "REDIS_URL" not in alone("plan claims --client acme").err


@pytest.mark.parametrize("place", ["above", "beside the script", "in the working directory"])
def test_an_env_that_is_near_but_not_beside_etl_toml_is_pointed_out(
    alone: Project, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = {"above": alone.root.parent}.get(place, alone.root.parent / "other")
    folder.mkdir(exist_ok=True)
    (folder / ".env").write_text("REDIS_URL=redis://:hunter2@h:1\n")
    if place == "beside the script":
        monkeypatch.setattr(sys, "argv", [str(folder / "night.py")])
    elif place == "in the working directory":
        monkeypatch.chdir(folder)
    alone.config(TOML)
    [(what, cure)] = elsewhere.signs()
    assert what == f"{folder}/.env names a Redis, but only {alone.root}/.env is read"
    assert "move it there" in cure


def test_one_that_names_no_redis_is_not(alone: Project) -> None:
    (alone.root.parent / ".env").write_text("COLOR=blue\n")
    assert elsewhere.signs() == []


@pytest.mark.parametrize(
    "line",
    ["RQ_REDIS_URL=redis://:hunter2@h", "CELERY_BROKER_URL=rediss://h/1", "REDIS_HOST=h", "CACHE=unix:///redis.sock"],
)
def test_a_redis_under_another_name_is_pointed_out(alone: Project, line: str) -> None:
    alone.write(".env", f"COLOR=blue\n{line}\n")
    said = alone("status")
    name = line.partition("=")[0]
    assert said.err.splitlines()[1:] == [
        f"rq-etl: warning: {name} in .env names a Redis, but it is REDIS_URL that is read",
        "  set REDIS_URL to the same",
    ]


def test_a_worker_of_this_project_for_another_redis_is_pointed_out(
    alone: Project, real_redis: Redis, processes: list[subprocess.Popen[bytes]]
) -> None:
    url = f"unix://{real_redis.connection_pool.connection_kwargs['path']}"
    processes.append(start(alone, ["-P", "-m", "rq.cli", "worker", "--url", url, "x"]))
    until(lambda: real_redis.scard("rq:workers") == 1)
    [(what, _)] = elsewhere.signs()
    assert what == f"a worker (process {processes[0].pid}) works for {url}"
    alone.write("elsewhere/etl.toml", TOML)
    alone.config(TOML)
    os.environ["ETL_CONFIG"] = str(alone.root / "elsewhere" / "etl.toml")
    try:
        processes.append(start(alone, ["-P", "-m", "rq.cli", "worker", "--url", url, "x"]))
    finally:
        del os.environ["ETL_CONFIG"]
    until(lambda: real_redis.scard("rq:workers") == 2)
    kill_session(processes[0])
    assert elsewhere.signs() == [], "a worker of another project"


def test_the_usual_redis_is_pointed_out_where_rq_uses_it(
    alone: Project, real_redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("REDIS_URL", raising=False)
    url = f"unix://{real_redis.connection_pool.connection_kwargs['path']}"
    monkeypatch.setattr(elsewhere, "USUAL", url)
    monkeypatch.setattr(elsewhere, "SOON", 5.0)
    alone.config(TOML)
    assert elsewhere.signs() == []
    real_redis.sadd("rq:workers", "someone")
    assert elsewhere.signs() == [(f"a Redis that RQ uses answers at {url}", f"if it is meant, set REDIS_URL={url}")]


def test_a_private_redis_that_is_meant_is_left_in_peace(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone.root.parent / ".env").write_text("REDIS_URL=redis://h:1\n")
    monkeypatch.setenv("REDIS_URL", "")
    assert elsewhere.signs() == []


def test_looking_for_signs_never_fails(alone: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone.root.parent / ".env").write_bytes(b"\xff\xfe\0")
    monkeypatch.setattr(os, "listdir", lambda path: 1 / 0)
    monkeypatch.setattr(Path, "cwd", lambda: 1 / 0)
    assert elsewhere.signs() == []

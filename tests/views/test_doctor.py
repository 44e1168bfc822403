"""`rq-etl doctor`: each thing a run needs is looked at, and what is missing comes with its remedy."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Worker
from rq.utils import utcformat

from jobs import broker, settings
from jobs.broker import Facts
from jobs.demo import init
from jobs.queue import FairQueue
from jobs.store import keys, live
from jobs.views import doctor
from tests.helpers.redis_server import RedisServer

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A valid project, as the working directory."""
    init.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("ETL_CONFIG", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings, "_read", None)
    return tmp_path


def edit(folder: Path, old: str, new: str) -> None:
    """Replace a piece of etl.toml that must be there."""
    path = folder / "etl.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def only(found: list[dict[str, Any]], check: str) -> dict[str, Any]:
    """Return the one finding of a check."""
    [finding] = [each for each in found if each["check"] == check]
    return finding


def beat(connection: Redis, age: float = 0.0) -> None:
    """Register a worker whose last sign of life is `age` seconds old."""
    worker = Worker([FairQueue("etl-acme", connection=connection)], connection=connection)
    worker.register_birth()  # type: ignore[no-untyped-call]
    connection.hset(worker.key, "last_heartbeat", utcformat(datetime.now(UTC) - timedelta(seconds=age)))


# --- the configuration, files and packages ---


def test_a_fine_project_is_fine(folder: Path, real_redis: Redis, redis_server: RedisServer) -> None:
    real_redis.config_set("appendonly", "yes")
    beat(real_redis)
    found = doctor.examine(None, redis_server.url)
    real_redis.config_set("appendonly", "no")
    assert [each for each in found if not each["ok"]] == []
    assert [each["check"] for each in found] == ["config", "staging", "target", "redis", "workers"]
    assert doctor.exit_code(found) == 0
    json.dumps(found)


def test_nothing_is_left_behind_by_looking(folder: Path) -> None:
    before = set(folder.rglob("*"))
    doctor.examine(None, None)
    made = {path.name for path in folder.rglob("*") if path not in before and path.suffix != ".pyc"}
    assert made <= {"staging", ".check", "__pycache__"}


def test_each_mistake_of_the_configuration_is_reported(folder: Path) -> None:
    edit(folder, "merge", "mrge")
    edit(folder, 'staging = "staging"', 'stagin = "staging"')
    found = doctor.examine(None, None)
    told = [each["what"] for each in found if each["check"] == "config"]
    assert len(told) == 2
    assert "stagin" in " ".join(told)
    assert doctor.exit_code(found) == 2
    assert not [each for each in found if each["check"] in ("staging", "target")]


def test_a_missing_configuration_names_init(tmp_path: Path, folder: Path) -> None:
    finding = only(doctor.examine(str(tmp_path / "none.toml"), None), "config")
    assert "rq-etl init" in finding["cure"]
    assert finding["exit"] == 2


def test_a_function_that_is_not_there_is_reported(folder: Path) -> None:
    edit(folder, "steps:tidy", "steps:tidyy")
    finding = only(doctor.examine(None, None), "functions")
    assert "tidyy" in finding["what"]
    assert finding["exit"] == 2


@pytest.mark.parametrize("own", ["redis.py", "pandas/__init__.py", "rq_etl.py"])
def test_a_file_that_hides_a_package_is_reported(folder: Path, own: str) -> None:
    (folder / own).parent.mkdir(exist_ok=True)
    (folder / own).write_text("")
    finding = only(doctor.examine(None, None), "names")
    assert own in finding["what"]
    assert "rename" in finding["cure"]
    assert finding["exit"] == 1


def test_our_own_files_hide_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever works on rq-etl may have an etl.toml in the checkout."""
    root = Path(__file__).resolve().parents[2]
    monkeypatch.setattr(settings, "path", lambda: root / "etl.toml")
    assert "names" not in {each["check"] for each in doctor.examine(None, None)}


def test_a_windows_drive_is_a_warning_under_wsl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(folder, 'staging = "staging"', 'staging = "/mnt/c/etl/staging"')
    monkeypatch.setattr("etl.staging.check", lambda url: None)
    assert not [each for each in doctor.examine(None, None) if "Windows" in each["what"]]
    monkeypatch.setattr("platform.release", lambda: "5.15.167.4-microsoft-standard-WSL2")
    [finding] = [each for each in doctor.examine(None, None) if "Windows" in each["what"]]
    assert "/mnt/c/etl/staging" in finding["what"]
    assert (finding["ok"], finding["exit"]) == (False, 0)


def test_staging_that_can_not_be_written_is_reported(folder: Path) -> None:
    (folder / "staging").write_text("a file")
    finding = only(doctor.examine(None, None), "staging")
    assert not finding["ok"]
    assert finding["exit"] == 1


# --- targets ---


def test_a_missing_variable_of_a_target_is_named_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    edit(folder, "sqlite:///warehouse.db", "postgresql://etl:${NO_SUCH_SECRET}@localhost/x")
    edit(folder, "[clients.acme]", "[clients.globex]\n[clients.acme]")
    finding = only(doctor.examine(None, None), "target")
    assert "NO_SUCH_SECRET" in finding["what"]
    assert finding["exit"] == 2


def test_a_target_that_can_not_be_reached_asks_for_three(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    edit(folder, "sqlite:///warehouse.db", "postgresql://etl:${SECRET}@127.0.0.1:1/x")
    found = doctor.examine(None, None)
    assert only(found, "target")["exit"] == 3
    assert doctor.exit_code(found) == 3
    assert "hunter2" not in json.dumps(found)


def test_a_target_of_each_client_is_looked_at(folder: Path) -> None:
    edit(folder, "warehouse.db", "{client}.db")
    edit(folder, "[clients.acme]", "[clients.globex]\n[clients.acme]")
    told = [each["what"] for each in doctor.examine(None, None) if each["check"] == "target"]
    assert len(told) == 2


def test_a_database_that_answers_is_fine(folder: Path, target_url: str) -> None:
    edit(folder, "sqlite:///warehouse.db", target_url)
    assert only(doctor.examine(None, None), "target")["ok"]


# --- the queue ---


def test_a_redis_that_can_not_be_reached_asks_for_three(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor.examine(None, NOWHERE)
    finding = only(found, "redis")
    assert finding["exit"] == doctor.exit_code(found) == 3
    assert finding["cure"]
    monkeypatch.setenv("REDIS_URL", NOWHERE)
    assert only(doctor.examine(None, None), "redis")["exit"] == 3


def test_without_a_redis_server_it_says_how_to_get_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    found = doctor.examine(None, None)
    assert "install" in only(found, "redis")["cure"]
    assert doctor.exit_code(found) == 0


def test_a_private_redis_that_runs_is_looked_at(folder: Path, real_redis: Redis) -> None:
    opened = broker.connect(None, folder)
    try:
        found = doctor.examine(None, None)
    finally:
        opened.close()
    assert "unix:" in only(found, "redis")["what"]
    assert only(found, "workers")["exit"] == 0


GOOD = Facts(version=(7, 0, 15), policy="noeviction", appendonly=True, skew=0.01)


@pytest.mark.parametrize(
    ("facts", "word", "exit"),
    [
        (Facts((7, 0, 15), "allkeys-lru", True, 0.0), "maxmemory-policy", 1),
        (Facts((7, 0, 15), "noeviction", False, 0.0), "appendonly", 0),
        (Facts((7, 0, 15), "noeviction", True, 90.0), "90 s ahead", 1),
        (Facts((7, 0, 15), "noeviction", True, -90.0), "90 s behind", 1),
    ],
)
def test_what_loses_jobs_is_reported_with_its_cure(
    folder: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, facts: Facts, word: str, exit: int
) -> None:
    monkeypatch.setattr(broker, "examine", lambda connection: facts)
    [finding] = [each for each in doctor.examine(None, redis_server.url) if word in each["what"]]
    assert (finding["ok"], finding["exit"]) == (False, exit)
    assert finding["cure"]


def test_what_redis_does_not_tell_is_no_failure() -> None:
    facts = Facts(GOOD.version, "", None, 0.0)
    assert [each["ok"] for each in doctor._facts(facts, "redis://x")] == [True]


def test_no_worker_is_a_warning_unless_runs_wait(folder: Path, real_redis: Redis, redis_server: RedisServer) -> None:
    finding = only(doctor.examine(None, redis_server.url), "workers")
    assert (finding["ok"], finding["exit"]) == (False, 0)
    real_redis.sadd(keys.ACTIVE, "abcdefghjk")
    finding = only(doctor.examine(None, redis_server.url), "workers")
    assert (finding["ok"], finding["exit"]) == (False, 1)
    assert "rq-etl worker" in finding["cure"]


def test_a_worker_without_a_sign_of_life_is_not_alive(
    folder: Path, real_redis: Redis, redis_server: RedisServer
) -> None:
    beat(real_redis, age=live.SILENCE + 10)
    assert not only(doctor.examine(None, redis_server.url), "workers")["ok"]
    beat(real_redis)
    assert only(doctor.examine(None, redis_server.url), "workers")["what"] == "1 alive"


def test_cron_is_looked_for_only_where_a_schedule_is_configured(
    folder: Path, real_redis: Redis, redis_server: RedisServer
) -> None:
    assert not [each for each in doctor.examine(None, redis_server.url) if each["check"] == "cron"]
    edit(folder, "# schedule =", "schedule =")
    assert only(doctor.examine(None, redis_server.url), "cron")["exit"] == 1
    real_redis.hset(f"{doctor.CRON}abc", "birth", time.time())
    assert only(doctor.examine(None, redis_server.url), "cron")["ok"]
    real_redis.hset(f"{doctor.CRON}abc", "death", time.time())
    assert not only(doctor.examine(None, redis_server.url), "cron")["ok"]


# --- what is printed ---


def test_the_gravest_finding_decides_the_exit_code() -> None:
    assert doctor.exit_code([]) == 0
    for exits, code in (((0, 0), 0), ((0, 1), 1), ((1, 2), 2), ((2, 3, 1), 3)):
        assert doctor.exit_code([{"exit": exit} for exit in exits]) == code


def test_each_finding_is_a_line_and_each_remedy_beneath_it(capsys: pytest.CaptureFixture[str]) -> None:
    fine = {"check": "redis", "ok": True, "what": "redis://[::1]:6379", "cure": "", "exit": 0}
    doctor.show([fine, {**fine, "ok": False, "exit": 1, "what": "broken", "cure": "mend it"}, {**fine, "ok": False}])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "FAIL", "mend", "warn"]
    assert "redis://[::1]:6379" in lines[0]


def test_the_environment_is_read_by_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ETL_DASHBOARD_PASSWORD", "")
    assert settings.dashboard_password() is None


# --- the environment ---


def environment_of(found: list[dict[str, Any]]) -> list[str]:
    return [each["what"] for each in found if each["check"] == "environment"]


def test_who_has_set_a_variable_is_said_and_no_value(
    folder: Path, real_redis: Redis, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(folder, "sqlite:///warehouse.db", "postgresql://etl:${WAREHOUSE_PASSWORD}@127.0.0.1:1/x?y=${MISSING}")
    url = redis_server.url.replace("unix://", "unix://default:hunter2@")
    (folder / ".env").write_text(f"WAREHOUSE_PASSWORD=hunter2\nREDIS_URL={url}\nETL_LEASE=7\n")
    (folder / ".env").chmod(0o600)
    monkeypatch.setenv("ETL_LEASE", "8")
    found = doctor.examine(None, None)
    assert environment_of(found) == [
        "set by the environment: ETL_LEASE (.env has another value, which is not used)",
        f"set by {folder}/.env: REDIS_URL ({redis_server.url}), WAREHOUSE_PASSWORD",
        "set nowhere: ETL_CONFIG, ETL_MODULES, ETL_DASHBOARD_PASSWORD, MISSING",
        "set nowhere: MISSING, which etl.toml names",
    ]
    assert "hunter2" not in json.dumps(found)


def test_a_mistake_in_env_is_a_finding(folder: Path) -> None:
    (folder / ".env").write_text("REDIS_URL\n")
    [finding] = doctor.examine(None, None)
    assert (finding["check"], finding["exit"], finding["ok"]) == ("environment", 2, False)
    assert f"{folder}/.env, line 1" in finding["what"]


@pytest.mark.parametrize(
    ("text", "mode", "warned"),
    [("API_TOKEN=t\n", 0o644, True), ("API_TOKEN=t\n", 0o600, False), ("COLOR=blue\nAPI_TOKEN=\n", 0o644, False)],
)
def test_secrets_that_others_can_read_are_warned_of(
    folder: Path, text: str, mode: int, warned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.views.doctor.exposure._is_reachable", lambda path: True)  # pytest's own folder is private
    (folder / ".env").write_text(text)
    (folder / ".env").chmod(mode)
    found = [each for each in doctor.examine(None, None) if each["check"] == "environment" and each["cure"]]
    assert [each["cure"] for each in found] == ([f"chmod o= {folder}/.env"] if warned else [])


def test_workers_that_began_before_env_was_changed_are_pointed_out(
    folder: Path, real_redis: Redis, redis_server: RedisServer
) -> None:
    beat(real_redis)
    (folder / ".env").write_text("COLOR=blue\n")
    for moment, words in ((time.time() - 3600, []), (time.time() + 3600, ["1 worker of this machine began"])):
        os.utime(folder / ".env", (moment, moment))
        found = [each["what"] for each in doctor.examine(None, redis_server.url) if each["check"] == "workers"]
        assert [what[:30] for what in found if "began" in what] == words


def test_what_suggests_another_redis_than_a_private_one_is_pointed_out(folder: Path) -> None:
    (folder / ".env").write_text("RQ_REDIS_URL=redis://h\n")
    found = doctor.examine(None, None)
    assert "RQ_REDIS_URL in .env names a Redis, but it is REDIS_URL that is read" in environment_of(found)

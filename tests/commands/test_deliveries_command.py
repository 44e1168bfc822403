"""`rq-etl deliveries`, and what `status` and `doctor` say of deliveries."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis

from jobs.deliveries import poll
from jobs.store import live
from tests.helpers.project import Project, Said, etl_toml
from tests.helpers.redis_server import RedisServer


@pytest.fixture
def now() -> datetime:
    """The moment at which the test begins."""
    return datetime.now(UTC)


@pytest.fixture
def expecting(
    tmp_path: Path, redis_server: RedisServer, real_redis: Redis, monkeypatch: pytest.MonkeyPatch, now: datetime
) -> Project:
    """A project of two clients, whose deliveries are due every minute of the day at some other time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    an_hour_ago = f"{now - timedelta(hours=1):%H:%M}"
    claims = {
        "extract": {"path": "inbox/{client}/claims-{date}.csv"},
        "load": {"mode": "merge", "key": ["claim_id"]},
        "columns": {"claim_id": "string"},
        "delivery": {"due": an_hour_ago, "files": 2, "run": "no"},
    }
    clients = {"acme": {}, "globex": {"pipelines": ["plain"]}}
    return Project(tmp_path, etl_toml({"claims": claims, "plain": {}}, clients, defaults={"pipelines": ["claims"]}))


def rows(said: Said) -> list[list[str]]:
    return [line.split() for line in said.out.splitlines()]


def test_what_is_missing_is_shown_without_a_cron_process_and_that_none_is_alive(
    expecting: Project, now: datetime
) -> None:
    said = expecting("deliveries")
    day = (now - timedelta(hours=1)).date()
    assert said.code == 0
    assert "missing" in rows(said)[1]
    assert re.search(r" (59|60|61) min ", said.out)
    assert "times are in" in said.out
    assert "no cron process is alive" in said.err
    [missing, awaited] = expecting("deliveries", "--json").json
    assert (missing["day"], missing["missing"], missing["expected"]) == (day.isoformat(), True, 2)
    assert (awaited["day"], awaited["missing"]) == ((day + timedelta(days=1)).isoformat(), False)


def test_a_client_without_deliveries_has_none_and_one_that_is_not_there_is_named(expecting: Project) -> None:
    assert expecting("deliveries", "--client", "globex", "--json").json == []
    assert expecting("deliveries", "--client", "nobody").code == 2
    assert expecting("deliveries", "--since", "long").code == 2


def test_status_has_the_delivery_and_calls_its_pipeline_late(expecting: Project) -> None:
    line, other = expecting("status", "--json").json
    assert (line["client"], line["delivery"]["missing"], other["delivery"]) == ("acme", True, None)
    assert 3500 < line["late"] < 3800
    said = expecting("status")
    assert "delivery" in said.out
    assert "missing" in said.out


def test_what_has_come_is_shown_with_how_many_files(expecting: Project, real_redis: Redis, now: datetime) -> None:
    from jobs import settings

    day = (now - timedelta(hours=1)).date()
    poll.look_at_all(settings.config(), real_redis, now)
    expecting.write(f"inbox/acme/claims-{day}.csv", "claim_id\nA1\n")
    poll.look_at_all(settings.config(), real_redis, now + timedelta(seconds=70))
    assert "1 of 2" in expecting("deliveries").out
    assert expecting("deliveries", "--since", "1m", "--json").json[0]["day"] > day.isoformat()


def test_doctor_wants_a_cron_process_and_names_what_prevented_a_look(
    expecting: Project, real_redis: Redis, now: datetime
) -> None:
    from jobs import settings

    poll.look_at_all(settings.config(), real_redis, now)
    said = expecting("doctor")
    assert "none is alive, for deliveries of 1 pipeline" in said.out
    assert "rq-etl cron" in said.out
    assert "acme/claims: " in said.out
    live.sign(real_redis, "host-1")
    (expecting.root / "inbox/acme").mkdir(parents=True)
    poll.look_at_all(settings.config(), real_redis, now + timedelta(seconds=70))
    found = {line["check"]: line for line in json.loads(expecting("doctor", "--json").out)}
    assert (found["cron"]["ok"], found["cron"]["what"]) == (True, "alive, for deliveries of 1 pipeline")
    assert "delivery" not in found


def test_odd_things_are_under_the_table(expecting: Project, capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.views import console

    line = expecting("deliveries", "--json").json[0]
    console.deliveries([{**line, "odd": ["rows changed by -61 %"]}])
    assert f"acme/claims of {line['day']}: rows changed by -61 %" in capsys.readouterr().out


def test_cron_without_a_project_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    said = Project(tmp_path)("cron")
    assert (said.code, "etl.toml" in said.err) == (2, True)

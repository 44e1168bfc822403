"""Malformed data in Redis is set aside: it ends no worker, no scheduler, no command and no page, and no run waits."""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import fakeredis
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from redis import Redis
from rq_scheduler import Scheduler

from etl.errors import BrokerUnreachable
from jobs import broker
from jobs.api import submit
from jobs.dashboard import create_app
from jobs.enqueue import enqueue_on
from jobs.job import EtlJob
from jobs.process import maintenance
from jobs.process.inprocess import InProcessWorker
from jobs.queue import FairQueue, dequeue
from jobs.run import schedules
from jobs.run.cancel import cancel_run
from jobs.store import forms, malformed, runs
from jobs.store.keys import KEYS
from jobs.store.limits import limit, pause
from jobs.worker import Worker
from tests.helpers.dashboard_pages import LOGIN
from tests.helpers.examples import examples
from tests.helpers.processes import until
from tests.helpers.project import Project, etl_toml
from tests.helpers.queued_project import BAD, GOOD, STEPS, QueuedProject
from tests.helpers.redis_server import RedisServer
from tests.helpers.worker_project import LEASE
from tests.helpers.workers import StartWorkers

pytestmark = pytest.mark.slow

CLIENTS = ("acme", "globex", "initech", "umbra")
PIPELINE = {
    "extract": {"path": "inbox/{client}/claims-*.csv"},
    "transform": ["steps:same"],
    "load": {"mode": "merge", "key": ["claim_id"]},
    "retries": 0,
    "columns": {"claim_id": {"type": "string", "required": True}, "amount": {"type": "decimal", "min": 0}},
}
NEEDING = {**PIPELINE, "needs": ["claims"]}
CONFIG = etl_toml(
    {"claims": PIPELINE, "later": NEEDING},
    {name: {"pipelines": ["claims", "later"], "schedule": {"claims": "0 2 * * *"}} for name in CLIENTS},
)
COMMANDS = (
    *("status", "runs", "runs --state failed", "runs --client acme --since 24h", "clients", "workers", "metrics"),
    *("schedule list", "schedule sync", "doctor", "retry --failed --since 24h", "cancel --client globex"),
    *("show {run}", "logs {run}", "rejects {run}", "wait {run}", "clients pause acme", "clients resume acme"),
)
PAGES = (
    *("/", "/runs/{run}", "/rq/", "/rq/0/data/queues.json", "/rq/0/data/workers.json"),
    *(f"/rq/0/data/jobs/etl-acme/{kind}/8/asc/1.json" for kind in ("queued", "finished", "failed", "started")),
)


class Stored(NamedTuple):
    """What a Redis had: each key's type, content and life in ms."""

    keys: Mapping[bytes, tuple[str, Any, int]]
    run: str


READ: dict[str, Callable[[Any, bytes], Any]] = {
    "hash": lambda redis, key: redis.hgetall(key),
    "set": lambda redis, key: redis.smembers(key),
    "zset": lambda redis, key: dict(redis.zrange(key, 0, -1, withscores=True)),
    "list": lambda redis, key: redis.lrange(key, 0, -1),
    "string": lambda redis, key: redis.get(key),
    "stream": lambda redis, key: redis.xrange(key),
}
WRITE: dict[str, Callable[[Any, bytes, Any], Any]] = {
    "hash": lambda redis, key, value: redis.hset(key, mapping=value),
    "set": lambda redis, key, value: redis.sadd(key, *value),
    "zset": lambda redis, key, value: redis.zadd(key, value),
    "list": lambda redis, key, value: redis.rpush(key, *value),
    "string": lambda redis, key, value: redis.set(key, value),
    "stream": lambda redis, key, value: [redis.xadd(key, fields, id) for id, fields in value],
}
SOME: Mapping[str, Any] = {
    "hash": {b"field": b"value"},
    "set": {b"member"},
    "zset": {b"member": 1.0},
    "list": [b"member"],
    "string": b"value",
    "stream": [("1-1", {b"field": b"value"})],
}
JUNK = (
    *(b"", b"\xff\xfe", b"abc", b"-1", b"1e999", b"nan", b"99999999999999999999", b"0", b"[]", b"{}", b'{"a":', b"[[["),
    *(b"null", b"true", b'"text"', b"[1, null]", b'{"counts": 1}', b"../../etc", b"a\nb", b"\x00", b"x" * 400),
    *(b"2026-13-45T99:99:99Z", b"schedule-x", b"queued", b"acme/claims", b"1:extract", b"[red]", b"%s{}"),
)  # fmt: skip
junk = st.sampled_from(JUNK) | st.binary(max_size=20)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Stored]:
    """A project on which much has happened, and what its Redis knows of it."""
    root, connection = tmp_path_factory.mktemp("project"), fakeredis.FakeRedis(server=fakeredis.FakeServer())
    path = [*sys.path]
    project = QueuedProject(root, connection, CONFIG, {"steps.py": STEPS})
    for name in CLIENTS:
        project.files(name, GOOD if name != "globex" else BAD)
    schedules.sync(project.loaded(), connection)
    run = project.run("acme")
    project.run("globex")
    Worker(["default"], connection=connection, name="w1").register_birth()  # type: ignore[no-untyped-call]
    enqueue_on(connection, "acme", "steps:add", (2, 3))
    enqueue_on(connection, "acme", "steps:fail")
    project.work()
    project.submit("acme")
    project.submit("acme", "later")
    canceled = project.submit("umbra")
    dequeue(connection, worker="w1")  # a job that runs
    cancel_run(connection, canceled)
    pause(connection, ["umbra"])
    limit(connection, "acme", 2)
    connection.zadd("rq:scheduled:etl-acme", {"later-job": 4e9})
    sys.path[:] = path
    content = {}
    for key in connection.scan_iter():
        kind = bytes(connection.type(key)).decode()  # type: ignore[arg-type]
        content[key] = kind, READ[kind](connection, key), connection.pttl(key)
    return root, Stored(content, run)


def restored(stored: Stored) -> Redis:
    """Return a Redis that knows what was stored."""
    connection = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    for key, (kind, content, life) in stored.keys.items():
        WRITE[kind](connection, key, content)
        if life > 0:
            connection.pexpire(key, life)
    return connection


@st.composite
def damages(draw: st.DrawFn, names: list[bytes]) -> tuple[bytes, str, bytes, bytes]:
    """A key, what becomes of it, and two pieces of junk."""
    what = draw(st.sampled_from(("delete", "type", "member", "field", "field", "field", "score")))
    return draw(st.sampled_from(names)), what, draw(junk), draw(junk)


def damage(connection: Any, key: bytes, what: str, one: bytes, two: bytes) -> None:
    """Damage a key."""
    kind = connection.type(key).decode()
    if what == "delete":
        connection.delete(key)
    elif what == "type" or kind == "none":
        other = sorted(SOME)[len(one + two) % len(SOME)]
        connection.delete(key)
        WRITE[other](connection, key, SOME[other])
    elif kind == "hash":
        fields = sorted(connection.hkeys(key))
        name = one if what == "member" or not fields else fields[len(one) % len(fields)]
        connection.hset(key, name, two)
    elif kind == "zset":
        members = connection.zrange(key, 0, -1)
        score = float("inf") if len(two) % 2 else -1e300
        connection.zadd(key, {members[0] if what == "score" and members else one: score if what == "score" else 1.0})
    elif kind == "set":
        connection.sadd(key, one)
    elif kind == "list":
        connection.lpush(key, one)
    elif kind == "string":
        connection.set(key, one)
    else:
        connection.xadd(key, {one or b"x": two})


def work(connection: Redis) -> None:
    """Do all that can be done now."""
    worker = InProcessWorker(connection)
    assert any(not worker.step() for _ in range(200)), "a job comes back for ever"


def names_of(stored: Stored) -> list[bytes]:
    """Return the keys that may be damaged: those that are there, and one of each kind that we know."""
    known = [key.pattern.split("[")[0] for key in KEYS if key.type != "any"]
    made = [name.replace("<client>", "acme").replace("<pipeline>", "claims").replace("<name>", "x") for name in known]
    return sorted({*stored.keys, *(name.encode() for name in made if "<" not in name)})


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_junk_in_redis_ends_nothing_and_lets_every_other_run_go_on(
    stored: tuple[Path, Stored], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    root, known = stored
    connection = restored(known)
    for each in data.draw(st.lists(damages(names_of(known)), min_size=1, max_size=5)):
        note(repr(each))
        damage(connection, *each)
    shutil.rmtree(tmp_path)
    shutil.copytree(root, tmp_path)
    project = QueuedProject(tmp_path, connection, CONFIG)
    monkeypatch.setattr(broker, "dial", lambda url: connection)
    monkeypatch.setenv("REDIS_URL", "redis://here")
    work(connection)
    list(Scheduler(connection=connection, job_class=EtlJob, queue_class=FairQueue).enqueue_jobs())
    command = Project(tmp_path)
    monkeypatch.chdir(tmp_path)
    for text in data.draw(st.lists(st.sampled_from(COMMANDS), min_size=3, max_size=3, unique=True)):
        said = command(text.format(run=known.run))
        assert "Traceback" not in said.err, (text, said.err)
    with create_app(connection, password="correct horse").test_client() as pages:
        for page in data.draw(st.lists(st.sampled_from(PAGES), min_size=1, max_size=1)):
            page = page.format(run=known.run)
            assert pages.get(page, headers=LOGIN, follow_redirects=True).status_code in (200, 404), page
    new = project.submit("initech")
    work(connection)
    malformed.passing(connection, lambda: maintenance.maintain(connection, ["etl-initech"], all_tasks=True))
    assert project.state(new) == "succeeded"
    assert not list(malformed.find(connection)) or malformed.set_aside(connection)
    assert list(malformed.find(connection)) == []


def test_every_key_of_ours_and_rqs_is_of_its_form(stored: tuple[Path, Stored]) -> None:
    connection = restored(stored[1])
    assert [each.text() for each in malformed.find(connection)] == []
    unknown = [key for key in stored[1].keys if malformed._known(key) is None]
    assert [key for key in unknown if not key.startswith((b"rq:scheduler", b"rq:clean"))] == []
    assert runs.read(connection, stored[1].run) is not None


def test_what_is_set_aside_is_reported_once_and_counted_by_the_doctor(
    tmp_path: Path,
    redis_server: RedisServer,
    real_redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    project = QueuedProject(tmp_path, real_redis, CONFIG, {"steps.py": STEPS})
    project.files("acme", GOOD)
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.chdir(tmp_path)
    run = project.submit("acme")
    real_redis.set("etl:held:ready", "no set")
    real_redis.hset("etl:run:other", mapping={"state": "running", "secret": "Jane Roe"})
    real_redis.sadd("etl:active", b"\xff", "other")
    before = Project(tmp_path)("doctor --json").json
    assert any(each["what"].startswith("3 malformed values in Redis") for each in before)
    work(real_redis)
    assert project.state(run) == "succeeded"
    for _ in range(3):
        work(real_redis)
        malformed.set_aside(real_redis)
    said = [record.getMessage() for record in caplog.records if "set aside" in record.getMessage()]
    assert sorted(said) == [
        "malformed data in Redis was set aside: etl:active \\xff (no id)",
        "malformed data in Redis was set aside: etl:held:ready (a string, not a set)",
        "malformed data in Redis was set aside: etl:run:other (malformed: a field that is missing)",
    ]
    after = Project(tmp_path)("doctor --json").json
    assert "3 malformed values set aside in the last 30 days" in [each["what"] for each in after]
    assert real_redis.get("etl:aside:etl:held:ready") == b"no set"
    assert real_redis.hget("etl:aside:etl:run:other", "secret") == b"Jane Roe"


def test_what_has_ended_and_is_kept_for_ever_is_well_formed(fake_redis: Redis) -> None:
    """As RQ writes it for the jobs of schedules."""
    fake_redis.zadd("rq:finished:etl-acme", {"schedule-acme-claims": float("inf")})
    fake_redis.zadd("rq:scheduled:etl-acme", {"job": float("inf")})
    fake_redis.sadd("rq:queues", "rq:queue:etl-acme", "foo")
    fake_redis.hset("etl:due", mapping={"acme/claims": "9e11", "acme/visits": "1.8e9"})
    assert sorted(each.text() for each in malformed.find(fake_redis)) == [
        "etl:due acme/claims (malformed)",
        "rq:queues foo (no id)",
        "rq:scheduled:etl-acme job (wrong score)",
    ]


def test_maintenance_sets_aside_what_would_end_rq_scheduler(fake_redis: Redis) -> None:
    for key in ("rq:scheduler:scheduled_jobs", "rq:queues"):
        fake_redis.set(key, "x")
    for _ in range(2):
        maintenance.maintain(fake_redis, [])
        list(Scheduler(connection=fake_redis, job_class=EtlJob, queue_class=FairQueue).enqueue_jobs())
        fake_redis.zadd("rq:scheduler:scheduled_jobs", {b"\x80": 1.0})
    assert fake_redis.get("etl:aside:rq:queues") == b"x"


def test_a_job_whose_list_of_parents_is_empty_text_waits_for_none(connection: Redis, tmp_path: Path) -> None:
    project = QueuedProject(tmp_path, connection, CONFIG, {"steps.py": STEPS})
    project.files("acme", GOOD)
    run = project.submit("acme")
    [waiting] = [key for key in connection.scan_iter("rq:job:*-load-1") if connection.type(key) == b"hash"]
    connection.hset(waiting, "dependency_ids", "")
    project.work()
    assert project.state(run) == "succeeded"


def test_what_ends_while_it_is_looked_at_is_not_malformed(fake_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_redis.set("etl:rescued", "1.5", px=60_000)
    fake_redis.hset("etl:run:abc", mapping={"state": "running", "client": "acme", "pipeline": "claims"})
    monkeypatch.setitem(malformed._READ, "string", lambda pipe, key: pipe.get("ended"))
    monkeypatch.setitem(malformed._READ, "hash", lambda pipe, key: pipe.hgetall("ended"))
    assert list(malformed.find(fake_redis)) == []


ODD = ("", "+1", "01", "1_0", " 1", ".5")


@pytest.mark.parametrize("number", ODD, ids=repr)
def test_what_is_a_number_to_python_alone_is_set_aside(connection: Redis, tmp_path: Path, number: str) -> None:
    """Redis adds to none of them, and Lua compares none: whatever becomes of this run, every other one goes on."""
    project = QueuedProject(tmp_path, connection, CONFIG, {"steps.py": STEPS})
    for name in ("acme", "globex"):
        project.files(name, GOOD)
    project.run("acme")
    run, other = project.submit("acme"), project.submit("globex")
    known = [key.decode() for pattern in ("etl:use:*", f"rq:job:{run}-*") for key in connection.scan_iter(pattern)]
    for key in (*known, "etl:served"):
        if connection.type(key) == b"hash":
            found = cast(dict[bytes, bytes], connection.hgetall(key))
            fields = [field for field, value in found.items() if forms.is_number(value)]
            connection.hset(key, mapping={**dict.fromkeys(fields, number), "left": number})
    project.work()
    malformed.passing(connection, lambda: maintenance.maintain(connection, ["etl-globex"], all_tasks=True))
    assert project.state(other) == "succeeded"


def test_a_key_of_another_type_holds_up_no_worker(tmp_path: Path, real_redis: Redis, workers: StartWorkers) -> None:
    project = QueuedProject(tmp_path, real_redis, CONFIG, {"steps.py": STEPS})
    for name in ("acme", "globex"):
        project.files(name, GOOD)
    started = workers(3, env={"ETL_LEASE": LEASE})
    for key in ("etl:ready", "etl:active", "rq:queues", "rq:queue:etl-acme", "etl:client:acme"):
        real_redis.delete(key)
        real_redis.set(key, "junk")
        ids = [project.submit(name) for name in ("globex", "acme")]
        until(lambda ids=ids: [project.state(run) for run in ids] == ["succeeded", "succeeded"])  # type: ignore[misc]
    assert [process.poll() for process in started] == [None, None, None]


def test_a_user_without_a_right_is_named_what_it_lacks(
    tmp_path: Path, redis_server: RedisServer, real_redis: Redis
) -> None:
    project = QueuedProject(tmp_path, real_redis, CONFIG, {"steps.py": STEPS})
    project.files("acme", GOOD)
    real_redis.acl_setuser("poor", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all", "-watch"])
    try:
        with (
            Redis.from_url(redis_server.url, username="poor", password="word") as connection,
            pytest.raises(BrokerUnreachable, match="Redis does not permit its user watch"),
        ):
            submit("claims", "acme", config=project.path, redis=connection)
    finally:
        real_redis.acl_deluser("poor")

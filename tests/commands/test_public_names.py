"""What `rq_etl` gives to scripts: its names and no others, typed; no error of redis' own, whenever Redis goes away."""

import inspect
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from hatchling.builders.wheel import WheelBuilder
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError, RedisError, ResponseError

import rq_etl
from etl.errors import BrokerUnreachable
from jobs import enqueue as enqueueing
from jobs import session, settings
from rq_etl import EtlError, RedisAway, Run, submit, wait
from tests.helpers.examples import stride
from tests.helpers.processes import ROOT
from tests.helpers.project import CLAIMS, Project

NAMES = {"AlreadyRunning", "EtlError", "RedisAway", "Reject", "Rows", "Run", "enqueue", "reject", "submit", "wait"}
PROPERTIES = [name for name, member in inspect.getmembers(Run) if isinstance(member, property)]


@pytest.fixture(autouse=True)
def no_sessions_are_left() -> Iterator[None]:
    """A process has a session for each configuration; a test's must not be another's."""
    yield
    session._sessions.clear()


def test_there_are_the_public_names_and_no_others() -> None:
    given: dict[str, Any] = {}
    exec("from rq_etl import *", given)
    assert given.keys() - {"__builtins__"} == NAMES
    assert set(dir(rq_etl)) == set(rq_etl.__all__) == NAMES
    assert {name for name in vars(rq_etl) if not name.startswith("__")} <= NAMES
    for name in ("etl", "jobs", "Path", "TYPE_CHECKING", "Any"):
        assert not hasattr(rq_etl, name), name
    stub: dict[str, Any] = {}
    exec((ROOT / "rq_etl-stubs" / "__init__.pyi").read_text(), stub)
    assert {name for name in stub if not name.startswith("__")} == set(stub["__all__"]) == NAMES
    assert {name: stub[name] for name in NAMES} == {name: getattr(rq_etl, name) for name in NAMES}


def test_its_old_name_still_catches_a_redis_that_is_away() -> None:
    assert BrokerUnreachable is RedisAway
    assert issubclass(RedisAway, EtlError)
    assert RedisAway("what").exit_code == 3


def test_a_run_says_when_it_began_and_ended(etl: Project, fake_redis: Redis) -> None:
    run = submit("claims", "acme", redis=fake_redis)
    assert (run.started, run.finished, run.seconds, run.warnings, run.odd) == (None, None, None, [], [])
    run.wait(30)
    assert run.started is not None
    assert run.finished is not None
    assert run.seconds is not None
    assert run.started.tzinfo is not None
    assert (run.finished - run.started).total_seconds() == pytest.approx(run.seconds, abs=0.01)
    assert (datetime.now(UTC) - run.finished).total_seconds() < 60
    assert run.waiting is None
    assert run.json()["finished"] == run.finished.isoformat(timespec="milliseconds")


# --- types ---

SCRIPT = """
from collections.abc import Iterator
from datetime import datetime

import rq_etl
from rq_etl import AlreadyRunning, EtlError, RedisAway, Reject, Rows, Run, enqueue, reject, submit, wait


def add(a: int, b: int) -> int:
    return a + b


def main(df: object) -> None:
    try:
        run: Run = submit("claims", "acme", params={"n": 1}, start="2026-01-01", config="etl.toml")
    except AlreadyRunning as error:
        print(error.run)
        raise
    except RedisAway as error:
        print(error.what, error.cure)
        raise
    rows: Rows = run.wait(timeout=1).rows
    loaded: int = rows.loaded
    moments: tuple[datetime | None, datetime | None] = (run.started, run.finished)
    seconds: float | None = run.seconds
    texts: tuple[list[str], str | None, list[str]] = (run.warnings, run.waiting, run.odd)
    rejects: list[Reject] = run.rejects()
    ended: Iterator[Run] = wait([run], timeout=2.0)
    print(loaded, moments, seconds, texts, rejects, list(ended), run.cancel().state, run.retry().error)
    job = enqueue("acme", add, 2, 3, timeout=1.5, retries=2)
    print(job.wait(10), job.id, reject)
    if seconds is not None and seconds > 1:
        raise EtlError("slow", "be quick")
    rq_etl.submit("claims", "acme", redis="redis://localhost")
"""
WRONG = """
import rq_etl

rq_etl.submit(1, "acme")
rq_etl.nosuch
reveal_type(rq_etl.submit("claims", "acme").started)
"""


@pytest.mark.slow
def test_a_users_script_is_checked_strictly_against_the_wheel(tmp_path: Path) -> None:
    """In an environment of its own, which has our dependencies from here, and not this checkout."""
    WheelBuilder(str(ROOT)).build(directory=str(tmp_path / "dist"), versions=["standard"]).__next__()
    venv.create(tmp_path / "clean", with_pip=False)
    [packages] = (tmp_path / "clean" / "lib").glob("python*/site-packages")
    [wheel] = (tmp_path / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(packages)
    [ours] = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text(ours)
    for name, text in (("good", SCRIPT), ("wrong", WRONG)):
        (tmp_path / f"{name}.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", f"{tmp_path}/clean/bin/python"]

    def check(name: str) -> str:
        return subprocess.run([*command, name], cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    assert check("good.py").startswith("Success")
    wrong = check("wrong.py")
    assert "wrong.py:4: error" in wrong
    assert "wrong.py:5: error" in wrong
    assert 'Revealed type is "datetime.datetime | None"' in wrong


# --- Redis is away ---


class Server(fakeredis.FakeServer):
    """A Redis that goes away after so many connections and commands, or answers each with an error."""

    left: int | None = None

    @property
    def connected(self) -> bool:
        if self.left is not None:
            self.left -= 1
        return self.left is None or self.left >= 0

    @connected.setter
    def connected(self, value: bool) -> None:
        self.left = None if value else 0


def calls(run: Run, connection: Redis) -> dict[str, Callable[[], object]]:
    """Return every public call that asks Redis, by name."""
    job = enqueueing.enqueue_on(connection, "acme", "json.dumps", [1])
    return {
        "submit": lambda: submit("claims", "globex", redis=connection),
        "wait": lambda: list(wait([run], 0.01)),
        "Run.wait": lambda: run.wait(0.01),
        **{f"Run.{name}": lambda name=name: getattr(run, name) for name in PROPERTIES},
        **{f"Run.{name}": getattr(run, name) for name in ("json", "rejects", "cancel", "retry")},
        "enqueue": lambda: rq_etl.enqueue("acme", "json.dumps", 1),
        "Job.wait": lambda: job.wait(0.01),
        "Job.return_value": job.return_value,
    }


CALLS = [
    "submit", "wait", "enqueue", "Job.wait", "Job.return_value", "Run.wait", "Run.json", "Run.rejects", "Run.cancel",
    "Run.retry", *(f"Run.{name}" for name in PROPERTIES),
]  # fmt: skip


@pytest.fixture
def project(etl: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    etl.change(("[settings]", '[settings]\nmodules = ["json"]'), ('\nmodules = ["steps"]', ""))
    etl.write("inbox/globex/claims-1.csv", CLAIMS)
    monkeypatch.setattr(session, "PATIENCE", 0.05)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    return etl


def prepared(monkeypatch: pytest.MonkeyPatch) -> tuple[Server, dict[str, Callable[[], object]]]:
    server = Server()
    connection = fakeredis.FakeRedis(server=server)
    monkeypatch.setattr(enqueueing, "_connection", lambda *_: connection)
    run = submit("claims", "acme", redis=connection)
    return server, calls(run, connection)


def test_every_public_call_is_here(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {name for name, member in inspect.getmembers(Run, callable) if not name.startswith("_")}
    assert set(CALLS) == set(prepared(monkeypatch)[1])
    assert {f"Run.{name}" for name in methods} < set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_a_redis_that_is_away_is_raised_as_that_with_its_cure(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    server, public = prepared(monkeypatch)
    server.connected = False
    with pytest.raises(RedisAway) as raised:
        public[name]()
    assert raised.value.cure


@pytest.mark.parametrize("name", CALLS)
def test_one_that_goes_away_in_the_middle_of_a_call_raises_nothing_of_redis_own(project: Project, name: str) -> None:
    for after in range(0, 60, stride()):
        with pytest.MonkeyPatch.context() as monkeypatch:
            server, public = prepared(monkeypatch)
            server.left = after
            with suppress(EtlError, TimeoutError):  # any other is this test's failure
                public[name]()
        session._sessions.clear()


@pytest.mark.parametrize("error", [AuthenticationError, NoPermissionError, ReadOnlyError, ResponseError])
@pytest.mark.parametrize("name", CALLS)
def test_one_that_refuses_is_raised_as_that(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, error: type[RedisError]
) -> None:
    _, public = prepared(monkeypatch)

    def refuse(*_: object, **__: object) -> None:
        raise error("refused")

    monkeypatch.setattr(Redis, "execute_command", refuse)
    monkeypatch.setattr("redis.client.Pipeline.execute", refuse)
    with pytest.raises(RedisAway):
        public[name]()


def test_a_run_can_be_printed_where_redis_is_away(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    run = submit("claims", "acme", redis=fakeredis.FakeRedis(server=server))
    assert repr(run) == f"<Run {run.id} acme/claims queued>"
    server.connected = False
    assert repr(run) == f"<Run {run.id}>"


def test_a_wait_with_a_timeout_waits_no_longer_for_a_redis_that_is_away(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    settings.use(project.path)
    server = Server()
    run = submit("claims", "acme", redis=fakeredis.FakeRedis(server=server), config=project.path)
    server.connected = False
    began = time.monotonic()
    with pytest.raises(RedisAway, match="has been away"):
        run.wait(0.3)
    assert time.monotonic() - began < 20

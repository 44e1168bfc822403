"""User functions, targets, Redis and staging that misbehave: told in two lines, and nothing is loaded by halves."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from redis import Redis

from jobs.settings import WORKER_CLASSES
from tests.helpers.processes import die_with_parent, give_up, wait_until
from tests.helpers.project import ETL_TOML, Project, is_short
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

ROOT = Path(__file__).resolve().parents[2]
INLINE = "run claims --client acme --inline"
WITH_STEP = ("transform = []", 'transform = ["steps:f"]')


def nothing_is_loaded(etl: Project) -> bool:
    return "claims" not in etl.tables() or etl.rows("select * from claims") == []


# --- functions ---


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError(df.claim_id.iloc[0])", ("steps:f raised ValueError", "steps.py line 3")),
        ("return df.nonsense", ("steps:f raised AttributeError", "steps.py line 3")),
        ("return None", ("steps:f", "None", "DataFrame")),
        ("return df.drop(columns='amount')", ("steps:f", "amount")),
        ("return df.reset_index(drop=True)", ("steps:f", "_row", "set_index")),
        ("return df.merge(df, on='claim_id')", ("steps:f",)),
        ("import sys; sys.exit(0)", ("steps:f raised SystemExit",)),
    ],
)
def test_a_function_that_misbehaves(etl: Project, body: str, words: tuple[str, ...]) -> None:
    etl.write("steps.py", f"import pandas as pd\ndef f(df):\n    {body}\n")
    etl.config(ETL_TOML, WITH_STEP)
    said = etl(INLINE)
    assert said.code == 1
    run = etl.run()
    [failure] = run["failures"]
    assert failure["stage"] == "transform"
    for word in words:
        assert word in failure["error"]
        assert word in said.out
    assert "A1" not in said.out + said.err + str(run)
    assert len(failure["error"].splitlines()) <= 2
    assert "Traceback" not in said.out + said.err
    assert nothing_is_loaded(etl)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def g(df): return df", ("steps:f", "no function f", "it has g")),
        ("def f(df, wrong): return df", ("steps:f", "wrong")),
        ("def f(: pass", ("SyntaxError", "steps.py line 1")),
        ("import nonsense", ("ModuleNotFoundError nonsense", "steps.py line 1")),
        ("async def f(df): return df", ("async",)),
        ("def f(df):\n    yield df", ("yields",)),
        ("f = 3", ("no function f",)),
    ],
)
def test_a_function_that_can_not_be_called_is_refused_before_the_run(
    etl: Project, code: str, words: tuple[str, ...]
) -> None:
    etl.write("steps.py", code)
    etl.config(ETL_TOML, WITH_STEP)
    for command in ("validate", INLINE):
        said = etl(command)
        assert said.code == 2
        assert is_short(said)
        for word in words:
            assert word in said.err
    assert etl.tables() == []


def test_what_a_function_raised_in_this_process_can_be_looked_at_afterwards(etl: Project) -> None:
    """Of `--inline` no Redis is left that would know the run."""
    etl.write("steps.py", "def f(df):\n    raise ValueError('as Jane Roe wrote')\n")
    etl.config(ETL_TOML, ("transform = []", 'transform = ["steps:f"]'))
    id = etl.run()["run"]
    shown = etl("show acme/claims --json").json
    assert (shown["run"], shown["state"]) == (id, "failed")
    assert "steps:f raised ValueError in steps.py line 2" in shown["error"]
    assert "ValueError: as Jane Roe wrote" in etl(f"logs {id}").out
    assert [run["run"] for run in etl("runs --state failed --json").json] == [id]
    assert "claims" not in etl.tables()


def test_there_is_no_such_module(etl: Project) -> None:
    etl.config(ETL_TOML, WITH_STEP)
    said = etl(INLINE)
    assert said.code == 2
    assert "there is no module steps" in said.err


def test_a_function_that_never_ends_is_stopped(
    etl: Project, redis_server: RedisServer, real_redis: Redis, workers: StartWorkers
) -> None:
    etl.write(
        "steps.py", "def f(df):\n    while True:\n        try:\n            pass\n        except Exception: pass\n"
    )
    etl.config(ETL_TOML, WITH_STEP, ("retries = 0", 'retries = 0\ntimeout = "1s"'))
    workers(1, cwd=etl.root)
    said = etl(f"run claims --client acme --wait --json --redis {redis_server.url}")
    assert said.code == 1
    [run] = said.json
    [failure] = run["failures"]
    assert (failure["stage"], run["partitions"]["failed"]) == ("transform", 1)
    assert "1 s" in failure["error"] or "1s" in failure["error"]
    assert nothing_is_loaded(etl)


def test_a_folder_called_jobs_does_not_hide_ours_from_rq_worker(
    etl: Project, redis_server: RedisServer, real_redis: Redis, workers: StartWorkers
) -> None:
    """Without code in it nothing is hidden; with code, no run can be submitted and `rq-etl worker` says why."""
    etl.write("jobs/readme.txt", "mine")
    etl.write("etl/readme.txt", "mine")
    workers(1, cwd=etl.root)
    said = etl(f"run claims --client acme --wait --json --redis {redis_server.url}")
    assert said.code == 0, said.err
    etl.write("jobs/__init__.py", "")
    variables = {**WORKER_CLASSES, "REDIS_URL": redis_server.url, "RQ_REDIS_URL": redis_server.url}
    for module, code in (("rq.cli", 0), ("cli", 2)):
        done = subprocess.run(  # -P: as the scripts `rq` and `rq-etl` are started, which look nowhere first
            [sys.executable, "-P", "-m", module, "worker", "--burst"],
            cwd=etl.root, env={**os.environ, **variables, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert module == "rq.cli" or "jobs/__init__.py hides a part of rq-etl; rename it" in done.stderr
        assert "Traceback" not in done.stderr


def test_rq_etl_says_when_a_folder_hides_ours(etl: Project) -> None:
    etl.write("jobs/__init__.py", "")
    env = {**os.environ, "PYTHONPATH": str(etl.root) + os.pathsep + str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", "import rq_etl"], cwd=etl.root, env=env, capture_output=True, text=True
    )
    assert f"{etl.root}/jobs hides rq-etl's own jobs; rename it" in done.stderr


# --- the target ---


def target(etl: Project, url: str, *changes: tuple[str, str]) -> None:
    etl.config(ETL_TOML, ("sqlite:///warehouse.db", url), *changes)


def load_failed(etl: Project, code: int, *words: str, command: str = INLINE) -> None:
    said = etl(command)
    assert said.code == code, said.out + said.err
    [run] = etl(f"{command} --json").json
    assert run["state"] == "failed"
    assert "Traceback" not in said.out + said.err
    for word in words:
        assert word in run["error"]
    assert run["rows"]["loaded"] == 0


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://nobody:secret@127.0.0.1:1/nowhere",
        "postgresql:///nowhere?host=/nonexistent",
        "sqlite:///inbox",
    ],
)
def test_a_target_that_can_not_be_reached(etl: Project, url: str) -> None:
    target(etl, url)
    load_failed(etl, 3, "target warehouse")
    assert "secret" not in etl(INLINE).out


def test_a_name_in_the_url_that_is_not_in_the_environment(etl: Project) -> None:
    target(etl, "postgresql://etl:${WAREHOUSE_PASSWORD}@127.0.0.1:1/db")
    load_failed(etl, 1, "targets.warehouse.url", "WAREHOUSE_PASSWORD is not in the environment")


def test_a_target_file_that_is_no_database(etl: Project) -> None:
    etl.write("warehouse.db", "this is a letter, not a database; it is long enough to be looked at\n" * 9)
    load_failed(etl, 1, "target warehouse is no sound SQLite database")


def test_a_read_only_postgresql(etl: Project, pg_url: str) -> None:
    target(etl, pg_url + "&options=-cdefault_transaction_read_only%3Don")
    load_failed(etl, 1, "target warehouse", "read-only")


@pytest.fixture
def read_only(etl: Project) -> Iterator[Path]:
    """A folder that nothing can be written to, not even by root."""
    folder = etl.root / "locked"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "warehouse.db")) as made:
        made.execute("create table other (x)")
    if os.geteuid() != 0:
        for path in (folder / "warehouse.db", folder):
            path.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    bound = [["mount", "--bind", str(folder), str(folder)], ["mount", "-o", "remount,ro,bind", str(folder)]]
    if not all(subprocess.run(each, capture_output=True).returncode == 0 for each in bound):
        pytest.skip("root may write anywhere, and may not mount here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_read_only_sqlite(etl: Project, read_only: Path) -> None:
    target(etl, f"sqlite:///{read_only}/warehouse.db")
    load_failed(etl, 1, "target warehouse", "read-only")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_table_with_other_types(etl: Project, kind: str, request: pytest.FixtureRequest) -> None:
    table = "create table claims (claim_id text, amount date, _client text, _run text, _file text)"
    if kind == "sqlite":
        with closing(sqlite3.connect(etl.root / "warehouse.db")) as made:
            made.execute(table)
    else:
        url = request.getfixturevalue("pg_url")
        target(etl, url)
        with psycopg.connect(url, autocommit=True) as made_there:
            made_there.execute(table.encode())
    load_failed(etl, 1, "table claims, column amount", "DATE", "decimal", "declare type")


# --- Redis ---


def refused(etl: Project, url: str, *words: str) -> None:
    for command in ("run claims --client acme", "runs", "status", "workers", "worker", "doctor", "retry --failed"):
        said = etl(f"{command} --redis {url}")
        assert said.code == 3, command
        told = said.out if command == "doctor" else said.err
        assert "Traceback" not in told
        for word in words:
            assert word in told
    assert not (etl.root / ".rq-etl").exists(), "never fall back"
    assert nothing_is_loaded(etl)


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nonexistent/redis.sock"])
def test_redis_that_can_not_be_reached(etl: Project, url: str) -> None:
    refused(etl, url, url, "can't be reached")


def test_an_address_that_is_none(etl: Project) -> None:
    said = etl("runs --redis nonsense")
    assert said.code == 2
    assert is_short(said)


@pytest.fixture
def old_redis() -> Iterator[str]:
    """A server that answers every INFO as Redis 5 would, and all else with OK."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer = listening.accept()[0]
            except OSError:
                return
            threading.Thread(target=answer, args=(peer,), daemon=True).start()

    def answer(peer: socket.socket) -> None:
        info = b"# Server\r\nredis_version:5.0.14\r\n"
        with peer:
            while asked := peer.recv(65536):
                for command in asked.upper().split(b"*")[1:]:
                    if b"HELLO" in command:
                        peer.sendall(b"-ERR unknown command 'HELLO'\r\n")
                    elif b"\r\nINFO\r\n" in command:
                        peer.sendall(b"$%d\r\n%s\r\n" % (len(info), info))
                    else:
                        peer.sendall(b"+OK\r\n")

    threading.Thread(target=serve, daemon=True).start()
    yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"
    listening.close()


def test_redis_that_is_too_old(etl: Project, old_redis: str) -> None:
    refused(etl, old_redis, old_redis, "too old", "6.2")


@pytest.fixture
def locked_redis(server_folder: Path) -> Iterator[str]:
    """A redis-server that wants a password."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        give_up("no redis-server or valkey-server on PATH")
    path, log = server_folder / "locked.sock", server_folder / "locked.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", path, "--requirepass", "secret", "--dir", server_folder],
            stdout=out, stderr=out, preexec_fn=die_with_parent,
        )  # fmt: skip
    wait_until(path.exists, process, log)
    yield f"unix://{path}"
    process.kill()
    process.wait()


def test_redis_that_wants_a_password(etl: Project, locked_redis: str) -> None:
    refused(etl, locked_redis, "password")
    refused(etl, locked_redis.replace("unix://", "unix://:wrong-one@"), "password")
    assert etl(f"runs --redis {locked_redis.replace('unix://', 'unix://:secret@')}").code == 0


# --- staging ---


def test_staging_that_can_not_be_written(etl: Project) -> None:
    etl.write("staging", "a file stands where the folder should be")
    said = etl(INLINE)
    assert (said.code, is_short(said)) == (1, True)
    assert "staging" in said.err
    assert "settings.staging" in said.err
    assert etl.tables() == []


def test_staging_on_a_read_only_disk(etl: Project, read_only: Path) -> None:
    etl.config(ETL_TOML, ('staging = "staging"', f'staging = "{read_only}/staging"'))
    said = etl(INLINE)
    assert (said.code, is_short(said)) == (1, True)
    assert "settings.staging" in said.err
    assert etl.tables() == []


def test_staging_that_is_full(etl: Project) -> None:
    """A limit on the size of files is what a full disk is, to any user."""
    etl.write(
        "inbox/acme/claims-1.csv", "claim_id,amount\n" + "".join(f"{os.urandom(40).hex()},1\n" for _ in range(9000))
    )
    code = (
        "import resource, signal, sys, cli\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"sys.argv = ['rq-etl', *{INLINE.split()!r}, '--json']\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=etl.root,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "staging" in done.stdout
    assert "make room" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert etl.tables() == []

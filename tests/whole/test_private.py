"""Rows stay out of Redis, logs, descriptions and outputs, whatever goes wrong with them; so do secrets."""

import base64
import json
import os
import sqlite3
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis

from etl.config.pipeline import resolve
from jobs.api import Run
from jobs.run.submit import submit_run
from jobs.session import Session
from tests.helpers.processes import ROOT
from tests.helpers.workers import StartWorkers

pytestmark = pytest.mark.slow

MARK = "zq7mark"  # in every cell of every file, and in nothing else
PASSWORD = "hunter2zq"
PATIENCE = 60.0

STEPS = """
from rq_etl import EtlError, reject

def quote(df):
    raise ValueError(f"could not convert {df.iloc[0, 0]!r}")

def exit(df):
    raise SystemExit(f"cannot go on with {df.iloc[0, 0]!r}")

def say(df):
    raise EtlError(f"bad row {df.iloc[0, 0]!r}", f"remove {df.iloc[0, 0]!r}")

class Odd(Exception):
    def __init__(self, value):
        super().__init__(value)
        type(self).__qualname__ = "Odd"

def chain(df):
    try:
        int(df.iloc[0, 0])
    except ValueError as error:
        raise Odd(df.iloc[0, 0]) from error

def turn_down(df):
    return reject(df, df["amount"] == 4, reason="not by us", column="amount")

def lose_index(df):
    return df.reset_index(drop=True)

def insert(df, connection):
    raise RuntimeError(f"no place for {df.iloc[0, 0]!r}")

def speak(df):
    import logging, subprocess, sys, threading, warnings
    print(f"{df.iloc[0, 0]}")
    warnings.warn(f"{df.iloc[0, 0]}")
    logging.getLogger("x").error(f"{df.iloc[0, 0]}")
    subprocess.run(["echo", df.iloc[0, 0]])
    threading.Thread(target=print, args=(df.iloc[0, 0],)).start()
    return df

class Mine(EtlError):
    def __str__(self):
        return "zq7mark mine"

def say_own(df):
    raise Mine("zq7mark", "zq7mark")

def say_as_config(df):
    from etl.errors import ConfigError
    raise ConfigError("zq7mark", mistakes=("zq7mark",))

def evaluate(df):
    raise SyntaxError(f"{df.iloc[0, 0]}")

def extract():
    yield [{"id": "zq7mark", "amount": 1}]
    raise ValueError("zq7mark can't be read")
"""

COLUMNS = """
id = { type = "string", required = true, pattern = "zq7mark.*" }
amount = { type = "decimal", min = 0 }
kind = { type = "string", allowed = ["zq7marked", "other"] }
day = { type = "date" }
"""

GOOD = f"id,amount,kind,day\n{MARK}1,1,{MARK}ed,2026-01-01\n{MARK}2,4,{MARK}ed,2026-01-02\n"
BAD = (
    f"{MARK}3,{MARK},{MARK}ed,2026-01-01\n{MARK}4,-1,{MARK}ed,2026-01-01\n{MARK}5,1,{MARK}x,2026-01-01\n"
    f"{MARK}6,1,{MARK}ed,{MARK}\n{MARK}7,1\n{MARK}8,1,2,3,4,{MARK}\n"
    f'{MARK}9,"{MARK}"{MARK},a,b\n{MARK}\0,1,{MARK}ed,2026-01-01\n'
)

PLAIN = ("headerless_plain", "headerless_key", "headerless_new", "headerless_long", "headerless_wide", "extracted")
# Pipeline → what is special about it, and the client's file.
CASES: dict[str, tuple[str, str]] = {
    "fine": ("", GOOD),
    "rejected": ("", GOOD + BAD),
    "reject_call": ('transform = ["steps:turn_down"]', GOOD),
    "raises": ('transform = ["steps:quote"]', GOOD),
    "exits": ('transform = ["steps:exit"]', GOOD),
    "says": ('transform = ["steps:say"]', GOOD),
    "says_own": ('transform = ["steps:say_own"]', GOOD),
    "says_as_config": ('transform = ["steps:say_as_config"]', GOOD),
    "evaluates": ('transform = ["steps:evaluate"]', GOOD),
    "speaks": ('transform = ["steps:speak"]', GOOD),
    "chains": ('transform = ["steps:chain"]', GOOD),
    "index": ('transform = ["steps:lose_index"]', GOOD),
    "headerless": ("", GOOD.partition("\n")[2]),
    "headerless_twice": ("", f"{MARK}1,{MARK}1\n"),
    "headerless_plain": ("", GOOD.partition("\n")[2]),
    "headerless_near": ("", f"kind,{MARK}1,{MARK}2,{MARK}3\n{MARK},1,2,3\n"),
    "headerless_key": (
        'load = { target = "warehouse", table = "headerless_key", mode = "merge", key = ["id"] }',
        f"{MARK}1,{MARK}2\n{MARK}3,1\n",
    ),
    "headerless_new": ('new_columns = "fail"', f"{MARK}1,{MARK}2\n{MARK}3,1\n"),
    "headerless_long": ("", f"{MARK}{'x' * 80},{MARK}2\n{MARK}3,1\n"),
    "headerless_wide": ("", ",".join(f"{MARK}{n}" for n in range(2000)) + f"\n{MARK}{',1' * 1999}\n"),
    "unclosed": ("", GOOD + f'{MARK}7,"{MARK}\n{MARK}8,1,{MARK}ed,2026-01-01\n'),
    "latin": ("", GOOD + f"{MARK}ä,1,{MARK}ed,2026-01-01\n"),
    "constraint": ("", GOOD),
    "typed": ("", GOOD),
    "short": ("", GOOD),
    "loaded_by": ('load = { target = "warehouse", table = "loaded_by", function = "steps:insert" }', GOOD),
    "extracted": ('extract = { type = "function", function = "steps:extract" }', ""),
}
TABLES = (
    "CREATE TABLE headerless_new (id text, amount numeric, kind text, day date)",
    'CREATE TABLE "constraint" (id text, amount numeric CHECK (amount > 100), kind text, day date)',
    "CREATE TABLE typed (id bigint, amount numeric, kind text, day date)",
    "CREATE TABLE short (id varchar(3), amount numeric, kind text, day date)",
)


@pytest.fixture
def secret_redis(server_folder: Path, workers: StartWorkers, real_redis: Redis) -> Iterator[str]:
    """The URL of a Redis that wants a password."""
    real_redis.config_set("requirepass", PASSWORD)
    real_redis.auth(PASSWORD)
    url = workers.url.replace("unix://", f"unix://:{PASSWORD}@")
    yield url
    with Redis.from_url(url) as client:
        client.config_set("requirepass", "")


def write_project(folder: Path, url: str) -> None:
    """Write a pipeline for each case; the target's password is in the environment only."""
    login = url.replace("postgresql://postgres@", "postgresql://postgres:${WAREHOUSE_PASSWORD}@")
    text = f'[settings]\nstaging = "staging"\nmodules = ["steps"]\n[targets.warehouse]\nurl = "{login}"\n'
    for name, (special, content) in CASES.items():
        parts = {
            "extract": f'{{ type = "csv", path = "inbox/{{client}}/{name}.csv", settle = 0 }}',
            "transform": "[]",
            "load": f'{{ target = "warehouse", table = "{name}", mode = "append" }}',
        }
        if special:
            key, _, value = special.partition(" = ")
            parts[key] = value
        text += f"[pipelines.{name}]\nretries = 1\nretry_delays = [0]\n"
        text += "".join(f"{key} = {value}\n" for key, value in parts.items())
        if name not in PLAIN:
            text += f"[pipelines.{name}.columns]\n{COLUMNS}"
        file = folder / "inbox" / "acme" / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode("latin-1"))
    names = ", ".join(f'"{name}"' for name in CASES)
    (folder / "etl.toml").write_text(text + f"[clients.acme]\npipelines = [{names}]\n")
    (folder / "steps.py").write_text(STEPS)


def everything(connection: Any) -> Iterator[tuple[str, bytes]]:
    """Yield all that Redis has, key by key: names and contents, and what is packed in them unpacked."""
    for key in connection.scan_iter(count=1000):
        kind = connection.type(key).decode()
        parts: list[Any] = [key]
        if kind == "string":
            parts.append(connection.get(key))
        elif kind == "hash":
            parts += [part for pair in connection.hgetall(key).items() for part in pair]
        elif kind == "list":
            parts += connection.lrange(key, 0, -1)
        elif kind == "set":
            parts += connection.smembers(key)
        elif kind == "zset":
            parts += [member for member, _ in connection.zrange(key, 0, -1, withscores=True)]
        elif kind == "stream":
            parts += [part for _, fields in connection.xrange(key) for pair in fields.items() for part in pair]
        elif kind != "none":  # expired meanwhile
            raise AssertionError(f"{key!r} is a {kind}, which this test can't read")
        for part in parts:
            yield key.decode(), part
            yield from ((key.decode(), unpacked) for unpacked in unpack(part))


def unpack(part: bytes) -> Iterator[bytes]:
    """Yield what a value holds in zlib, plain or in base64."""
    for decode in (lambda b: b, base64.b64decode):
        try:
            yield zlib.decompress(decode(part))
        except (ValueError, zlib.error):
            continue


def assert_without(words: tuple[str, ...], found: Iterator[tuple[str, bytes]]) -> None:
    """Fail with the places, and a little of their text, where one of the words is."""
    assert [(where, text[:400]) for where, text in found if any(word.encode() in text for word in words)] == []


def files(folder: Path, *patterns: str) -> Iterator[tuple[str, bytes]]:
    for pattern in patterns:
        for file in folder.glob(pattern):
            if file.is_file():
                yield str(file.relative_to(folder)), file.read_bytes()


def commands(folder: Path, redis: str, ids: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield what the commands print, both ways; not `rejects --rows` and `logs`, which show rows to their owner."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": redis, "WAREHOUSE_PASSWORD": PASSWORD}
    lines = [["runs"], ["status"], ["workers"], ["doctor"], ["validate"], *(["rejects", id] for id in ids[:2])]
    lines += [["show", id] for id in ids]
    script = (
        "import sys, cli\n"
        "for line in sys.argv[1].split(';'):\n"
        "    sys.argv[1:] = line.split()\n"
        "    try: cli.main()\n"
        "    except SystemExit: pass\n"
    )
    for options in ([], ["--json"]):
        text = ";".join(" ".join([*line, *options]) for line in lines)
        command = [sys.executable, "-P", "-c", script, text]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True)
        assert b"Traceback" not in done.stderr
        yield f"rq-etl {' '.join(options)}", done.stdout + done.stderr
    away = redis.replace("redis.sock", "none.sock")
    for line in (["runs", "--json"], ["run", "fine", "--client", "acme"], ["runs", "--redis", away]):
        env = {**environment, "REDIS_URL": away}
        done = subprocess.run([sys.executable, "-P", "-m", "cli", *line], cwd=folder, env=env, capture_output=True)
        assert done.returncode == 3
        yield f"rq-etl {line[0]} without Redis", done.stdout + done.stderr


def test_no_value_of_a_row_and_no_secret_leaves_files_and_target(
    pg_url: str, secret_redis: str, workers: StartWorkers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(tmp_path, pg_url)
    with psycopg.connect(pg_url) as database:
        for statement in TABLES:
            database.execute(statement)
    workers.url = secret_redis
    workers(2, env={"ETL_CONFIG": str(tmp_path / "etl.toml"), "WAREHOUSE_PASSWORD": PASSWORD})
    session = Session(tmp_path / "etl.toml", secret_redis, workers=0)
    ids = {name: submit_run(session.connection, resolve(session.config, name, "acme")) for name in CASES}
    runs = {name: Run(session, id).wait(PATIENCE) for name, id in ids.items()}
    succeeded = {name for name, run in runs.items() if run.state == "succeeded"}
    assert succeeded == {"fine", "rejected", "reject_call", "headerless_plain", "unclosed", "speaks"}, {
        n: r.error for n, r in runs.items()
    }
    assert any(MARK in str(reject) for reject in runs["rejected"].rejects())  # the rows are kept, in staging

    secrets = (PASSWORD,)
    words = (MARK, *secrets)
    assert_without(words, everything(session.connection))
    assert_without(words, files(tmp_path, "*.log", ".rq-etl/*.log"))
    assert_without(words, commands(tmp_path, secret_redis, list(ids.values())))
    assert_without(words, ((name, json.dumps(run.json()).encode()) for name, run in runs.items()))
    assert_without(secrets, files(tmp_path / "staging", "**/*"))
    session.close()


def test_no_value_of_a_row_reaches_redis_from_jobs_in_this_process(fake_redis: Redis, tmp_path: Path) -> None:
    """The same without workers and servers, so that it is asked at every change."""
    write_project(tmp_path, f"sqlite:///{tmp_path}/target.db")
    with closing(sqlite3.connect(tmp_path / "target.db")) as database:
        for statement in TABLES:
            database.execute(statement)
    session = Session(tmp_path / "etl.toml", fake_redis)
    runs = [
        Run(session, submit_run(fake_redis, resolve(session.config, name, "acme"))).wait(PATIENCE) for name in CASES
    ]
    assert {run.state for run in runs} == {"succeeded", "failed"}
    assert_without((MARK,), everything(fake_redis))
    assert_without((MARK,), ((run.pipeline, json.dumps(run.json()).encode()) for run in runs))
    session.close()


def test_what_stages_raised_is_kept_whole_where_only_its_owner_can_read_it(fake_redis: Redis, tmp_path: Path) -> None:
    write_project(tmp_path, f"sqlite:///{tmp_path}/target.db")
    os.umask(0o002)
    session = Session(tmp_path / "etl.toml", fake_redis)
    for name in ("raises", "rejected"):
        Run(session, submit_run(fake_redis, resolve(session.config, name, "acme"))).wait(PATIENCE)
    staging = tmp_path / "staging"
    kept = list(staging.rglob("*"))
    assert any(MARK in path.read_text() for path in kept if path.name.endswith(".error.txt"))
    modes = {path.relative_to(staging): stat.S_IMODE(path.stat().st_mode) for path in kept}
    assert {path: oct(mode) for path, mode in modes.items() if mode not in (0o600, 0o700)} == {}
    assert stat.S_IMODE(staging.stat().st_mode) == 0o700
    session.close()

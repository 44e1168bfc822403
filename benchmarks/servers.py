"""Private servers and workers for the benchmarks, as the tests have them, but PostgreSQL syncs to disk as it ships."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
from redis import Redis

from jobs.process.supervisor import worker_command
from jobs.settings import worker_variables
from tests.helpers.postgres import as_postgres, postgres_program
from tests.helpers.processes import die_with_parent, kill_session

ROOT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Give a temporary folder that every user may look into; unix sockets need a short path."""
    path = Path(tempfile.mkdtemp(prefix="bench-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def until(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Poll until something is so."""
    give_up = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what}: not after {seconds} s")
        time.sleep(0.005)


@contextlib.contextmanager
def redis_server(where: Path) -> Iterator[str]:
    """Run a redis-server on a unix socket, with the append-only file that a private broker has; give its URL."""
    path = where / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(where), "--save", ""]
    process = subprocess.Popen(
        [*command, "--appendonly", "yes"], stdout=subprocess.DEVNULL, preexec_fn=die_with_parent, start_new_session=True
    )
    until(path.exists, "redis-server")
    try:
        yield f"unix://{path}"
    finally:
        kill_session(process)


@contextlib.contextmanager
def postgresql(where: Path) -> Iterator[Callable[[str], str]]:
    """Run a PostgreSQL with its usual settings; give a function that makes a database and returns its URL."""
    identity = as_postgres()
    home = where / "pg"
    home.mkdir(mode=0o755)
    if identity:
        os.chown(home, identity["user"], identity["group"])
    data, log = home / "data", (where / "pg.log").open("wb")
    subprocess.run(
        [postgres_program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"],
        check=True, stdout=log, stderr=log, cwd="/", **identity,
    )  # fmt: skip
    settings = {"listen_addresses": "", "unix_socket_directories": home, "max_wal_size": "4GB"}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    process = subprocess.Popen(
        [postgres_program("postgres"), "-D", data, *options],
        stdout=log, stderr=log, cwd="/", preexec_fn=die_with_parent, start_new_session=True, **identity,
    )  # fmt: skip
    admin = f"postgresql://postgres@/postgres?host={home}"

    def answers() -> bool:
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(admin):
            return True
        return False

    def database(name: str) -> str:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {name}".encode())
        return admin.replace("/postgres?", f"/{name}?")

    until(answers, "PostgreSQL")
    try:
        yield database
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait()


@contextlib.contextmanager
def workers(url: str, count: int, cwd: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run our workers in a folder until the block ends; they are up when it begins."""
    variables = {
        **os.environ,
        **worker_variables(url, cwd / "etl.toml"),
        "PYTHONPATH": str(ROOT),
    }
    with processes([worker_command("--quiet")] * count, cwd, variables) as started:
        ready(url, count)
        yield started


@contextlib.contextmanager
def processes(
    commands: list[list[str]], cwd: Path, environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run commands until the block ends; what they print is in `processes.log`."""
    log = (cwd / "processes.log").open("ab")
    started = []
    for command in commands:
        process = subprocess.Popen(
            command, cwd=cwd, env={**environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        started.append(process)
    try:
        yield started
    finally:
        for process in started:
            process.send_signal(signal.SIGTERM)
        for process in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            kill_session(process)


def processor_seconds(*sessions: int) -> float:
    """Return the processor time so far of the processes of sessions, or single ones, and of what they waited for."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[3]) in sessions or int(stat.parent.name) in sessions:
                ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def ready(url: str, count: int) -> None:
    """Wait until so many RQ workers are idle."""
    connection = Redis.from_url(url)

    def idle() -> bool:
        states = [connection.hget(key, "state") for key in connection.smembers("rq:workers")]
        return states.count(b"idle") >= count

    until(idle, "workers")
    time.sleep(3)  # a horse imports pandas while its worker is idle already


def report(title: str, rows: list[tuple[str, ...]]) -> None:
    """Print a table in Markdown; the first row is its head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    print(f"\n{title}\n")
    for number, row in enumerate(rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if not number:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    sys.stdout.flush()

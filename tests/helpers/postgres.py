"""PostgreSQL for tests: a private server without a network port, and an empty database for each test."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.helpers.processes import PATIENCE, die_with_parent, give_up, wait_until


def postgres_program(name: str) -> str:
    """Return the path of one of PostgreSQL's programs: Debian keeps them off PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name, reverse=True)
    search = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    found = shutil.which(name, path=search)
    if found is None:
        give_up(f"no {name} of PostgreSQL in /usr/lib/postgresql or on PATH")
    return found


def as_postgres() -> dict[str, Any]:
    """Return Popen's arguments to run as a user that PostgreSQL accepts: it refuses root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        give_up("PostgreSQL refuses to run as root, and there is no user postgres")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="session")
def postgres_url(server_folder: Path) -> Iterator[str]:
    """A private PostgreSQL on a unix socket, for the whole session; the URL is its maintenance database's."""
    initdb, postgres, identity = postgres_program("initdb"), postgres_program("postgres"), as_postgres()
    folder = server_folder / "pg"
    folder.mkdir(mode=0o700)
    if identity:
        os.chown(folder, identity["user"], identity["group"])
    folder.chmod(0o755)
    data, log = folder / "data", server_folder / "postgres.log"
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": folder,
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "wal_level": "minimal",
        "max_wal_senders": 0,
        "autovacuum": "off",
        "max_connections": 60,
        "shared_buffers": "32MB",
        "timezone": "UTC",
    }
    with log.open("wb") as out:
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, stdout=out, stderr=out, cwd="/", **identity,
        )  # fmt: skip
        process = subprocess.Popen(
            [postgres, "-D", data, *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))],
            stdout=out, stderr=out, cwd="/", start_new_session=True, preexec_fn=die_with_parent, **identity,
        )  # fmt: skip
    url = f"postgresql://postgres@/postgres?host={folder}"

    def answers() -> bool:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(answers, process, log)
    yield url
    process.send_signal(signal.SIGQUIT)  # at once, and it takes its own children along
    process.wait(PATIENCE)


@pytest.fixture(scope="session")
def postgres_database(postgres_url: str) -> str:
    """The URL of a database that one test after another has to itself."""
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE test_1")
    return postgres_url.replace("/postgres?", "/test_1?")


def empty(admin_url: str, url: str) -> None:
    """Empty the test's database: making a new one takes twenty times as long."""
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'test_1'")
        admin.execute("ALTER DATABASE test_1 RESET ALL")
    with psycopg.connect(url, autocommit=True, options="-c lock_timeout=20s -c client_min_messages=error") as database:
        schemas = database.execute(
            "SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)'"
        ).fetchall()
        for (schema,) in schemas:
            database.execute(f"DROP SCHEMA {schema} CASCADE".encode())
        database.execute("CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")


@pytest.fixture
def pg_url(postgres_url: str, postgres_database: str) -> Iterator[str]:
    """An empty PostgreSQL database of this test's own."""
    yield postgres_database
    empty(postgres_url, postgres_database)


@pytest.fixture(params=["sqlite", "postgresql"])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same test with an SQLite file and with a PostgreSQL database as the target."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/target.db"
    url: str = request.getfixturevalue("pg_url")
    return url

"""The target's URL is filled in workers; what can't be reached or written is told, without secrets."""

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from etl.config.models import Target
from etl.errors import ConfigError, TargetBusy, TargetRefused, TargetUnreachable
from etl.load import check_target, resolve_url
from etl.load.targets.connect import transaction
from tests.helpers.deliveries import chunk, connected, deliver, pipeline, query


def resolved(url: str, **environ: str) -> str:
    return resolve_url(Target(name="warehouse", url=url), "acme", "/etl", environ)


def test_a_relative_sqlite_path_is_relative_to_the_configuration() -> None:
    assert resolved("sqlite:///data/{client}.db") == "sqlite:////etl/data/acme.db"
    assert resolved("sqlite:////abs/x.db") == "sqlite:////abs/x.db"


def test_the_environments_values_are_filled_in() -> None:
    assert resolved("${URL}", URL="postgres://u:p@h/d") == "postgresql://u:p@h/d"
    filled = resolved("postgresql://${WHO}:${SECRET}@${HOST}/d?host=/run", WHO="u", SECRET="p@ss/w:rd%", HOST="h:5432")
    assert filled == "postgresql://u:p%40ss%2Fw%3Ard%25@h:5432/d?host=%2Frun"


def test_a_name_that_is_not_in_the_environment_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"targets\.warehouse\.url: SECRET is not in the environment"):
        resolved("postgresql://u:${SECRET}@h/d")


@pytest.mark.parametrize("url", ["mysql://root:secret@h/d", "nonsense secret", "sqlite://"])
def test_what_is_no_target_is_reported_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="warehouse") as told:
        resolved("${URL}", URL=url)
    assert "secret" not in str(told.value)


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"postgresql://user:secret@127.0.0.1:{free.getsockname()[1]}/d"
        with pytest.raises(TargetUnreachable, match="target warehouse can't be reached") as told:
            deliver(url, pipeline(), chunk([{"id": 1}]))
    assert "secret" not in str(told.value)
    assert told.value.retryable
    assert told.value.exit_code == 3


def test_a_database_that_does_not_exist_is_unreachable(pg_url: str) -> None:
    with pytest.raises(TargetUnreachable, match="does not exist"):
        check_target(pg_url.replace("/test_", "/nothing_"))


def test_a_target_says_what_it_is(target_url: str) -> None:
    if target_url.startswith("sqlite"):
        assert check_target(target_url) == "SQLite, target.db will be made by the first load"
    deliver(target_url, pipeline(), chunk([{"id": 1}]))
    assert check_target(target_url).startswith(("SQLite 3.", "PostgreSQL 1"))
    assert query(target_url, "SELECT count(*) FROM claims_acme") == [(1,)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_sqlite_file_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/target.db"
    deliver(url, pipeline(), chunk([{"id": 1}]))
    (tmp_path / "target.db").chmod(0o400)
    for call in (lambda: check_target(url), lambda: deliver(url, pipeline(), chunk([{"id": 1}]), run="r2")):
        with pytest.raises(TargetRefused, match="read-only"):
            call()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target.db").write_text("not a database, however long this text may be" * 100)
    with pytest.raises(TargetRefused, match="no sound SQLite database"):
        check_target(f"sqlite:///{tmp_path}/target.db")


def test_a_database_that_is_read_only_is_refused(pg_url: str) -> None:
    (name,) = query(pg_url, "SELECT current_database()")[0]
    query(pg_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(TargetRefused, match="read-only"):
        deliver(pg_url, pipeline(), chunk([{"id": 1}]))


def test_a_user_without_rights_is_refused(pg_url: str) -> None:
    query(pg_url, "DROP ROLE IF EXISTS reader")
    query(pg_url, "CREATE ROLE reader LOGIN")
    with pytest.raises(TargetRefused, match="does not permit"):
        check_target(pg_url.replace("postgres@", "reader@"))


def test_a_locked_database_is_busy(target_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.load.targets.sqlite.WAIT", 0.05)
    deliver(target_url, pipeline(), chunk([{"id": 1}]))
    if target_url.startswith("postgresql"):
        (name,) = query(target_url, "SELECT current_database()")[0]
        query(target_url, f"ALTER DATABASE {name} SET lock_timeout = '50ms'")
    with connected(target_url) as other:
        other.exec_driver_sql("BEGIN IMMEDIATE" if target_url.startswith("sqlite") else "LOCK TABLE claims_acme")
        with pytest.raises(TargetBusy) as told:
            deliver(target_url, pipeline("replace"), chunk([{"id": 1}]), run="r2")
    assert told.value.retryable


def test_a_connection_that_is_cut_is_busy(pg_url: str) -> None:
    with pytest.raises(TargetBusy, match=r"closed the connection|was cut"), transaction(pg_url) as connection:  # noqa: PT012
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
        with psycopg.connect(pg_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        connection.exec_driver_sql("SELECT 1")


def test_of_two_transactions_that_wait_for_each_other_one_is_busy(pg_url: str) -> None:
    query(pg_url, "CREATE TABLE t AS SELECT 1 AS id UNION SELECT 2")
    (name,) = query(pg_url, "SELECT current_database()")[0]
    query(pg_url, f"ALTER DATABASE {name} SET deadlock_timeout = '10ms'")
    both = threading.Barrier(2)

    def one(first: int) -> str:
        try:
            with transaction(pg_url) as connection:
                connection.exec_driver_sql(f"SELECT * FROM t WHERE id = {first} FOR UPDATE")
                both.wait(30)
                connection.exec_driver_sql(f"SELECT * FROM t WHERE id = {3 - first} FOR UPDATE")
        except TargetBusy as error:
            return error.what
        return ""

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(one, [1, 2])) == ["", "the target: deadlock with another transaction"]


def test_times_are_meant_in_utc_whatever_the_servers_zone(pg_url: str) -> None:
    (name,) = query(pg_url, "SELECT current_database()")[0]
    query(pg_url, f"ALTER DATABASE {name} SET timezone = 'America/Chicago'")
    moment = datetime(2024, 7, 1, 12, tzinfo=UTC)
    deliver(pg_url, pipeline(), chunk([{"at": moment}]))
    deliver(pg_url, pipeline("merge", key="at"), chunk([{"at": moment}]), run="r2")
    assert query(pg_url, "SELECT at FROM claims_acme") == [(moment,)]

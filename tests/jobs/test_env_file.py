"""A project's `.env`: how it is read, when it is in the environment, and what it never does."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from etl.config.pipeline import Config
from etl.config.urls import database_url
from etl.env_file import read
from etl.errors import ConfigError
from jobs import settings
from jobs.process import surroundings
from jobs.process.supervisor import Supervisor
from jobs.session import Session, session
from tests.helpers.project import ETL_TOML, Folder, etl_toml


@pytest.fixture(autouse=True)
def nothing_of_it_is_left() -> Iterator[None]:
    """What a `.env` has added is taken back when another project is in use."""
    yield
    settings.use(None)
    assert {"SECRET", "ONLY_A", "ONLY_B", "TZ"}.isdisjoint(os.environ)


def project(folder: Path, env: str | bytes = "") -> Folder:
    """Write a project with a `.env`."""
    folder.mkdir(exist_ok=True)
    return Folder(folder, ETL_TOML, {".env": env})


# --- its syntax ---


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("export A=b", "b"),
        ("  A = b  ", "b"),
        ("A='b c' # said", "b c"),
        ('A="b\\nc"', "b\nc"),
        ('A="b\nc"', "b\nc"),
        ("A=pa#ss", "pa#ss"),
        ("A=b # said", "b"),
        ("A=", ""),
        ("A=redis://:p@ss'word@h:1/0", "redis://:p@ss'word@h:1/0"),
        ("A=pa$$word", "pa$$word"),
        ("B=x\nA=${B}y", "xy"),
        ("A=${NOWHERE:-z}", "z"),
        ("A=1\nA=2", "2"),
        ("# said\n\nA=b\r\nB=c\r\n", "b"),
        ("\ufeffA=é", "é"),
    ],
)
def test_it_is_read_as_python_dotenv_reads_it(tmp_path: Path, line: str, value: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes(line.encode())
    assert read(file, {})["A"] == value


def test_the_environment_wins_within_a_value_too(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("HOST=a\nURL=redis://${HOST}\n")
    assert read(file, {"HOST": "b"}) == {"HOST": "a", "URL": "redis://b"}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"A=1\nhunter2 hunter2\n", 2),
        (b"\n\n# said\n\nPASSWORD\n", 5),
        (b"\r\n\r\nPASSWORD hunter2\r\n", 3),
        (b'A=1\nPASSWORD="hunter2\nB=2\n', 2),
        (b"PASSWORD='hunter2'hunter2\n", 1),
        (b"A=1\n=hunter2\n", 2),
        (b"A=hunter2${NOWHERE}\n", 1),
        (b"A=1\nA=hunter2\0\n", 2),
        (b"A=1\nB=2\nPASSWORD=hunter2\xe4\n", 3),
        ("A=1\nPASSWORD=hunter2\n".encode("utf-16"), 1),
    ],
)
def test_a_mistake_is_one_line_with_its_place_and_without_a_value(tmp_path: Path, content: bytes, line: int) -> None:
    file = tmp_path / ".env"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(file, {})
    assert caught.value.what.startswith(f"{file}, line {line}: ")
    assert "\n" not in caught.value.what
    assert caught.value.cure
    assert "hunter2" not in str(caught.value)


def test_a_folder_of_that_name_is_nobodys_mistake(tmp_path: Path) -> None:
    """Some keep a virtual environment there."""
    (tmp_path / ".env").mkdir()
    assert read(tmp_path / ".env", {}) == {}


def test_one_that_may_not_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").touch()

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError, match=r"\.env can't be read: Permission denied"):
        read(tmp_path / ".env", {})


# --- what is done with it ---


def test_what_it_sets_is_set_for_all_that_asks(tmp_path: Path) -> None:
    project(tmp_path, "REDIS_URL=redis://a\nETL_LEASE=3\nETL_DASHBOARD_PASSWORD=p\nSECRET=s@/\n")
    assert (settings.redis_url(), settings.lease(), settings.dashboard_password()) == ("redis://a", 3.0, "p")
    assert os.environ["SECRET"] == "s@/"
    assert settings.origin("SECRET") == ".env"
    url = database_url("postgresql://u:${SECRET}@h/d", "targets.w.url", "acme", tmp_path)
    assert url == "postgresql://u:s%40%2F@h/d"


def test_what_the_configuration_names_is_there_once_it_is_read(tmp_path: Path) -> None:
    project(tmp_path, "SECRET=s\n")
    settings.config()
    assert os.environ["SECRET"] == "s"


def test_the_environment_wins_even_where_it_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "")
    monkeypatch.setenv("ETL_LEASE", "5")
    project(tmp_path, "REDIS_URL=redis://a\nETL_LEASE=3\n")
    assert (settings.redis_url(), settings.lease()) == (None, 5.0)
    assert settings.origin("ETL_LEASE") == "the environment"
    assert settings.overruled() == {"REDIS_URL", "ETL_LEASE"}


def test_one_project_has_nothing_of_anothers(tmp_path: Path) -> None:
    first = project(tmp_path / "a", "REDIS_URL=redis://a\nONLY_A=1\n")
    assert settings.redis_url() == "redis://a"
    project(tmp_path / "b", "REDIS_URL=redis://b\nONLY_B=1\n")
    assert settings.redis_url() == "redis://b"
    assert ("ONLY_A" in os.environ, os.environ["ONLY_B"]) == (False, "1")
    settings.use(first.path)
    assert (settings.redis_url(), os.environ["ONLY_A"], "ONLY_B" in os.environ) == ("redis://a", "1", False)


def test_what_a_script_has_set_since_is_its_own(tmp_path: Path) -> None:
    project(tmp_path, "REDIS_URL=redis://a\n")
    assert settings.redis_url() == "redis://a"
    os.environ["REDIS_URL"] = "redis://mine"
    try:
        settings.use(None)
        assert os.environ["REDIS_URL"] == "redis://mine"
    finally:
        del os.environ["REDIS_URL"]


def test_it_is_read_anew_by_the_next_command_and_not_before(tmp_path: Path) -> None:
    """An editor's half-written file ends no worker."""
    made = project(tmp_path, "ETL_LEASE=3\n")
    assert settings.lease() == 3
    made.write(".env", "ETL_LEASE\n")
    assert settings.lease() == 3
    made.write(".env", "ETL_LEASE=4\n")
    settings.use(made.path)
    assert settings.lease() == 4


def test_a_mistake_is_told_again_until_it_is_corrected(tmp_path: Path) -> None:
    made = project(tmp_path, "ETL_LEASE\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="line 1"):
            settings.lease()
    made.write(".env", "ETL_LEASE=4\n")
    assert settings.lease() == 4


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "inf"])
def test_a_lease_that_is_no_number_of_seconds_is_a_mistake(tmp_path: Path, seconds: str) -> None:
    project(tmp_path, f"ETL_LEASE={seconds}\n")
    with pytest.raises(ConfigError, match="no number of seconds"):
        settings.lease()


def test_a_time_zone_in_it_is_that_of_the_process(tmp_path: Path) -> None:
    before = time.tzname
    project(tmp_path, "TZ=XYZ-5\n")
    settings.environment()
    assert time.tzname[0] == "XYZ"
    settings.use(None)
    assert time.tzname == before


def test_it_may_name_another_etl_toml_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = project(tmp_path, "ETL_CONFIG=live.toml\nREDIS_URL=redis://a\n")
    made.write("live.toml", ETL_TOML)
    monkeypatch.chdir(tmp_path)
    settings.use(None)
    assert settings.path() == tmp_path / "live.toml"
    assert settings.redis_url() == "redis://a"
    assert settings.origin("ETL_CONFIG") == ".env"
    assert settings.worker_environment("redis://a")["ETL_CONFIG"] == str(tmp_path / "live.toml")
    settings.use(made.path)
    assert settings.path() == made.path


def test_it_can_not_name_another_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That has a .env of its own, and one of the two would be passed over."""
    project(tmp_path, "ETL_CONFIG=conf/etl.toml\n")
    monkeypatch.chdir(tmp_path)
    settings.use(None)
    with pytest.raises(ConfigError, match="ETL_CONFIG names another folder's file") as caught:
        settings.config()
    assert str(tmp_path / "conf") in caught.value.cure


def test_children_are_given_it(tmp_path: Path) -> None:
    project(tmp_path, "SECRET=s\nRQ_REDIS_URL=redis://other\n")
    given = settings.worker_environment("redis://a")
    assert (given["SECRET"], given["RQ_REDIS_URL"], given["REDIS_URL"]) == ("s", "redis://a", "redis://a")


def test_a_worker_that_is_replaced_has_what_the_first_had(tmp_path: Path) -> None:
    """Whichever project is in use by then."""
    project(tmp_path / "a", "SECRET=a\n")
    supervisor = Supervisor("redis://a")
    project(tmp_path / "b", "SECRET=b\n")
    settings.environment()
    assert supervisor._environment["SECRET"] == "a"
    assert supervisor._environment["ETL_CONFIG"] == str(tmp_path / "a" / "etl.toml")


def test_a_function_that_uses_another_project_leaves_this_one_as_it_was(tmp_path: Path) -> None:
    other = project(tmp_path / "b", "SECRET=b\nONLY_B=1\n")
    project(tmp_path / "a", "SECRET=a\n")
    settings.environment()
    with surroundings.restored():
        settings.use(other.path)
        assert settings.environment()["SECRET"] == "b"
    assert (settings.environment()["SECRET"], "ONLY_B" in os.environ) == ("a", False)
    with surroundings.restored():
        os.environ["SECRET"] = "mine"
    assert os.environ["SECRET"] == "a"


def test_it_is_there_while_a_function_is_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path / "a", "SECRET=a\n")
    monkeypatch.chdir(tmp_path / "a")
    settings.use(None)
    with surroundings.restored():
        os.chdir(tmp_path)
        assert settings.environment()["SECRET"] == "a"
    assert settings.environment()["SECRET"] == "a"


def test_a_worker_whose_folder_is_gone_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    settings.use(None)
    (tmp_path / "gone" / ".env").write_text("ETL_LEASE=3\n")
    assert settings.lease() == 3
    (tmp_path / "gone" / ".env").unlink()
    (tmp_path / "gone").rmdir()
    assert settings.lease() == 3


# --- from Python ---


def test_each_session_has_the_redis_of_its_project(tmp_path: Path, redis_server: object, real_redis: Redis) -> None:
    url = redis_server.url  # type: ignore[attr-defined]
    one = project(tmp_path / "a", f"REDIS_URL={url}?db=1\nSECRET=a\n")
    two = project(tmp_path / "b", f"REDIS_URL={url}?db=2\nSECRET=b\n")
    for made, number, secret in ((one, 1, "a"), (two, 2, "b"), (one, 1, "a")):
        opened = session(made.path)
        assert isinstance(opened.config, Config)
        assert (opened.broker.url, os.environ["SECRET"]) == (f"{url}?db={number}", secret)
    for made in (one, two):
        session(made.path).close()
        assert not (made.root / ".rq-etl").exists()


def test_tests_of_a_project_are_not_given_its_env(tmp_path: Path) -> None:
    """It may name what is live: the pytest plugin works for a configuration of its own."""
    from jobs.pytest_plugin import Harness

    lines = {"transform": ["steps:seen"], "columns": {"claim_id": "string"}}
    made = Folder(tmp_path, etl_toml({"claims": lines}), {".env": "SECRET=s\nREDIS_URL=redis://127.0.0.1:1\n"})
    made.write(
        "steps.py", "import os\ndef seen(df):\n    return df.assign(claim_id=os.environ.get('SECRET', 'none'))\n"
    )
    harness = Harness(tmp_path / "test", made.path)
    (tmp_path / "test").mkdir()
    try:
        run = harness.run("claims", client="acme", files={"claims-1.csv": "claim_id\nA1\n"})
        assert run.state == "succeeded", run.error
        assert harness.table("claims").claim_id.tolist() == ["none"]
    finally:
        harness.close()


def test_functions_of_a_run_in_this_process_find_it_in_the_environment(tmp_path: Path, fake_redis: Redis) -> None:
    lines = {"transform": ["steps:seen"], "columns": {"claim_id": "string"}}
    made = Folder(tmp_path, etl_toml({"claims": lines}), {".env": "SECRET=s\n", "inbox/acme/1.csv": "claim_id\nA1\n"})
    made.write("steps.py", "import os\ndef seen(df):\n    return df.assign(claim_id=os.environ['SECRET'])\n")
    from etl.config.pipeline import resolve
    from jobs.api import Run
    from jobs.run.submit import submit_run

    opened = Session(made.path, inline=True)
    run = Run(opened, submit_run(opened.connection, resolve(opened.config, "claims", "acme"))).wait(30)
    opened.close()
    assert (run.state, made.rows("select claim_id from claims")) == ("succeeded", [("s",)])

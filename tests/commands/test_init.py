"""`rq-etl init`: the first project is valid, runs as it is, and writes over nothing."""

import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from etl.config.code import check_functions
from etl.config.read import load_config
from etl.errors import ConfigError
from jobs.demo.init import FILES, ignore, write


def test_the_first_project_is_valid(tmp_path: Path) -> None:
    assert write(tmp_path / "new") == [tmp_path / "new" / name for name in FILES]
    config = load_config(tmp_path / "new" / "etl.toml")
    assert check_functions(config) == []
    assert list(config.clients) == ["acme"]


def test_what_is_commented_out_is_valid_too(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "etl.toml"
    head, clients = path.read_text().split("[clients.acme]")
    lines = clients.replace("# Another client", "## Another client").splitlines()
    path.write_text("\n".join([f"{head}[clients.acme]", *(line.removeprefix("# ") for line in lines)]))
    config = load_config(path)
    assert list(config.clients) == ["acme", "globex"]
    assert config.clients["acme"].schedule["claims"].cron == "0 2 * * *"


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_written_where_a_file_stands_in_the_way(tmp_path: Path, name: str) -> None:
    own = tmp_path / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("mine")
    with pytest.raises(ConfigError, match=name):
        write(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [own]
    assert own.read_text() == "mine"


def test_what_is_secret_is_kept_out_of_git_unless_there_is_a_rule_already(tmp_path: Path) -> None:
    assert ignore(tmp_path) == [tmp_path / ".gitignore"]
    assert {".env", ".rq-etl/", "staging/"} <= set((tmp_path / ".gitignore").read_text().splitlines())
    (tmp_path / ".gitignore").write_text("mine")
    assert ignore(tmp_path) == []
    assert (tmp_path / ".gitignore").read_text() == "mine"


def test_a_folder_that_can_not_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="can't be written"):
        write(tmp_path / "file" / "new")


def test_init_validate_run_and_rejects_work_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ETL_CONFIG", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    for command in ("init", "validate", "run claims --client acme --inline"):
        result = CliRunner().invoke(cli.cli, command.split())
        assert result.exit_code == 0, result.output
    with sqlite3.connect("warehouse.db") as warehouse:
        found = warehouse.execute("select claim_id, amount, status from claims order by 1").fetchall()
    assert found == [("A-1001", 120, "CLOSED"), ("A-1002", 75.5, "OPEN"), ("A-1004", 310.25, "OPEN")]

"""The public face as the design promises it: its etl.toml word for word, every command on it, every field of a run."""

import csv
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.helpers.project import Project, etl_toml, is_short
from tests.helpers.redis_server import RedisServer
from tests.helpers.workers import StartWorkers

# Word for word: who reads the design and writes this must get what it says.
CONTRACT = """
# etl.toml  (found in the working directory, or --config / ETL_CONFIG)
[settings]
staging = "staging"                    # folder or s3://bucket/prefix
modules = ["demo_steps"]               # whose functions may be called; importable from etl.toml's folder

[targets.warehouse]
url = "sqlite:///warehouse.db"         # or postgresql://…, or a folder of Parquet: parquet:out
                                       # "${NAME}" is read from the environment, in the worker only
[defaults]                             # any client key; a client's own value wins
timezone = "America/Chicago"
pipelines = ["claims"]

[pipelines.claims]
extract = { type = "csv", path = "inbox/{client}/claims-*.csv" }   # {client}, params, {date} {start} {end}
transform = ["demo_steps:clean", { function = "demo_steps:scale", args = { factor = 2 } }]   # may be []
load = { target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"], newest = "updated_at" }
retries = 3                            # with retry_delays = [5, 30, 120]
timeout = "10m"                        # of one stage
max_rejects = "5%"                     # or a number, over the run; makes the load atomic: above it nothing loads
new_columns = "add"                    # add | ignore | fail: what a column unknown to the target does

[pipelines.claims.columns]
claim_id     = { type = "string", required = true, unique = true, from = ["ClaimNo", "Claim No."] }
service_date = { type = "date", format = ["%Y-%m-%d", "%m/%d/%Y"] }     # default ISO only, never guessed
amount       = { type = "decimal", min = 0 }
status       = { type = "string", allowed = ["CLOSED", "OPEN"] }
margin       = { type = "number", computed = true }                      # made by a function

[clients.acme]                         # or clients/acme.toml, holding the same keys bare
max_active = 4
params = { region = "north" }          # {region} in paths, :region in SQL, params in functions
schedule = { claims = "0 2 * * *" }    # or { cron = "…", catchup = "none" | "last" | "all" }

[clients.acme.override.claims]         # deep-merged over the pipeline; all but load.table and load.key
extract = { delimiter = ";", encoding = "cp1252" }
columns = { amount = { decimal = "," } }
[clients.acme.rename.claims]
Betrag = "amount"
"""

STEPS = """
import pandas as pd


def clean(df: pd.DataFrame, client: str, params: dict) -> pd.DataFrame:
    assert (client, params["region"]) == ("acme", "north")
    return df.assign(status=df["status"].fillna("OPEN"))


def scale(df: pd.DataFrame, factor: int, run: str) -> pd.DataFrame:
    return df.assign(margin=df["amount"].astype(float) * factor)
"""

HEAD = "ClaimNo;service_date;Betrag;status;updated_at\n"
RUN_KEYS = {
    "run", "pipeline", "client", "state", "started", "finished", "seconds", "rows", "partitions", "failures",
    "warnings", "error",
}  # fmt: skip


def deliver(etl: Project, bad: int = 20) -> None:
    """Write 1,000 rows into three files, of which `bad` are to be rejected."""
    lines = [
        f"Ü{n:04d};{'2024-01-31' if n % 2 else '01/31/2024'};{'x' if n < bad else f'{n},50'};CLOSED;2024-02-01"
        for n in range(1000)
    ]
    for number, part in enumerate((lines[:300], lines[300:600], lines[600:]), 1):
        etl.write(f"inbox/acme/claims-{number}.csv", (HEAD + "\n".join(part) + "\n").encode("cp1252"))


@pytest.fixture
def house(etl: Project) -> Project:
    """The design's project, with three files of claims."""
    etl.config(CONTRACT)
    etl.write("demo_steps.py", STEPS)
    deliver(etl)
    return etl


@pytest.fixture
def url(redis_server: RedisServer, real_redis: Redis, monkeypatch: pytest.MonkeyPatch) -> str:
    """A Redis that is named, as where workers run elsewhere."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    return redis_server.url


def test_the_contract_is_the_designs(house: Project) -> None:
    said = house("validate --json")
    assert (said.code, said.json) == (0, {"valid": True, "pipelines": 1, "clients": 1, "targets": 1})
    assert tomllib.loads(CONTRACT)["pipelines"]["claims"]["retries"] == 3


def check_run(run: dict[str, Any]) -> None:
    assert run.keys() >= RUN_KEYS
    assert {key: run[key] for key in ("pipeline", "client", "state", "error")} == {
        "pipeline": "claims",
        "client": "acme",
        "state": "succeeded",
        "error": None,
    }
    assert run["rows"] == {
        "read": 1000, "added": 0, "rejected": 20, "dropped": 0, "superseded": 0, "loaded": 980, "unchanged": 0
    }  # fmt: skip
    assert run["partitions"] == {"total": 3, "done": 3, "failed": 0, "blocked": 0}
    assert (run["failures"], run["warnings"]) == ([], [])
    assert isinstance(run["seconds"], float)
    for key in ("started", "finished"):
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", run[key])


@pytest.mark.parametrize("command", ["run claims --client acme --inline --json", "--json run --client acme --inline"])
def test_a_run_is_reported_as_the_design_says(house: Project, command: str) -> None:
    said = house(command)
    assert (said.code, said.err) == (0, "")
    [run] = said.json
    check_run(run)
    assert house.rows("select count(*), sum(amount), sum(margin) from claims") == [(980, 499800.0, 999600.0)]
    names = "claim_id, service_date, amount, status, updated_at, margin"
    [row] = house.rows(f"select {names} from claims where claim_id = 'Ü0021'")
    assert row == ("Ü0021", "2024-01-31", 21.5, "CLOSED", "2024-02-01", 43.0)
    [(client, id, file)] = house.rows("select distinct _client, _run, _file from claims where claim_id = 'Ü0999'")
    assert (client, id, file) == ("acme", run["run"], "inbox/acme/claims-3.csv")


def test_merging_twice_changes_nothing(house: Project) -> None:
    house.run()
    before = house.rows("select * from claims order by claim_id")
    again = house.run()
    assert (again["rows"]["loaded"], again["rows"]["unchanged"]) == (0, 980)
    assert house.rows("select * from claims order by claim_id") == before


def test_too_many_rejects_load_nothing(house: Project) -> None:
    deliver(house, bad=51)
    said = house("run claims --client acme --inline --json")
    assert said.code == 1
    [run] = said.json
    assert run["state"] == "failed"
    assert "51 of 1,000 rows were rejected, max_rejects allows 50: nothing was loaded" in run["error"]
    assert run["rows"]["loaded"] == 0
    assert "claims" not in house.tables() or house.rows("select * from claims") == []
    for allowed, state in (("51", "succeeded"), ("50", "failed"), ("5.1%", "succeeded"), ("0", "failed")):
        assert house.run("--max-rejects", allowed)["state"] == state


def test_plan_enqueues_nothing(house: Project) -> None:
    said = house("plan claims --client acme --json --rows 3")
    assert said.code == 0
    assert [partition["file"] for partition in said.json["partitions"]] == [
        f"inbox/acme/claims-{number}.csv" for number in (1, 2, 3)
    ]
    assert said.json["rejects"][0]["reason"]
    assert house.tables() == []
    assert not (house.root / ".rq-etl").exists()
    assert "nothing was enqueued" in house("plan claims --client acme").out


def test_plan_shows_the_files_of_a_window(etl: Project) -> None:
    etl.config(etl_toml({"claims": {"extract": {"path": "inbox/{client}/claims-{start:%Y%m%d}.csv"}}}))
    etl.write("inbox/acme/claims-20260131.csv", "a\n1\n")
    planned = etl("plan claims --client acme --start 2026-01-31 --end 2026-02-01 --json").json
    assert [line["file"] for line in planned["partitions"]] == ["inbox/acme/claims-20260131.csv"]
    [line] = etl("plan claims --all-clients --start 2026-01-31 --json").json
    assert line["partitions"] == 1
    assert "needs a window" in etl("plan claims --client acme").err
    assert etl("plan claims --client acme --start soon").code == 2


def test_plan_of_all_clients_is_a_line_each_also_for_those_without_files(house: Project) -> None:
    said = house("plan claims --all-clients --json")
    assert said.code == 0
    lines = {line["client"]: line for line in said.json}
    assert (lines["acme"]["partitions"], lines["acme"]["error"]) == (3, None)
    assert "nothing was enqueued" in house("plan claims --all-clients").out
    assert house("plan claims").code == 2


def test_every_command_on_a_named_redis(house: Project, url: str, work: Callable[[], bool]) -> None:
    """Without --wait a run is only enqueued; later commands find it by id, beginning, or client/pipeline."""
    said = house("run claims --client acme --json")
    assert said.code == 0
    [queued] = said.json
    assert queued["state"] == "queued"
    id = queued["run"]
    assert house("run claims --client acme").code == 1
    assert f"is running already as run {id}" in house("run claims --client acme").err
    work()
    for name in (id, id[:4], "acme/claims"):
        shown = house(f"show {name} --json").json
        check_run(shown)
        assert shown["run"] == id
    assert house(f"--json wait {id}").json[0]["run"] == id
    assert [run["run"] for run in house("runs --json").json] == [id]
    assert [run["run"] for run in house("runs --json --client acme --state succeeded --since 24h").json] == [id]
    assert house("runs --json --state failed").json == []
    [line] = house("status --json").json
    assert (line["client"], line["pipeline"], line["state"]) == ("acme", "claims", "succeeded")
    assert line["last_success"]
    assert line["age"] < 600
    for command in ("runs", "status", f"show {id}", f"logs {id}", f"rejects {id}", "workers", f"wait {id}"):
        assert house(command).code == 0, command
        json.loads(house(f"{command} --json").out)


def test_runs_that_are_not_there(house: Project, url: str) -> None:
    for command in ("show zzz", "wait acme/claims", "logs zzz", "rejects zzz", "retry zzz", "cancel zzz"):
        said = house(command)
        assert (said.code, is_short(said)) == (2, True), command
    assert house("runs --state odd").code == 2
    assert house("runs --since yesterday").code == 2
    assert house("runs --json").json == []


def test_rejects_are_listed_exported_fixed_and_loaded(house: Project, url: str, work: Callable[[], bool]) -> None:
    id = house("run claims --client acme --json").json[0]["run"]
    work()
    [count] = house("rejects acme/claims --json").json
    assert count["rows"] == 20
    rows = house("rejects acme/claims --rows --json").json
    assert len(rows) == 20
    assert rows[0] == {
        "file": "inbox/acme/claims-1.csv", "row": 2, "column": "amount", "value": "x", "reason": "not a decimal"
    }  # fmt: skip
    export = house.root / "mend.csv"
    assert house(f"rejects {id} --export {export} --json").json["rows"] == 20
    with export.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert (lines[0]["ClaimNo"], lines[0]["Betrag"], lines[0]["service_date"]) == ("Ü0000", "x", "01/31/2024")


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_fixed_rejects_are_loaded(
    house: Project, url: str, work: Callable[[], bool], workers: StartWorkers, delimiter: str
) -> None:
    """Also from a spreadsheet that writes semicolons."""
    id = house("run claims --client acme --json").json[0]["run"]
    work()
    export = house.root / "mend.csv"
    house(f"rejects {id} --export {export}")
    export.write_text(export.read_text().replace(",x,", ',"7,25",'))
    if delimiter == ";":
        with export.open(newline="") as file:
            rows = list(csv.reader(file))
        with export.open("w", newline="") as file:
            csv.writer(file, delimiter=";").writerows(rows)
    workers(1, cwd=house.root)
    said = house(f"rejects {id} --load {export} --json")
    assert said.code == 0, said.err
    [run] = said.json
    assert (run["rows"]["read"], run["rows"]["loaded"], run["rows"]["rejected"]) == (20, 20, 0)
    assert house.rows("select count(*) from claims") == [(1000,)]
    assert house.rows("select amount, margin, _client from claims where claim_id = 'Ü0007'") == [(7.25, 14.5, "acme")]


def test_exports_that_can_not_be_written_or_read(house: Project, url: str, work: Callable[[], bool]) -> None:
    id = house("run claims --client acme --json").json[0]["run"]
    work()
    for option in ("--export nowhere/x.csv", "--load nowhere.csv", "--export inbox", "--load inbox"):
        said = house(f"rejects {id} {option}")
        assert said.code in (1, 2)
        assert is_short(said)
    house.write("latin.csv", "ClaimNo;Betrag\nÄ;1\n".encode("latin-1"))
    said = house(f"rejects {id} --load latin.csv")
    assert said.code in (1, 2)
    assert is_short(said)


def test_a_failed_run_is_retried_after_a_fix(house: Project, url: str, work: Callable[[], bool]) -> None:
    """What was done is not done again, and what has changed is told."""
    house.write("demo_steps.py", STEPS.replace("float) * factor", "float) * factr"))
    said = house("run claims --client acme --json")
    assert said.code == 0
    work()
    failed = house("show acme/claims --json").json
    assert (failed["state"], failed["partitions"]["failed"]) == ("failed", 3)
    assert "NameError factr in demo_steps.py" in failed["failures"][0]["error"]
    assert house("show acme/claims").code == 0
    assert house("wait acme/claims").code == 1
    house.write("demo_steps.py", STEPS)
    house.config(CONTRACT, ("factor = 2", "factor = 3"))
    again = house(f"retry {failed['run']} --json")
    assert again.code == 0, again.err
    assert "transform has changed" in again.err
    assert again.json[0]["run"] == failed["run"]
    work()
    run = house("show acme/claims --json").json
    check_run(run)
    assert run["attempt"] == 2
    assert run["started"] >= failed["finished"]
    assert house.rows("select margin from claims where claim_id = 'Ü0020'") == [(61.5,)]
    assert house("retry acme/claims").code == 1
    assert "succeeded" in house("retry acme/claims").err
    assert house("retry --failed --json").json == []


def test_a_retry_keeps_what_was_given_for_the_run(house: Project, url: str, work: Callable[[], bool]) -> None:
    house("run claims --client acme --max-rejects 19")
    work()
    assert "max_rejects allows 19" in house("show acme/claims --json").json["error"]
    house("retry acme/claims")
    work()
    assert "max_rejects allows 19" in house("show acme/claims --json").json["error"]


def test_a_run_that_found_no_file_looks_again_when_retried(house: Project, url: str, work: Callable[[], bool]) -> None:
    (house.root / "inbox").rename(house.root / "late")
    said = house("run claims --client acme --json")
    assert said.code == 1
    assert said.json[0]["state"] == "failed"
    assert "no file matches inbox/acme/claims-*.csv" in said.json[0]["error"]
    said = house("retry acme/claims")
    assert (said.code, is_short(said)) == (1, True)
    (house.root / "late").rename(house.root / "inbox")
    assert house("retry acme/claims").code == 0
    work()
    check_run(house("show acme/claims --json").json)


def test_a_run_is_canceled_and_retried(house: Project, url: str, work: Callable[[], bool]) -> None:
    id = house("run claims --client acme --json").json[0]["run"]
    [canceled] = house(f"cancel {id} --json").json
    assert (canceled["run"], canceled["state"]) == (id, "canceled")
    work()
    assert house(f"wait {id}").code == 1
    assert house.tables() == []
    assert house(f"retry {id}").code == 0
    work()
    check_run(house(f"show {id} --json").json)
    house("run claims --client acme")
    assert [run["state"] for run in house("cancel --client acme --json").json] == ["canceled"]


def test_wait_with_workers_of_its_own(house: Project, url: str) -> None:
    said = house("run --all-clients --workers 1 --json")
    assert said.code == 0, said.err
    [run] = said.json
    check_run(run)


def test_the_same_run_for_people(house: Project) -> None:
    said = house("run claims --client acme --inline")
    assert said.code == 0
    assert "acme/claims succeeded: 1,000 read, 20 rejected, 980 loaded" in said.out
    assert "─" not in said.err


def test_config_is_found_by_option_and_environment(
    house: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "else"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert house("validate").code == 2
    assert house("validate --config ../etl.toml").code == 0
    assert house("--config ../etl.toml run --client acme --inline").code == 0
    monkeypatch.setenv("ETL_CONFIG", str(tmp_path / "etl.toml"))
    assert house("validate").code == 0
    assert list(elsewhere.iterdir()) == []

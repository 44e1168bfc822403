"""Bad configuration, bad files, bad names: each is told in one or two lines, and nothing is loaded by halves."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project import CLAIMS, ETL_TOML, Project, is_short

ROOT = Path(__file__).resolve().parents[2]
INLINE = "run claims --client acme --inline"


def refused(etl: Project, command: str, code: int, *words: str) -> None:
    """Expect a command to end with a code and an error that has the words, and nothing to be loaded."""
    said = etl(command)
    assert is_short(said), said.err
    assert said.code == code
    for word in words:
        assert word in said.err
    assert etl.tables() == []


def failed(etl: Project, *words: str, stage: str | None = "extract") -> None:
    """Expect an inline run to fail with an error that has the words, and nothing to be loaded."""
    said = etl(INLINE)
    assert said.code == 1
    assert "Traceback" not in said.err + said.out
    run = etl.run()
    assert run["state"] == "failed"
    for word in words:
        assert word in run["error"]
        assert word in " ".join(said.out.split()) or word in said.out
    assert run["rows"]["loaded"] == 0
    assert [failure["stage"] for failure in run["failures"]] == ([stage] if stage else [])
    assert etl.tables() == [] or etl.rows("select * from claims") == []


# --- the configuration ---


@pytest.mark.parametrize("command", ["validate", INLINE, "plan claims --client acme", "status", "doctor"])
def test_no_etl_toml(etl: Project, command: str) -> None:
    (etl.root / "etl.toml").unlink()
    if command == "doctor":
        said = etl(command)
        assert said.code == 2
        assert "etl.toml" in said.out
        return
    refused(etl, command, 2, "there is no", "etl.toml", "rq-etl init")


def test_a_config_that_is_not_there_or_is_a_folder(etl: Project) -> None:
    refused(etl, f"--config other.toml {INLINE}", 2, "other.toml")
    refused(etl, f"--config inbox {INLINE}", 2, "inbox")


def test_bad_toml_is_reported_with_line_and_column(etl: Project) -> None:
    etl.config('[settings]\nstaging = "staging"\nmodules = [steps]\n')
    refused(etl, INLINE, 2, "etl.toml", "line 3", "column 12")


def test_an_unknown_key_is_reported_with_its_path_and_a_suggestion(etl: Project) -> None:
    etl.config(ETL_TOML, ("[pipelines.claims.columns]", "[pipelines.claims.colums]"))
    refused(etl, INLINE, 2, "pipelines.claims.colums", "did you mean columns?")


def test_every_mistake_is_reported_at_once(etl: Project) -> None:
    etl.config(ETL_TOML, ('mode = "merge"', 'mode = "merg"'), ("retries = 0", "retrys = 0"), ("decimal", "decimel"))
    said = etl("validate")
    assert said.code == 2
    assert "load.mode" in said.err
    assert "retrys" in said.err
    assert "columns.amount.type" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run clams --client acme --inline", ("no pipeline clams", "did you mean claims?")),
        ("run claims --client acne --inline", ("no client acne", "did you mean acme?")),
        ("plan clams --client acme", ("no pipeline clams",)),
        ("status --client acne", ("no client acne",)),
        ("run claims --client ../../etc --inline", ("no client ../../etc",)),
        ("run claims --client a;b --inline", ("no client a;b",)),
        ("run claims --client acme --inline --param novalue", ("--param",)),
        ("run claims --client acme --inline --param client=x", ("client",)),
        ("run claims --client acme --inline --max-rejects many", ("max_rejects",)),
    ],
)
def test_unknown_names_are_reported_with_what_is_meant(etl: Project, command: str, words: tuple[str, ...]) -> None:
    refused(etl, command, 2, *words)


def test_an_unknown_target(etl: Project) -> None:
    etl.config(ETL_TOML, ('target = "warehouse"', 'target = "warehose"'))
    refused(etl, INLINE, 2, "pipelines.claims.load.target", "warehose", "did you mean warehouse?")


@pytest.mark.parametrize("name", ["../evil", "a;b", "A", "ä", "a b", ""])
def test_a_client_name_that_leads_elsewhere_is_refused(etl: Project, name: str) -> None:
    etl.config(ETL_TOML, ("[clients.globex]", f'[clients."{name}"]'))
    refused(etl, INLINE, 2, "clients.", "small letters, digits and _")


def test_a_file_of_clients_with_a_bad_name_or_bad_toml(etl: Project) -> None:
    etl.write("clients/a;b.toml", "")
    refused(etl, "validate", 2, "a;b.toml", "small letters")
    (etl.root / "clients" / "a;b.toml").unlink()
    etl.write("clients/north.toml", "max_active = = 1")
    refused(etl, "validate", 2, "north.toml", "line 1", "column 14")
    refused(etl, "run claims --client north --inline", 2, "north.toml", "line 1", "column 14")


@pytest.mark.parametrize("options", ["", "--all-clients --client acme", "--client acme --workers 0", "--nonsense"])
def test_bad_usage_is_two_lines_too(etl: Project, options: str) -> None:
    refused(etl, f"run claims {options}", 2, "rq-etl: ")


def test_a_mistake_is_one_json_document_on_stdout(etl: Project) -> None:
    for command in ("run clams --client acme --inline --json", "--json run claims", "nonsense --json"):
        said = etl(command)
        assert said.code == 2
        assert said.json["exit"] == 2
        assert said.json["error"] in said.err


@pytest.mark.parametrize("made", ["jobs/__init__.py", "etl.py"])
def test_a_module_of_ones_own_that_hides_ours(etl: Project, made: str) -> None:
    etl.write(made, "")
    refused(etl, INLINE, 2, f"{made} hides a part of rq-etl", "rename it")


def test_a_folder_called_jobs_without_code_does_no_harm(etl: Project) -> None:
    etl.write("jobs/list.txt", "paint the fence\n")
    assert etl(INLINE).code == 0


# --- files ---


def test_no_file_matches(etl: Project) -> None:
    (etl.root / "inbox/acme/claims-1.csv").rename(etl.root / "inbox/acme/clams-1.csv")
    failed(etl, "no file matches inbox/acme/claims-*.csv", "inbox/acme/ holds clams-1.csv", stage=None)


@pytest.mark.parametrize("missing", ["warn", "ok"])
def test_no_file_may_be_fine(etl: Project, missing: str) -> None:
    etl.config(ETL_TOML, ('.csv" }', f'.csv", missing = "{missing}" }}'))
    (etl.root / "inbox/acme/claims-1.csv").unlink()
    run = etl.run()
    assert (run["state"], run["partitions"]["total"]) == ("succeeded", 0)
    assert bool(run["warnings"]) == (missing == "warn")


@pytest.mark.parametrize("content", ["", "\n\n", "﻿"])
def test_an_empty_file(etl: Project, content: str) -> None:
    etl.write("inbox/acme/claims-1.csv", content)
    failed(etl, "inbox/acme/claims-1.csv is empty: not even a header")


@pytest.mark.parametrize("content", ["claim_id,amount", "claim_id,amount\n", "claim_id,amount\r\n\r\n"])
def test_a_header_alone_is_a_run_without_rows(etl: Project, content: str) -> None:
    etl.write("inbox/acme/claims-1.csv", content)
    run = etl.run()
    assert (run["state"], run["rows"]["read"], run["rows"]["loaded"]) == ("succeeded", 0, 0)


def test_a_header_twice(etl: Project) -> None:
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount,Amount\nA1,1,2\n")
    failed(etl, "inbox/acme/claims-1.csv line 1", "2 and 3", "header = [...]")


def test_the_wrong_delimiter(etl: Project) -> None:
    etl.write("inbox/acme/claims-1.csv", CLAIMS.replace(",", ";"))
    failed(etl, "inbox/acme/claims-1.csv", "claim_id", "delimiter", stage="transform")


def test_latin_1(etl: Project) -> None:
    etl.write("inbox/acme/claims-1.csv", "claim_id,amount\nA1,1\nÄ2,2\n".encode("latin-1"))
    failed(etl, "inbox/acme/claims-1.csv line 3 is not utf-8", 'encoding = "cp1252"')


def test_utf_16_without_a_mark(etl: Project) -> None:
    etl.write("inbox/acme/claims-1.csv", CLAIMS.encode("utf-16-le"))
    failed(etl, "inbox/acme/claims-1.csv line 1 is not utf-8", 'encoding = "utf-16-le"')


def test_utf_16_with_a_mark_is_read(etl: Project) -> None:
    etl.write("inbox/acme/claims-1.csv", CLAIMS.encode("utf-16"))
    assert etl.run()["rows"]["loaded"] == 2


@pytest.mark.parametrize("content", [b"PK\x03\x04rest", gzip.compress(CLAIMS.encode() * 99, mtime=0)[:-20]])
def test_a_file_that_is_no_csv_at_all(etl: Project, content: bytes) -> None:
    etl.write("inbox/acme/claims-1.csv", content)
    failed(etl, "inbox/acme/claims-1.csv")


def test_a_column_missing_in_one_of_many_files(etl: Project) -> None:
    for number in range(2, 6):
        etl.write(f"inbox/acme/claims-{number}.csv", f"claim_id,amount\nB{number},{number}\n")
    etl.write("inbox/acme/claims-4.csv", "claim,amount\nB4,4\n")
    said = etl(INLINE)
    assert said.code == 1
    run = etl.run()
    assert run["partitions"] == {"total": 5, "done": 4, "failed": 1, "blocked": 0}
    [failure] = run["failures"]
    assert (failure["partition"], failure["file"]) == (5, "inbox/acme/claims-4.csv")
    assert "claim_id" in failure["error"]
    assert 'its header has "claim", "amount"' in failure["error"]
    assert run["rows"]["loaded"] + run["rows"]["unchanged"] == 5


def test_a_column_missing_in_one_of_many_files_of_an_atomic_run(etl: Project) -> None:
    etl.config(ETL_TOML, ('["claim_id"] }', '["claim_id"], atomic = true }'))
    etl.write("inbox/acme/claims-2.csv", "claim,amount\nB4,4\n")
    run = etl.run()
    assert (run["state"], run["rows"]["loaded"]) == ("failed", 0)
    assert "claims" not in etl.tables() or etl.rows("select * from claims") == []


def test_a_column_that_may_be_missing_is_loaded_as_empty(etl: Project) -> None:
    etl.write("inbox/acme/claims-2.csv", "claim_id\nB1\n")
    run = etl.run()
    assert run["state"] == "succeeded"
    assert "inbox/acme/claims-2.csv has no column amount" in run["warnings"][0]
    assert etl.rows("select amount from claims where claim_id = 'B1'") == [(None,)]


@pytest.mark.slow
def test_a_line_of_200_mb_is_a_reject_and_takes_no_memory(etl: Project) -> None:
    """The line is measured in a process of its own: memory of this one says nothing."""
    path = etl.write("inbox/acme/claims-1.csv", "claim_id,amount\nA1,1\n")
    with path.open("ab") as file:
        for _ in range(200):
            file.write(b"x" * (1 << 20))
        file.write(b"\nA2,2\n")
    etl.config(ETL_TOML, ('.csv" }', '.csv", settle = 0 }'))
    code = (
        "import resource, sys, cli\n"
        f"sys.argv = ['rq-etl', *{INLINE.split()!r}, '--json']\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=etl.root, env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert int(done.stderr.split()[-1]) < 600 * 1024  # kB
    assert etl.rows("select claim_id from claims order by 1") == [("A1",), ("A2",)]
    assert etl.run()["rows"] | {"loaded": 0, "unchanged": 2} == etl.run()["rows"]
    assert etl.run()["rows"]["rejected"] == 1

"""Backfill: one run per window of the past, in order or a few at a time, skipping what is loaded."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from etl.config.pipeline import Config, Pipeline, resolve
from etl.errors import ConfigError
from jobs.process.inprocess import InProcessWorker
from jobs.run import backfill, schedules
from jobs.run.backfill import Window
from jobs.run.cancel import cancel_run
from jobs.run.submit import submit_run
from jobs.store import runs
from tests.helpers.project import Folder, Project, etl_toml

TOML = etl_toml(
    {
        "claims": {
            "extract": {"path": "inbox/{client}-{date}.csv"},
            "load": {"mode": "merge", "key": ["id"]},
            "columns": {"id": {"required": True}},
        },
        "other": {"extract": {"path": "inbox/other.csv"}, "columns": {"id": {}}},
    },
    defaults={"timezone": "Europe/Berlin"},
)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Folder(tmp_path, TOML, {f"inbox/acme-2026-01-0{day}.csv": f"id\n{day}\n" for day in range(1, 5)}).loaded()


@pytest.fixture
def claims(config: Config) -> Pipeline:
    return backfill.of(config, "claims", "acme", {})


def days(first: int = 1, end: int = 5) -> list[Window]:
    return backfill.windows(f"2026-01-0{first}", f"2026-01-0{end}", "1d", "Europe/Berlin")


def examined(connection: Redis, claims: Pipeline, found: list[Window] | None = None) -> list[Window]:
    return backfill.examine(found or days(), claims, runs.recent(connection))


def submit(connection: Redis, config: Config, claims: Pipeline, **options: Any) -> list[str]:
    return backfill.submit(config, connection, claims, examined(connection, claims), **options)


def work(connection: Redis) -> None:
    InProcessWorker(connection, inline=True).work()


def states(connection: Redis, ids: list[str]) -> list[str]:
    return [run["state"] for run in runs.snapshot(connection, ids)]


def test_days_are_days_of_the_calendar_whatever_the_clocks_do() -> None:
    found = backfill.windows("2026-03-28", "2026-03-31", "1d", "Europe/Berlin")
    assert [window.start.isoformat() for window in found] == [
        "2026-03-28T00:00:00+01:00",
        "2026-03-29T00:00:00+01:00",
        "2026-03-30T00:00:00+02:00",
    ]
    hours = backfill.windows("2026-03-29", "2026-03-30", "1h", "Europe/Berlin")
    assert len(hours) == 23


@given(span=st.integers(1, 4000), every=st.integers(1, 500), hour=st.integers(0, 23))
def test_windows_cover_the_span_without_gap_or_overlap(span: int, every: int, hour: int) -> None:
    end = datetime.fromtimestamp(1767225600 + span * 3600).isoformat()
    start = datetime.fromtimestamp(1767225600).isoformat()
    found = backfill.windows(start, end, f"{every}h", "America/New_York")
    edges = [found[0].start, *(window.end for window in found)]
    assert [window.start for window in found] == edges[:-1]
    assert all(window.start.timestamp() < window.end.timestamp() for window in found)
    assert edges[-1].replace(tzinfo=None).isoformat() == end


@pytest.mark.parametrize(
    ("start", "end", "every"),
    [("2026-01-02", "2026-01-02", "1d"), ("2026-01-03", "2026-01-02", "1d"), ("soon", "2026-01-02", "1d"),
     ("2026-01-01", "2026-01-02", "often"), ("1926-01-01", "2026-01-02", "1h")],
)  # fmt: skip
def test_a_span_without_sense_is_refused(start: str, end: str, every: str) -> None:
    with pytest.raises(ConfigError):
        backfill.windows(start, end, every, "UTC")


def test_the_last_window_may_end_with_the_calendar() -> None:
    """A step that leads beyond it ends where the span does."""
    [window] = backfill.windows("9999-12-30", "9999-12-31", "30d", "UTC")
    assert window.end.date().isoformat() == "9999-12-31"


def test_each_window_is_one_run_in_order(connection: Redis, config: Config, claims: Pipeline) -> None:
    ids = submit(connection, config, claims)
    assert states(connection, ids) == ["queued", "held", "held", "held"]
    work(connection)
    found = runs.snapshot(connection, ids)
    assert [run["state"] for run in found] == ["succeeded"] * 4
    assert [run["rows"]["loaded"] for run in found] == [1] * 4
    assert [run["start"][:10] for run in found] == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    ended = [run["finished"] for run in found]
    assert ended == sorted(ended)


def test_a_few_windows_may_run_at_once(connection: Redis, config: Config, claims: Pipeline) -> None:
    ids = submit(connection, config, claims, parallel=2)
    assert states(connection, ids) == ["queued", "queued", "held", "held"]
    work(connection)
    assert states(connection, ids) == ["succeeded"] * 4


def test_loaded_windows_are_skipped_unless_they_shall_be_processed_again(
    connection: Redis, config: Config, claims: Pipeline
) -> None:
    first = submit(connection, config, claims)
    work(connection)
    assert submit(connection, config, claims) == []
    again = submit(connection, config, claims, reprocess=True)
    assert len(again) == 4
    assert not set(again) & set(first)
    work(connection)
    assert states(connection, again) == ["succeeded"] * 4


def test_a_failed_window_stops_those_behind_it_and_the_same_command_goes_on_there(
    connection: Redis, config: Config, claims: Pipeline, tmp_path: Path
) -> None:
    missing = tmp_path / "inbox/acme-2026-01-02.csv"
    missing.rename(tmp_path / "late.csv")
    ids = submit(connection, config, claims)
    work(connection)
    assert states(connection, ids) == ["succeeded", "failed", "failed", "failed"]
    assert f"needs run {ids[1]}" in str(runs.snapshot(connection, ids)[2]["error"])
    (tmp_path / "late.csv").rename(missing)
    again = submit(connection, config, claims)
    assert len(again) == 3
    work(connection)
    assert states(connection, again) == ["succeeded"] * 3
    assert submit(connection, config, claims) == []


def test_with_several_at_once_a_failed_window_stops_no_other(
    connection: Redis, config: Config, claims: Pipeline, tmp_path: Path
) -> None:
    (tmp_path / "inbox/acme-2026-01-01.csv").unlink()
    ids = submit(connection, config, claims, parallel=2)
    work(connection)
    assert states(connection, ids) == ["failed", "succeeded", "succeeded", "succeeded"]


def test_a_second_backfill_joins_the_runs_of_the_first(connection: Redis, config: Config, claims: Pipeline) -> None:
    nothing_known = days()
    first = backfill.submit(config, connection, claims, nothing_known)
    assert submit(connection, config, claims) == first
    assert len(runs.recent(connection)) == 4


def test_the_nightly_run_neither_waits_for_a_backfill_nor_is_refused(
    connection: Redis, config: Config, claims: Pipeline, tmp_path: Path
) -> None:
    ids = submit(connection, config, claims)
    today = datetime.fromisoformat("2026-01-04T02:00+01:00")
    nightly = submit_run(connection, claims, due=today, run=schedules.run_id("acme", "claims", today))
    assert states(connection, [nightly]) == ["queued"]
    work(connection)
    found = runs.snapshot(connection, [nightly, *ids])
    assert found[0]["state"] == "succeeded"
    assert found[0]["finished"] < found[-1]["finished"]


def test_a_window_that_was_canceled_is_run_again(connection: Redis, config: Config, claims: Pipeline) -> None:
    (first, *_) = submit(connection, config, claims)
    cancel_run(connection, first)
    work(connection)
    again = submit(connection, config, claims)
    work(connection)
    assert states(connection, again) == ["succeeded"] * 4


def test_a_source_that_depends_on_no_window_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="names no window"):
        backfill.of(config, "other", "acme", {})


def test_the_command_shows_what_it_would_do_and_does_it(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import cli

    def command(*more: str) -> tuple[Any, list[Any]]:
        words = ["rq-etl", "backfill", "claims", "--client", "acme", "--start", "2026-01-01", "--end", "2026-01-03"]
        monkeypatch.setattr("sys.argv", [*words, "--config", str(config.path), "--inline", "--json", *more])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, json.loads(capsys.readouterr().out)

    code, found = command("--dry-run")
    assert (code, [line["action"] for line in found]) == (0, ["run", "run"])
    code, found = command()
    assert (code, [run["state"] for run in found]) == (0, ["succeeded", "succeeded"])
    code, found = command("--dry-run")  # Redis has forgotten; the target has not
    assert (code, [line["action"] for line in found]) == (0, ["skip", "skip"])


def test_windows_of_a_resolved_pipeline_fill_its_path(config: Config, connection: Redis) -> None:
    pipeline = resolve(config, "claims", "acme")
    run = submit_run(connection, pipeline, start=days()[2].start, end=days()[2].end)
    work(connection)
    assert runs.snapshot(connection, [run])[0]["rows"]["loaded"] == 1


def test_a_loaded_window_whose_file_has_changed_since_says_so(
    fake_redis: Redis, config: Config, claims: Pipeline, tmp_path: Path
) -> None:
    submit(fake_redis, config, claims)
    work(fake_redis)
    (tmp_path / "inbox/acme-2026-01-02.csv").write_text("id\n2\n22\n")
    (tmp_path / "inbox/acme-2026-01-03.csv").touch()  # the same content
    found = backfill.compared(examined(fake_redis, claims), claims)
    assert [window.changed for window in found] == [(), ("inbox/acme-2026-01-02.csv",), (), ()]


def test_backfill_says_which_skipped_windows_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    etl = Project(tmp_path, TOML, {"inbox/acme-2026-01-01.csv": "id\n1\n"})
    command = "backfill claims --client acme --start 2026-01-01 --end 2026-01-02"
    etl(f"{command} --inline")
    assert etl(f"{command} --inline --json").err == ""
    etl.write("inbox/acme-2026-01-01.csv", "id\n1\n2\n")
    said = etl(f"{command} --inline --dry-run --json")
    assert said.json[0]["changed"] == ["inbox/acme-2026-01-01.csv"]
    assert "2026-01-01 00:00 is skipped, but inbox/acme-2026-01-01.csv has changed since run" in said.err
    assert "has changed" not in etl(f"{command} --inline --dry-run --reprocess").err

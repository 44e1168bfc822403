"""What is odd about a delivery: its rows, a content that has come before, its period, the kind of its files."""

import os
import sqlite3
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.sources import plan
from etl.sources.feed import kind_of_file
from jobs.run import retry
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

FIRST = date(2026, 9, 7)  # a Monday
DAY = timedelta(days=1)
COLUMNS = {"id": "string", "service_date": "date", "seen": "timestamp"}
DELIVERY = {"due": "06:30", "days": "mon-fri", "grace": "45m"}


def claims(rows: int, day: date, *, start: int = 0, text: str = "") -> str:
    lines = [f"{text or day}-{number},{day},{day}T23:30:00" for number in range(start, start + rows)]
    return "\n".join(["id,service_date,seen", *lines, ""])


class Nights:
    """A project whose clients deliver and run, a day after another."""

    def __init__(self, root: Path, connection: Redis, url: str) -> None:
        self.project, self.url = QueuedProject(root, connection, ""), url

    def configure(self, expect: Mapping[str, Any] | None = None, delivery: Any = DELIVERY, **more: Any) -> None:
        pipeline: dict[str, Any] = {"columns": COLUMNS, "extract": {"path": "inbox/{client}/**/*.csv"}, **more}
        pipeline |= {"expect": expect} if expect else {}
        pipeline |= {"delivery": delivery} if delivery else {}
        clients = {"acme": {"timezone": "America/Chicago"}, "north": {}}
        self.project.config(etl_toml({"claims": pipeline}, clients, url=self.url))

    def deliver(self, name: str, content: str | bytes, client: str = "acme") -> Path:
        return self.project.write(f"inbox/{client}/{name}", content)

    def run(self, day: date, client: str = "acme", **options: Any) -> dict[str, Any]:
        """Run for the delivery of a day, as its schedule at 07:00 would."""
        due = datetime(day.year, day.month, day.day, 13, tzinfo=UTC)
        return self.project.record(
            self.project.run(client, **({"due": due} if "start" not in options else {}), **options)
        )

    def come(self, day: date, rows: int, client: str = "acme", *, stays: bool = False) -> dict[str, Any]:
        """Have a file come and loaded; it is taken away afterwards."""
        path = self.deliver(f"{day}.csv", claims(rows, day, text=f"{client}-{day}"), client)
        found = self.run(day, client)
        if not stays:
            path.unlink()
        return found

    def weeks(self, number: int, rows: int = 10, *, stays: bool = False) -> date:
        """Have a delivery each Monday for so many weeks; return the Monday after."""
        for week in range(number):
            assert self.come(FIRST + 7 * week * DAY, rows, stays=stays)["odd"] == []
        return FIRST + 7 * number * DAY


@pytest.fixture
def nights(tmp_path: Path, fake_redis: Redis, target_url: str) -> Nights:
    return Nights(tmp_path, fake_redis, target_url)


@pytest.fixture
def local(tmp_path: Path, fake_redis: Redis) -> Nights:
    return Nights(tmp_path, fake_redis, f"sqlite:///{tmp_path}/target.db")


# --- rows ---


def test_half_of_the_usual_rows_of_a_weekday_is_odd(nights: Nights) -> None:
    nights.configure({"change": "50%"})
    day = nights.weeks(5)
    found = nights.come(day, 5)
    assert found["odd"] == ["5 rows were delivered, 10 are usual on a Monday (the median of 5)"]
    assert (found["state"], found["warnings"]) == ("succeeded", found["odd"])


def test_an_odd_delivery_is_refused_before_anything_of_it_is_loaded(nights: Nights) -> None:
    nights.configure({"change": "50%", "otherwise": "fail"})
    day = nights.weeks(5)
    found = nights.come(day, 30)
    assert found["odd"] == ["30 rows were delivered, 10 are usual on a Monday (the median of 5)"]
    assert found["state"] == "failed"
    assert found["odd"][0] in found["error"]
    assert (found["warnings"], found["rows"]["loaded"]) == ([], 0)


def test_the_rows_of_all_files_of_a_delivery_count_together(nights: Nights) -> None:
    nights.configure({"change": "50%", "otherwise": "fail"})
    day = nights.weeks(5)
    nights.deliver("one.csv", claims(5, day, text="one"))
    nights.deliver("two.csv", claims(4, day, text="two"))
    found = nights.run(day)
    assert (found["state"], found["odd"], found["rows"]["loaded"]) == ("succeeded", [], 9)
    nights.deliver("three.csv", claims(2, day + 7 * DAY, text="three"))
    nights.deliver("four.csv", claims(2, day + 7 * DAY, text="four"))
    found = nights.run(day + 7 * DAY)
    assert found["odd"] == ["4 rows were delivered, 10 are usual on a Monday (the median of 6)"]


def test_below_five_deliveries_of_a_weekday_nothing_is_said(local: Nights) -> None:
    local.configure({"change": "50%"})
    assert local.come(local.weeks(4), 2)["odd"] == []


def test_a_delivery_without_rows_is_odd_from_the_first_on_unless_there_was_one_before(local: Nights) -> None:
    local.configure({"change": "50%"})
    day = local.weeks(1)
    local.deliver("empty.csv", claims(0, day))
    assert local.run(day)["odd"] == ["0 rows were delivered, as never before"]
    local.deliver("empty-2.csv", claims(0, day))
    assert local.run(day + DAY)["odd"] == []


def test_a_run_belongs_to_the_delivery_of_its_due_moment_whenever_it_is_loaded(local: Nights) -> None:
    """All of these are loaded within the same second."""
    local.configure({"change": "50%"})
    for week in range(5):
        local.come(FIRST + 7 * week * DAY, 10)
        local.come(FIRST + (7 * week + 1) * DAY, 100)
    day = FIRST + 35 * DAY
    assert local.come(day, 10)["odd"] == []
    assert local.come(day + DAY, 10)["odd"] == ["10 rows were delivered, 100 are usual on a Tuesday (the median of 5)"]


@pytest.mark.parametrize("delivery", [DELIVERY, None])
def test_rows_that_are_read_again_are_no_new_delivery(local: Nights, delivery: Any) -> None:
    """Nor is a night without a file."""
    local.configure({"change": "50%"}, delivery)
    day = local.weeks(5, stays=True)
    assert local.run(day)["odd"] == []
    found = local.run(day, full_refresh=True)
    assert (found["rows"]["read"], found["odd"]) == (50, [])
    assert local.come(day, 10)["odd"] == []
    assert local.come(day + 7 * DAY, 10)["odd"] == []
    for path in (local.project.root / "inbox" / "acme").iterdir():
        os.utime(path)
    assert not any("rows were delivered" in sentence for sentence in local.run(day + 8 * DAY)["odd"])


def test_files_that_come_one_by_one_make_one_delivery(local: Nights) -> None:
    local.configure({"change": "50%"})
    day = local.weeks(5)
    local.deliver("one.csv", claims(4, day, text="one"))
    assert local.run(day)["odd"] == ["4 rows were delivered, 10 are usual on a Monday (the median of 5)"]
    local.deliver("two.csv", claims(5, day, text="two"))
    assert local.run(day)["odd"] == []


def test_a_backfill_is_compared_with_nothing(local: Nights) -> None:
    local.configure({"change": "50%"}, extract={"path": "inbox/{client}/{date}*.csv"})
    day = local.weeks(5)
    local.deliver(f"{FIRST + DAY}.csv", claims(1, FIRST))
    window = datetime(2026, 9, 8, 6, tzinfo=UTC)
    found = local.run(day, start=window, end=window + DAY)
    assert (found["rows"]["read"], found["odd"]) == (1, [])


def test_an_earlier_release_s_ledger_is_grouped_by_when_it_was_loaded(local: Nights) -> None:
    local.configure({"change": "50%"})
    day = local.weeks(6)
    with sqlite3.connect(local.project.root / "target.db") as target:
        for name in ("day", "newly"):
            target.execute(f"ALTER TABLE _etl_loads DROP COLUMN {name}")
        for week, (run,) in enumerate(target.execute("SELECT run FROM _etl_loads ORDER BY loaded_at").fetchall()):
            moment = datetime.combine(FIRST + 7 * week * DAY, time(11, 31))
            target.execute("UPDATE _etl_loads SET loaded_at = ? WHERE run = ?", (moment.isoformat(" "), run))
    target.close()
    assert local.come(day, 4)["odd"] == ["4 rows were delivered, 10 are usual on a Monday (the median of 6)"]


# --- content ---


def test_the_same_content_under_another_name_is_odd_once(nights: Nights) -> None:
    nights.configure()
    nights.deliver("b.csv", claims(3, FIRST))
    assert nights.run(FIRST)["odd"] == []
    nights.deliver("c.csv", claims(3, FIRST))
    found = nights.run(FIRST + DAY)
    assert found["odd"] == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]
    assert found["odd"][0] in found["warnings"]
    assert nights.run(FIRST + 2 * DAY)["odd"] == []  # both lie there now
    assert nights.run(FIRST + 2 * DAY, full_refresh=True)["odd"] == []


def test_a_file_that_is_sent_again_with_the_same_content_is_odd(local: Nights) -> None:
    local.configure()
    local.deliver("claims.csv", claims(3, FIRST))
    assert local.run(FIRST)["odd"] == []
    assert local.run(FIRST + DAY)["odd"] == []
    local.deliver("claims.csv", claims(3, FIRST))
    found = local.run(FIRST + 2 * DAY)["odd"]
    assert found == ["inbox/acme/claims.csv has the same content as inbox/acme/claims.csv of 2026-09-07"]
    assert local.run(FIRST + 3 * DAY)["odd"] == []


@pytest.mark.parametrize("own", [False, True])
def test_a_file_of_another_client_is_odd_where_each_has_a_target_too(local: Nights, own: bool) -> None:
    local.url = f"sqlite:///{local.project.root}/{'{client}' if own else 'all'}.db"
    local.configure()
    local.deliver("n.csv", claims(3, FIRST), "north")
    assert local.run(FIRST, "north")["odd"] == []
    local.deliver("a.csv", claims(3, FIRST), "acme")
    found = local.run(FIRST + DAY)["odd"]
    assert found == ["inbox/acme/a.csv has the same content as a file of client north (2026-09-07)"]


def test_the_same_content_is_refused_as_long_as_it_lies_there(nights: Nights) -> None:
    nights.configure({"change": "50%", "otherwise": "fail"}, load={"mode": "replace", "by": ["_file"]})
    nights.deliver("b.csv", claims(3, FIRST))
    assert nights.run(FIRST)["state"] == "succeeded"
    nights.deliver("c.csv", claims(3, FIRST))
    for number in range(2):
        found = nights.run(FIRST + number * DAY)
        assert found["state"] == "failed"
        assert found["odd"] == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]
        assert found["odd"][0] in found["error"]
    retry.retry_run(nights.project.loaded(), nights.project.connection, found["run"])
    nights.project.work()
    assert nights.project.record(found["run"])["odd"] == found["odd"]


def test_parts_of_a_large_file_are_one_content(local: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.run.graph.plan", lambda *args, **more: plan(*args, **more, partition_bytes=200))
    local.configure()
    local.deliver("b.csv", claims(40, FIRST))
    found = local.run(FIRST)
    assert (found["partitions"]["total"] > 3, found["odd"]) == (True, [])
    local.deliver("c.csv", claims(40, FIRST))
    monkeypatch.setattr("jobs.run.graph.plan", plan)
    found = local.run(FIRST + DAY)
    assert found["odd"] == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]


def test_one_of_files_that_are_read_together_is_known_again(local: Nights) -> None:
    local.configure(extract={"path": "inbox/{client}/*.csv", "split": "none"}, load={"mode": "replace"})
    local.deliver("a.csv", claims(3, FIRST))
    local.deliver("b.csv", claims(3, FIRST, start=3))
    assert local.run(FIRST)["odd"] == []
    local.deliver("c.csv", claims(3, FIRST, start=3))
    found = local.run(FIRST + DAY)["odd"]
    assert found == ["inbox/acme/c.csv has the same content as inbox/acme/b.csv of 2026-09-07"]


def test_of_two_files_of_one_run_the_second_is_odd(local: Nights) -> None:
    local.configure()
    local.deliver("a.csv", claims(3, FIRST))
    local.deliver("b.csv", claims(3, FIRST))
    found = local.run(FIRST)["odd"]
    assert found == ["inbox/acme/b.csv has the same content as inbox/acme/a.csv of 2026-09-07"]


def test_empty_files_are_never_the_same(local: Nights) -> None:
    local.configure()
    for number in range(3):
        local.deliver(f"{number}.csv", claims(0, FIRST))
        assert local.run(FIRST + number * DAY)["odd"] == []


def test_a_file_that_all_clients_read_is_one(local: Nights) -> None:
    local.configure(extract={"path": "shared/*.csv"})
    local.project.write("shared/codes.csv", claims(3, FIRST))
    assert local.run(FIRST)["odd"] == []
    assert local.run(FIRST, "north")["odd"] == []


def test_without_an_expectation_no_content_is_kept(local: Nights) -> None:
    local.configure(None, None)
    local.deliver("a.csv", claims(3, FIRST))
    local.run(FIRST)
    assert not (local.project.root / "staging" / ".contents").exists()


def test_contents_are_private_and_forgotten_after_the_history(local: Nights) -> None:
    local.configure()
    local.deliver("a.csv", claims(3, FIRST))
    local.run(FIRST)
    folder = local.project.root / "staging" / ".contents"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 1
    assert {path.stat().st_mode & 0o077 for path in (folder, *files)} == {0}
    assert local.project.sweep(89 * 86400).troubles == []
    assert files[0].exists()
    local.project.sweep(91 * 86400)
    assert not files[0].exists()


# --- period ---


@pytest.mark.parametrize("column", ["service_date", "seen"])
def test_values_outside_of_the_delivery_s_days_are_counted(nights: Nights, column: str) -> None:
    nights.configure({"period": column})
    monday = FIRST + 7 * DAY
    for number, day in enumerate((monday - 4 * DAY, monday - 3 * DAY, monday, monday + DAY)):
        nights.deliver(f"{number}.csv", claims(2 + number, day, text=str(number)))
    found = nights.run(monday)  # the delivery before it is Friday's
    assert found["odd"] == [f"7 of 14 values of {column} are outside of 2026-09-11 to 2026-09-14"]


def test_a_delivery_of_another_period_is_refused(nights: Nights) -> None:
    nights.configure({"period": "service_date", "otherwise": "fail"})
    nights.deliver("one.csv", claims(1, FIRST - 30 * DAY))
    found = nights.run(FIRST)
    assert found["odd"] == ["the only value of service_date is outside of 2026-09-04 to 2026-09-07"]
    assert (found["state"], found["rows"]["loaded"]) == ("failed", 0)


def test_a_timestamp_is_of_the_day_in_the_client_s_zone(local: Nights) -> None:
    local.configure({"period": "seen"})
    lines = ["a,,2026-09-04T04:59:59Z", "b,,2026-09-04T05:00:00Z", "c,,2026-09-08T04:59:59Z", "d,,2026-09-08T05:00Z"]
    local.deliver("one.csv", "\n".join(["id,service_date,seen", *lines, "e,,", ""]))
    assert local.run(FIRST)["odd"] == ["2 of 4 values of seen are outside of 2026-09-04 to 2026-09-07"]


def test_a_date_in_the_path_says_which_delivery_it_is(local: Nights) -> None:
    local.configure({"period": "service_date"}, extract={"path": "inbox/{client}/{date}.csv"})
    local.deliver(f"{FIRST}.csv", claims(2, FIRST))
    late = datetime(2026, 9, 7, 23, tzinfo=UTC)  # 18:00 in Chicago, long after the grace
    assert local.project.record(local.project.run("acme", due=late))["odd"] == []
    local.deliver(f"{FIRST + DAY}.csv", claims(2, FIRST - DAY))
    found = local.run(FIRST + DAY)["odd"]
    assert found == ["2 of 2 values of service_date are outside of 2026-09-07 to 2026-09-08"]


def test_a_run_that_its_delivery_does_not_start_is_of_the_one_that_was_due_last(local: Nights) -> None:
    local.configure({"period": "service_date"})
    local.deliver("one.csv", claims(2, FIRST))
    evening = datetime(2026, 9, 8, 2, tzinfo=UTC)  # 21:00 of Monday in Chicago
    assert local.project.record(local.project.run("acme", due=evening))["odd"] == []


# --- the kind of a file ---

PAGE = b"<!DOCTYPE html><html><body>Session expired</body></html>"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PAGE, "an HTML page"),
        (b"PK\x03\x04" + b"\0" * 600, "a ZIP or Excel file"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (b"<?xml version='1.0'?><a><b/></a>", "an XML document"),
        (b'[{"a": 1}, {"a": 2}]', "a JSON document"),
        (b"a,b\n1,2\n", None),
        (b'{"a": 1}\n{"a": 2}\n', None),
        (b"", None),
    ],
)
def test_the_kind_of_a_file_is_known_without_a_run(tmp_path: Path, content: bytes, kind: str | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert kind_of_file(str(path)) == kind
    assert kind_of_file(str(tmp_path / "gone")) is None


@pytest.mark.parametrize("expect", [None, {"rows": [0, 100]}, {"rows": [0, 100], "otherwise": "fail"}])
def test_a_file_of_another_kind_is_odd_beside_being_a_failure(local: Nights, expect: Any) -> None:
    local.configure(expect, None)
    local.deliver("page.csv", PAGE)
    local.deliver("good.csv", claims(2, FIRST))
    found = local.run(FIRST)
    assert found["state"] == "failed"
    assert found["odd"] == ["inbox/acme/page.csv is an HTML page, not CSV"]


def test_a_file_that_cannot_be_read_hides_nothing_of_later_deliveries(local: Nights) -> None:
    local.configure({"change": "50%"})
    local.deliver("nothing.csv", b"")
    assert local.run(FIRST - 7 * DAY)["state"] == "failed"
    found = local.come(local.weeks(5), 5)
    assert found["odd"] == ["5 rows were delivered, 10 are usual on a Monday (the median of 5)"]


def test_a_file_of_another_kind_that_still_lies_there_is_a_failure_and_odd_no_more(local: Nights) -> None:
    local.configure({"change": "50%"})
    day = local.weeks(5)
    local.deliver("page.csv", PAGE)
    assert local.run(day - 5 * DAY)["odd"] == ["inbox/acme/page.csv is an HTML page, not CSV"]
    found = local.come(day, 5)
    assert found["state"] == "failed"
    assert found["odd"] == ["5 rows were delivered, 10 are usual on a Monday (the median of 5)"]
    local.deliver("page.csv", PAGE)
    assert local.run(day + DAY)["odd"] == ["inbox/acme/page.csv is an HTML page, not CSV"]  # sent again


def test_a_run_that_met_its_expectations_has_nothing_odd(local: Nights) -> None:
    local.configure({"rows": [1, 5]})
    local.deliver("a.csv", claims(2, FIRST))
    assert local.run(FIRST)["odd"] == []
    local.deliver("b.csv", claims(9, FIRST, start=5))
    assert local.run(FIRST + DAY)["odd"] == ["11 rows were delivered, 1 to 5 were expected"]

"""What is said of a delivery's rows: how many are usual, and of which days they may be."""

import os
import sqlite3
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.helpers.expected import DAY, DELIVERY, FIRST, Nights, claims


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


def test_old_files_that_are_read_again_are_of_their_own_days(local: Nights) -> None:
    local.configure({"period": "service_date"})
    for number in range(3):
        day = FIRST + number * DAY
        local.deliver(f"{day}.csv", claims(2 + number, day))
        assert local.run(day, full_refresh=True)["odd"] == []
    local.deliver("old.csv", claims(3, FIRST - 60 * DAY))
    found = local.run(FIRST + 3 * DAY, full_refresh=True)
    assert found["rows"]["read"] == 12
    assert found["odd"] == ["3 of 3 values of service_date are outside of 2026-09-09 to 2026-09-10"]


def test_of_files_that_are_read_together_the_new_ones_are_looked_at(local: Nights) -> None:
    local.configure(
        {"period": "service_date"}, load={"mode": "replace"}, extract={"path": "inbox/{client}/*.csv", "split": "none"}
    )
    for number in range(3):
        day = FIRST + number * DAY
        local.deliver(f"{day}.csv", claims(2, day))
        assert local.run(day)["odd"] == []
    local.deliver("old.csv", claims(3, FIRST - 60 * DAY))
    found = local.run(FIRST + 3 * DAY)["odd"]
    assert found == ["3 of 3 values of service_date are outside of 2026-09-09 to 2026-09-10"]

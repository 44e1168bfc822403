"""The moments that a cron line names, over both changes of the clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.calendar.cron import due, following

SPRING = datetime(2026, 3, 29, tzinfo=UTC)  # in Berlin 02:00 becomes 03:00 at 01:00 UTC
AUTUMN = datetime(2026, 10, 25, tzinfo=UTC)  # in Berlin 03:00 becomes 02:00 at 01:00 UTC
DAY = timedelta(days=1)


def local(cron: str, zone: str, day: datetime) -> list[str]:
    return [f"{moment.astimezone(ZoneInfo(zone)):%H:%M%z}" for moment in due(cron, zone, day - DAY / 24, day + DAY)]


def test_a_moment_in_the_hour_that_is_skipped_comes_an_hour_later() -> None:
    assert local("30 2 * * *", "Europe/Berlin", SPRING) == ["03:30+0200"]


def test_a_moment_in_the_hour_that_comes_twice_comes_the_first_time_only() -> None:
    assert local("30 2 * * *", "Europe/Berlin", AUTUMN) == ["02:30+0200"]


def test_an_hourly_line_comes_every_hour_that_there_is() -> None:
    for day in (SPRING, AUTUMN):
        found = due("15 * * * *", "Europe/Berlin", day, day + DAY)
        assert [later - earlier for earlier, later in pairwise(found)] == [DAY / 24] * 23


def test_two_lines_that_fall_together_in_the_gap_are_one_moment() -> None:
    assert local("30 2,3 * * *", "Europe/Berlin", SPRING) == ["03:30+0200"]


def test_a_line_is_read_in_its_own_zone() -> None:
    after = datetime(2026, 7, 1, tzinfo=UTC)
    assert following("0 2 * * *", "America/Chicago", after) == [datetime(2026, 7, 1, 7, tzinfo=UTC)]
    assert following("0 2 * * *", "Asia/Kolkata", after) == [datetime(2026, 7, 1, 20, 30, tzinfo=UTC)]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"])
@given(
    minute=st.integers(0, 59),
    hour=st.sampled_from(["*", "*/3", "0", "1", "2", "3", "1,2", "23"]),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 1), timezones=st.just(UTC)),
    cuts=st.lists(st.integers(1, 10 * 1440), max_size=8),
)
def test_looking_in_pieces_finds_each_moment_once_and_in_order(
    zone: str, minute: int, hour: str, start: datetime, cuts: list[int]
) -> None:
    line = f"{minute} {hour} * * *"
    edges = [start, *(start + timedelta(minutes=m) for m in sorted(cuts)), start + timedelta(days=10)]
    whole = due(line, zone, edges[0], edges[-1])
    pieces = [moment for a, b in pairwise(edges) for moment in due(line, zone, a, b)]
    assert pieces == whole == sorted(set(whole))
    if "*" not in hour and "," not in hour:
        assert len({moment.astimezone(ZoneInfo(zone)).date() for moment in whole}) == len(whole)
        assert 9 <= len(whole) <= 11

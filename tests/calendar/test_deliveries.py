"""On which days deliveries are due, when, and which span of time is each one's own."""

import calendar
import itertools
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.calendar.days import FURTHEST, Days, check_days
from etl.calendar.dues import Due, Timetable

DAY = timedelta(days=1)
WORDS = ["daily", "business", "mon-fri", "fri-mon", "sat", "wed", "1st", "15th", "29th", "31st", "last"]
WORDS += ["1st business", "5th business", "last business"]
ZONES = ["UTC", "America/Chicago", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Kiritimati"]


def days(words: str | list[str], closed: tuple[str, ...] = (), **keys: str) -> Days:
    named = words if isinstance(words, str) else tuple(map(date.fromisoformat, words))
    return Days(named, closed=tuple(map(date.fromisoformat, closed)), **keys)


def between(of: Days, first: str, last: str) -> list[str]:
    return [day.isoformat() for day in of.between(date.fromisoformat(first), date.fromisoformat(last))]


def table(of: Days | None = None, due: str = "06:30", zone: str = "UTC", grace: float = 2700) -> Timetable:
    return Timetable(of or Days(), time.fromisoformat(due), zone, grace)


# --- days ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("daily", [*range(1, 31)]),
        ("business", [2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 23, 24, 25, 26, 27, 30]),
        ("mon-fri", [2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 23, 24, 25, 26, 27, 30]),
        ("fri-mon", [1, 2, 6, 7, 8, 9, 13, 14, 15, 16, 20, 21, 22, 23, 27, 28, 29, 30]),
        ("sat", [7, 14, 21, 28]),
        ("1st", [1]),
        ("30th", [30]),
        ("31st", []),
        ("last", [30]),
        ("1st business", [2]),
        ("21st business", [30]),
        ("22nd business", []),
        ("last business", [30]),
    ],
)
def test_words_name_days_of_a_month(words: str, expected: list[int]) -> None:
    found = Days(words).between(date(2026, 11, 1), date(2026, 11, 30))
    assert [day.day for day in found] == expected


def test_holidays_and_closed_days_are_no_business_days() -> None:
    of = days("business", ("2026-11-27",), calendar="US")  # the 26th is Thanksgiving
    assert between(of, "2026-11-24", "2026-12-01") == ["2026-11-24", "2026-11-25", "2026-11-30", "2026-12-01"]
    assert between(days("business", calendar="US-TX"), "2026-11-26", "2026-11-27") == []  # the day after it, in Texas


def test_a_holiday_is_left_out_of_what_is_daily() -> None:
    assert between(days("daily", calendar="DE"), "2026-12-24", "2026-12-27") == ["2026-12-24", "2026-12-27"]


def test_a_closed_day_moves_over_a_chain_of_closed_days_and_the_year_s_end() -> None:
    closed = ("2026-12-30", "2026-12-31", "2027-01-01", "2027-01-02")
    assert between(days("31st", closed, if_closed="next"), "2026-12-01", "2027-01-30") == ["2027-01-03"]
    assert between(days("1st", closed, if_closed="previous"), "2026-12-02", "2027-01-30") == ["2026-12-29"]


def test_what_is_expected_from_monday_to_friday_alone_does_not_move_to_a_weekend() -> None:
    closed = ("2026-11-27",)  # a Friday
    assert between(days("fri", closed, if_closed="next"), "2026-11-25", "2026-12-03") == ["2026-11-30"]
    assert between(days("27th", closed, if_closed="next"), "2026-11-25", "2026-12-03") == ["2026-11-28"]


def test_a_weekend_is_open_where_no_words_say_otherwise() -> None:
    first = days("1st", calendar="US", if_closed="next")
    assert between(first, "2026-11-01", "2026-11-30") == ["2026-11-01"]  # a Sunday
    assert between(days("1st business", calendar="US"), "2026-11-01", "2026-11-30") == ["2026-11-02"]


def test_a_moved_delivery_falls_together_with_the_one_that_is_there() -> None:
    of = days("mon-fri", ("2026-11-25",), if_closed="next")
    assert between(of, "2026-11-24", "2026-11-27") == ["2026-11-24", "2026-11-26", "2026-11-27"]


def test_business_days_have_nothing_to_move() -> None:
    for if_closed in ("next", "previous"):
        of = days("business", calendar="US", if_closed=if_closed)
        assert of.between(date(2026, 1, 1), date(2026, 12, 31)) == Days("business", "US").between(
            date(2026, 1, 1), date(2026, 12, 31)
        )


def test_a_month_without_an_open_day_has_no_last_business_day() -> None:
    closed = tuple(f"2026-11-{day:02}" for day in range(1, 31))
    assert between(days("last business", closed), "2026-10-01", "2026-12-31") == ["2026-10-30", "2026-12-31"]
    assert between(days("15th", closed, if_closed="next"), "2026-11-01", "2026-12-14") == ["2026-12-01"]


def test_the_29th_is_in_leap_februaries() -> None:
    found = Days("29th").between(date(2027, 2, 1), date(2028, 3, 1))
    assert date(2028, 2, 29) in found
    assert len(found) == 12
    assert Days("last").between(date(2028, 2, 1), date(2028, 2, 29)) == [date(2028, 2, 29)]


@pytest.mark.parametrize("wrong", ["weekly", "0th", "1th", "22th", "32nd", "24th business", "", "mon-", "first"])
def test_other_words_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        check_days(wrong)


# --- dues ---


def test_each_of_a_list_of_dates_is_a_delivery_the_first_too() -> None:
    found = table(days(["2026-12-05", "2026-11-05", "2029-01-01"])).between(
        datetime(2020, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    )
    assert [due.day.isoformat() for due in found] == ["2026-11-05", "2026-12-05", "2029-01-01"]
    assert [due.before.isoformat() for due in found] == ["2026-11-05", "2026-11-05", "2026-12-05"]
    first = found[0]
    assert first.until - first.since == timedelta(days=366)
    assert first.at == datetime(2026, 11, 5, 6, 30, tzinfo=UTC)


def test_after_the_last_date_there_is_no_delivery() -> None:
    of = table(days(["2026-11-05"]))
    assert of.at(datetime(2026, 11, 5, 7, 15, tzinfo=UTC)) is not None
    assert of.at(datetime(2026, 11, 5, 7, 15, 1, tzinfo=UTC)) is None
    assert of.of_day(date(2026, 11, 6)) is None


def test_a_due_that_the_clock_skips_is_as_much_later_and_one_that_comes_twice_is_the_first() -> None:
    of = table(due="02:30", zone="Europe/Berlin")
    spring, autumn = (of.of_day(day) for day in (date(2026, 3, 29), date(2026, 10, 25)))
    assert spring
    assert autumn
    assert f"{spring.at.astimezone(ZoneInfo('Europe/Berlin')):%H:%M%z}" == "03:30+0200"
    assert f"{autumn.at.astimezone(ZoneInfo('Europe/Berlin')):%H:%M%z}" == "02:30+0200"


def test_a_file_s_date_is_of_the_delivery_of_that_day_or_of_the_one_that_it_moved_to() -> None:
    def of_day(of: Days, day: str) -> str:
        due = table(of).of_day(date.fromisoformat(day))
        assert due
        return due.day.isoformat()

    assert of_day(days("business"), "2026-11-28") == "2026-11-30"  # a Saturday: the next
    closed = ("2027-01-01",)
    assert of_day(days("1st", closed, if_closed="previous"), "2027-01-01") == "2026-12-31"
    assert of_day(days("1st", closed, if_closed="next"), "2027-01-01") == "2027-01-02"
    assert of_day(days("1st", closed), "2027-01-01") == "2027-02-01"


def test_a_file_is_of_the_delivery_whose_grace_has_not_ended() -> None:
    of = table()
    for clock, day in (("07:15:00", 26), ("07:15:01", 27), ("06:00:00", 26)):
        found = of.at(datetime.fromisoformat(f"2026-11-26T{clock}+00:00"))
        assert found is not None
        assert found.day == date(2026, 11, day), clock


# --- what always holds ---

dates = st.dates(date(2020, 1, 1), date(2030, 12, 31))
some_days = st.builds(
    Days,
    st.sampled_from(WORDS) | st.lists(dates, min_size=1, max_size=20, unique=True).map(tuple),
    st.sampled_from(["", "", "US", "DE-BY"]),
    st.lists(st.dates(date(2026, 1, 1), date(2026, 12, 31)), max_size=40).map(tuple),
    st.sampled_from(["skip", "next", "previous"]),
)
timetables = st.builds(
    Timetable,
    some_days,
    st.times().map(lambda clock: clock.replace(microsecond=0)) | st.sampled_from([time(2, 30), time(0), time(2)]),
    st.sampled_from(ZONES),
    st.floats(0, 5 * 86400).map(int).map(float),
)
moments = st.datetimes(datetime(2025, 12, 1), datetime(2027, 2, 1), timezones=st.just(UTC))


@given(some_days, dates, st.integers(0, 500))
def test_days_are_ascending_open_and_the_same_however_they_are_asked_for(of: Days, first: date, length: int) -> None:
    found = of.between(first, first + length * DAY)
    assert found == sorted(set(found))
    assert all(of.is_open(day) and first <= day <= first + length * DAY for day in found)
    if of.days in ("business", "mon-fri", "wed") or "business" in of.days:
        assert all(day.weekday() < 5 for day in found)
    for day in found:
        near = [day + step * DAY for step in range(-FURTHEST, FURTHEST + 1)]
        assert any(of.names(other) and of.moved(other) == day for other in near)
    one_by_one = [day for day in (first + step * DAY for step in range(length + 1)) if of.between(day, day)]
    assert one_by_one == found


@given(timetables, moments, st.integers(1, 40 * 86400))
def test_every_moment_is_in_the_span_of_one_delivery(of: Timetable, begin: datetime, length: int) -> None:
    found = of.between(begin, begin + timedelta(seconds=length))
    for due, after in itertools.pairwise(found):
        assert after.since == due.until
        assert after.before == due.day
        assert after.day > due.day
    for due in found:
        assert due.until - due.at == timedelta(seconds=of.grace)
        assert due.until > begin
        assert due.since < begin + timedelta(seconds=length)
        assert of.of_day(due.day) == due
        assert of.at(due.until) == due == of.at(due.since + timedelta.resolution)
    if of.days.days == "daily" and not of.days.calendar:
        assert found
        assert found[0].since <= begin
        assert found[-1].until >= begin + timedelta(seconds=length)


@given(timetables, moments)
def test_a_moment_s_delivery_is_the_one_that_a_longer_look_finds_too(of: Timetable, moment: datetime) -> None:
    wide = of.between(moment - timedelta(days=500), moment + timedelta(days=500))
    expected: list[Due | None] = [due for due in wide if due.since < moment <= due.until]
    assert [of.at(moment)] == (expected or [None])
    assert len(expected) <= 1


@given(st.sampled_from(WORDS), st.integers(2020, 2040), st.integers(1, 12))
def test_words_of_a_month_name_at_most_one_of_its_days(words: str, year: int, month: int) -> None:
    found = Days(words, "US").between(date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1]))
    if "st" in words or "th" in words:
        assert len(found) <= 1

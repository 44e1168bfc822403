"""How many rows are usual on a day: what is said of a delivery by those before it."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.usual import arm
from etl.calendar.days import Days
from etl.calendar.usual import unusual

DAY = timedelta(days=1)
MONDAY = date(2026, 9, 7)
DAILY = Days()


def weekly(*rows: int) -> dict[date, int]:
    """Return deliveries of Mondays, the last a week before MONDAY."""
    return {MONDAY - 7 * back * DAY: count for back, count in zip(range(len(rows), 0, -1), rows, strict=True)}


@pytest.mark.parametrize(
    ("rows", "is_odd"), [(0, True), (50, True), (51, False), (100, False), (150, False), (151, True)]
)
def test_rows_are_odd_from_the_share_on(rows: int, is_odd: bool) -> None:
    said = unusual(MONDAY, rows, weekly(*[100] * 8), 0.5, DAILY)
    delivered = "50 rows were" if rows == 50 else f"{rows} rows were"
    assert said == (f"{delivered} delivered, 100 are usual on a Monday (the median of 8)" if is_odd else None)


def test_the_last_eight_of_the_same_weekday_count() -> None:
    tuesdays = {day + DAY: 1000 for day in weekly(*[1] * 20)}
    assert unusual(MONDAY, 100, weekly(*[9000] * 12, *[100] * 8) | tuesdays, 0.5, DAILY) is None
    assert unusual(MONDAY, 1000, weekly(*[100] * 8) | tuesdays, 0.5, DAILY)


def test_below_five_nothing_is_usual() -> None:
    assert unusual(MONDAY, 1, weekly(100, 100, 100, 100), 0.5, DAILY) is None
    assert unusual(MONDAY, 1, weekly(100, 100, 100, 100, 100), 0.5, DAILY)


def test_nothing_at_all_is_odd_unless_it_has_been_before() -> None:
    assert unusual(MONDAY, 0, weekly(100), 0.5, DAILY) == "0 rows were delivered, as never before"
    assert unusual(MONDAY, 0, weekly(100, 0), 0.5, DAILY) is None
    assert unusual(MONDAY, 0, weekly(0, 0, 0, 0, 0), 0.5, DAILY) is None
    assert unusual(MONDAY, 1, weekly(0, 0, 0, 0, 0), 0.5, DAILY) == (
        "1 row was delivered, 0 are usual on a Monday (the median of 5)"
    )


def test_odd_ones_among_the_earlier_change_little() -> None:
    for odd in ((0, 0, 0), (5000, 5000, 5000), (0, 50, 5000)):
        assert unusual(MONDAY, 100, weekly(100, *odd, 100, 100, 100, 100), 0.5, DAILY) is None
        assert unusual(MONDAY, 45, weekly(100, *odd, 100, 100, 100, 100), 0.5, DAILY)


@pytest.mark.parametrize(
    ("words", "this", "that"),
    [
        ("daily", date(2026, 10, 31), date(2026, 9, 30)),  # the last day of the month
        ("daily", date(2026, 10, 1), date(2026, 9, 1)),
        ("business", date(2026, 10, 30), date(2026, 9, 30)),  # the last business day
        ("business", date(2026, 10, 2), date(2026, 9, 2)),
        ("mon-fri", date(2026, 11, 2), date(2026, 9, 30)),  # the first delivery since the month has ended
    ],
)
def test_one_earlier_month_explains_many_rows(words: str, this: date, that: date) -> None:
    days = Days(words)
    earlier = dict.fromkeys(days.between(this - 63 * DAY, this - DAY), 100)
    assert unusual(this, 500, earlier, 0.5, days)
    assert unusual(this, 500, earlier | {that: 480}, 0.5, days) is None
    assert unusual(this, 240, earlier | {that: 480}, 0.5, days)  # half of a month's end
    assert unusual(this, 500, earlier | {that + DAY: 480}, 0.5, days) or words == "mon-fri"


def test_a_month_s_end_swings_with_its_weekday() -> None:
    usual = (160, 110, 100, 100, 90, 40, 50)
    earlier = {MONDAY + back * DAY: usual[(MONDAY + back * DAY).weekday()] for back in range(-60, 54)}
    earlier[date(2026, 9, 30)] = 500  # a Wednesday
    assert unusual(date(2026, 10, 31), 200, earlier, 0.5, DAILY) is None  # a Saturday
    assert unusual(date(2026, 10, 31), 100, earlier, 0.5, DAILY)


def test_two_earlier_months_explain_few_rows() -> None:
    first = [date(2026, month, 1) for month in (5, 6, 7, 8, 9, 10)]
    earlier = {date(2026, 5, 1) + count * DAY: 100 for count in range(153)}
    assert unusual(first[-1], 20, earlier | {first[-2]: 20}, 0.5, DAILY)
    assert unusual(first[-1], 20, earlier | dict.fromkeys(first[-3:-1], 20), 0.5, DAILY) is None


def test_what_comes_once_a_month_is_compared_with_every_month() -> None:
    days = Days("1st")
    earlier = {date(2026, month, 1): 100 for month in range(1, 9)}
    assert (
        unusual(date(2026, 9, 1), 40, earlier, 0.5, days) == "40 rows were delivered, 100 are usual (the median of 8)"
    )
    assert unusual(date(2026, 9, 1), 60, earlier, 0.5, days) is None


@given(st.lists(st.integers(0, 2000), max_size=30), st.integers(0, 2000), st.sampled_from([0.1, 0.5, 1.0]))
def test_a_share_is_never_taken_for_a_smaller_one(counts: list[int], rows: int, change: float) -> None:
    """Many rows are odd beyond the share only; of few, all beyond it where rows do not swing."""
    earlier = weekly(*counts)
    said = unusual(MONDAY, rows, earlier, change, Days("mon"))
    if len(counts) < 5 or not rows:
        return
    recent = sorted(counts[-8:])
    median = (recent[(len(recent) - 1) // 2] + recent[len(recent) // 2]) / 2
    if said:
        assert rows > (1 + change) * median or rows < median
    if not said and all(count == counts[0] for count in counts):
        assert (1 - change) * median < rows <= (1 + change) * median or rows == median


@pytest.mark.parametrize("growth", [0.0, 0.1])
@pytest.mark.parametrize("start", [date(2026, 3, 2), date(2026, 8, 20)])
def test_ninety_days_of_fifty_clients_have_at_most_two_false_alarms_and_no_half_is_missed(
    start: date, growth: float
) -> None:
    clean = arm(1, start, 0.1, growth, 0.0)
    assert clean.clean > 3000
    assert clean.false <= 2
    halved = arm(2, start, 0.1, growth, 0.01)
    assert halved.halved > halved.too_early
    assert (halved.missed, halved.false <= 2) == (0, True)

"""Each file belongs to one delivery, whenever it is looked for; what lies there first starts nothing."""

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from etl.calendar.days import Days
from etl.calendar.dues import Timetable
from etl.sources.arrivals import Arrival
from jobs.deliveries import sorting
from jobs.deliveries.record import Record
from jobs.deliveries.sorting import Rule, begin, expect, is_complete, judge, see
from tests.helpers.examples import examples

ZONE = "America/Chicago"
MINUTE = 60.0
START = datetime(2026, 10, 30, 12, tzinfo=ZoneInfo(ZONE)).timestamp()  # the clocks go back on 1 November


def rule(days: str = "daily", **keys: object) -> Rule:
    return Rule(Timetable(Days(days), time(6, 30), ZONE, 45 * MINUTE), settle=2.0, poll=MINUTE, **keys)  # type: ignore[arg-type]


def file(name: str, day: date | None = None, modified: float = 0.0, **keys: object) -> Arrival:
    return Arrival(name, name, 10, modified, day, True, **keys)  # type: ignore[arg-type]


def look(record: Record, rule: Rule, now: float, *found: Arrival) -> None:
    expect(record, rule, now)
    see(record, rule, now, found)
    judge(record, rule, now)
    record.looked = now


def at(day: int, clock: str, month: int = 11) -> float:
    return datetime.combine(date(2026, month, day), time.fromisoformat(clock), ZoneInfo(ZONE)).timestamp()


@given(
    arrivals=st.lists(
        st.tuples(st.floats(0, 10 * 86400), st.none() | st.dates(date(2026, 10, 25), date(2026, 11, 12))), max_size=12
    ),
    looks=st.lists(st.floats(0, 10 * 86400), min_size=1, max_size=40),
    days=st.sampled_from(["daily", "mon-fri", "1st", "last business"]),
)
@hypothesis_settings(max_examples=examples(200))
def test_each_file_belongs_to_exactly_one_delivery_whatever_the_order_of_looks(
    arrivals: list[tuple[float, date | None]], looks: list[float], days: str
) -> None:
    by = rule(days)
    record = begin(by, START, [], {})
    seen: dict[str, float] = {}
    belongs: dict[str, str | None] = {}
    for moment in sorted({START + each for each in looks}):
        there = [(f"f{n}", START + came, day) for n, (came, day) in enumerate(arrivals) if START + came <= moment]
        look(record, by, moment, *(file(name, day, modified=came) for name, came, day in there))
        for name, _, _ in there:
            seen.setdefault(name, moment)
        for item in record.items:
            assert belongs.setdefault(item.name, item.day) == item.day
            assert item.seen == seen[item.name]
    assert [item.name for item in sorted(record.items, key=lambda item: item.name)] == sorted(seen)
    for item in record.items:
        named = arrivals[int(item.name[1:])][1]
        due = (
            by.timetable.of_day(named) if named else by.timetable.at(datetime.fromtimestamp(item.seen, ZoneInfo(ZONE)))
        )
        has_gap = named is None and due is not None and item.day is not None and item.day < due.day.isoformat()
        assert due is not None
        assert item.day == due.day.isoformat() or has_gap
    spans = [
        each.day
        for each in by.timetable.between(
            datetime.fromtimestamp(START, ZoneInfo(ZONE)), datetime.fromtimestamp(record.looked, ZoneInfo(ZONE))
        )
    ]
    assert {day.isoformat() for day in spans} <= set(record.deliveries)


@given(looks=st.lists(st.floats(1, 290), min_size=200, max_size=200), came=st.floats(0, 86400))
@hypothesis_settings(max_examples=examples(50))
def test_who_looks_often_enough_goes_by_the_span_alone(looks: list[float], came: float) -> None:
    by, now = rule(), START
    record = begin(by, now, [], {})
    for step in looks:
        now += step
        look(record, by, now, *([file("f")] if now >= START + came else []))
    for item in record.items:
        due = by.timetable.at(datetime.fromtimestamp(item.seen, ZoneInfo(ZONE)))
        assert due is not None
        assert item.day == due.day.isoformat()


def test_what_came_while_nobody_looked_is_the_first_delivery_that_lacks_it() -> None:
    """Else a cron process that was away over a grace's end makes one delivery missing and the next one come."""
    by = rule()
    record = begin(by, at(3, "05:00"), [], {})
    look(record, by, at(3, "05:00"))
    look(record, by, at(5, "08:00"), file("a"), file("b"), file("c"), file("d"))
    assert [item.day for item in record.items] == ["2026-11-03", "2026-11-04", "2026-11-05", "2026-11-06"]
    assert [each.day for each in record.in_order() if each.watched and each.missing] == []


def test_the_day_the_clocks_are_set_has_one_delivery() -> None:
    by = rule()
    record = begin(by, at(31, "12:00", 10), [], {})
    for hour in range(60):
        look(record, by, at(31, "12:00", 10) + hour * 3600)
    assert [each.day for each in record.in_order() if each.watched] == ["2026-11-01", "2026-11-02", "2026-11-03"]
    assert datetime.fromtimestamp(record.deliveries["2026-11-01"].due, ZoneInfo(ZONE)).hour == 6
    assert record.deliveries["2026-11-02"].due - record.deliveries["2026-11-01"].due == 24 * 3600


def test_a_day_without_a_delivery_gives_its_file_to_the_next() -> None:
    by = rule("mon-fri")
    record = begin(by, at(6, "12:00"), [], {})
    look(record, by, at(7, "06:00"), file("a", date(2026, 11, 7)), file("b", date(2026, 11, 9)), file("c"))
    assert [item.day for item in record.items] == ["2026-11-09"] * 3


def test_a_month_has_a_last_business_day() -> None:
    by = rule("last business")
    record = begin(by, at(20, "12:00"), [], {})
    look(
        record,
        by,
        at(20, "12:00"),
        file("a", date(2026, 11, 30)),
        file("b", date(2026, 11, 1)),
        file("c", date(2026, 12, 1)),
    )
    assert [item.day for item in record.items] == ["2026-11-30", "2026-11-30", "2026-12-31"]


# --- what is there first ---


def test_files_that_lie_there_first_and_were_loaded_are_no_delivery() -> None:
    by, now = rule(), at(26, "10:00")
    record = begin(by, now, [file(f"f{n}") for n in range(300)], {f"f{n}": {0.0} for n in range(300)})
    look(record, by, now, *(file(f"f{n}") for n in range(300)))
    assert {item.day for item in record.items} == {None}
    assert all(item.is_covered for item in record.items)
    assert [(day, each.came) for day, each in record.deliveries.items()] == [("2026-11-27", None)]


def test_files_that_lie_there_first_and_were_not_loaded_have_come_now() -> None:
    by, now = rule(), at(26, "10:00")
    record = begin(by, now, [file("f", modified=5.0)], {"f": {1.0}, "g": {2.0}})
    look(record, by, now, file("f", modified=5.0))
    [item] = record.items
    assert (item.day, item.is_covered) == ("2026-11-27", False)


def test_of_dated_files_that_lie_there_first_only_the_last_that_was_due_and_later_ones_are_new() -> None:
    by, now = rule(), at(26, "10:00")
    found = [file(f"f{day}", date(2026, 11, day)) for day in range(1, 29)]
    record = begin(by, now, found, {"f26": {None}})
    look(record, by, now, *found)
    assert [item.name for item in record.items if not item.is_covered] == ["f27", "f28"]
    assert sorted(record.deliveries) == ["2026-11-26", "2026-11-27", "2026-11-28"]
    assert all(each.came == now for each in record.deliveries.values())
    assert [each.watched for each in record.in_order()] == [False, True, True]


def test_what_was_missing_before_anyone_looked_is_known_where_files_have_dates() -> None:
    by, now = rule(), at(26, "10:00")
    record = begin(by, now, [file("f25", date(2026, 11, 25))], {})
    look(record, by, now, file("f25", date(2026, 11, 25)))
    missing = record.deliveries["2026-11-26"]
    assert (missing.missing, missing.watched) == (now, False)
    assert not record.items[0].day


# --- when a delivery is complete ---


def test_a_delivery_of_three_files_is_complete_with_the_third() -> None:
    by = rule(files=3)
    record = begin(by, at(26, "05:00"), [], {})
    for count in (1, 2, 3):
        look(record, by, at(26, f"05:0{count}"), *(file(f"f{n}") for n in range(count)))
        assert is_complete(record, by, "2026-11-26") == (count == 3)
    assert record.deliveries["2026-11-26"].came == at(26, "05:03")


def test_what_has_been_read_counts_where_it_has_gone_but_not_for_a_run_that_needs_all_of_it() -> None:
    by = rule(files=2)
    record = begin(by, at(26, "05:00"), [], {})
    look(record, by, at(26, "05:01"), file("a"), file("b"))
    for item in record.items:
        item.run = "r1"
    look(record, by, at(26, "05:02"), file("b", modified=9.0))
    assert is_complete(record, by, "2026-11-26")
    assert not is_complete(record, by, "2026-11-26", here=True)


def test_a_name_for_the_time_of_a_transfer_is_forgotten() -> None:
    by = rule()
    record = begin(by, at(26, "05:00"), [], {})
    growing = file("claims.csv.part")._replace(is_settled=False)
    look(record, by, at(26, "05:01"), growing)
    look(record, by, at(26, "05:02"), file("claims.csv"))
    assert [item.name for item in record.items] == ["claims.csv"]


def test_a_file_that_stops_growing_is_settled_whatever_its_clock_says() -> None:
    by = rule()
    record = begin(by, at(26, "05:00"), [], {})
    for minute, size, settled in ((1, 5, False), (2, 9, False), (3, 9, True)):
        ahead = file("f", modified=at(27, "05:00"))._replace(is_settled=False, size=size)
        look(record, by, at(26, f"05:0{minute}"), ahead)
        [item] = record.items
        assert (item.settled is not None) == settled
    assert item.seen == at(26, "05:01")


@pytest.mark.parametrize(
    ("marker", "complete"),
    [("claims.done", True), ("claims.csv.done", True), ("other.done", True)],
)
def test_a_marker_without_a_date_is_of_the_file_it_is_named_after_or_of_its_span(marker: str, complete: bool) -> None:
    by = rule(complete="*.done")
    record = begin(by, at(26, "07:00"), [], {})
    look(record, by, at(26, "07:14"), file("claims.csv"))
    assert not is_complete(record, by, "2026-11-26")
    look(record, by, at(26, "07:16"), file("claims.csv"), file(marker, is_marker=True))
    assert is_complete(record, by, "2026-11-26") == (marker != "other.done")


@pytest.mark.parametrize("order", ["at once", "marker first", "file first"])
def test_a_file_and_a_marker_that_are_overwritten_each_day_are_each_days(order: str) -> None:
    by = rule(complete="*.done")
    record = begin(by, at(24, "05:00"), [], {})
    old: tuple[Arrival, Arrival] | None = None
    for day in (24, 25, 26):
        new = file("claims.csv", modified=day), file("claims.done", modified=day, is_marker=True)
        before = old or new
        first = {"at once": new, "marker first": (before[0], new[1]), "file first": (new[0], before[1])}[order]
        if day > 24:
            look(record, by, at(day, "06:00"), *first[::-1])
        look(record, by, at(day, "06:01"), *new[::-1])
        assert record.deliveries[f"2026-11-{day}"].came in (at(day, "06:00"), at(day, "06:01"))
        look(record, by, at(day, "07:16"), *new)
        old = new
    assert not any(each.missing for each in record.deliveries.values() if each.watched)


def test_a_marker_without_files_completes_nothing() -> None:
    by = rule(complete="*.done")
    record = begin(by, at(26, "05:00"), [], {})
    look(record, by, at(26, "05:01"), file("all.done", is_marker=True))
    assert not is_complete(record, by, "2026-11-26")


def test_deliveries_that_are_due_while_nobody_looks_are_missing_all_the_same() -> None:
    by = rule("mon-fri")
    record = begin(by, at(25, "10:00"), [], {})
    look(record, by, at(25, "10:00"), file("early", date(2026, 11, 30)))
    look(record, by, at(30, "05:00"), file("early", date(2026, 11, 30)))
    assert {day: bool(each.missing) for day, each in record.deliveries.items() if each.watched} == {
        "2026-11-26": True, "2026-11-27": True, "2026-11-30": False
    }  # fmt: skip


def test_a_new_time_of_day_moves_what_has_not_come_yet() -> None:
    record = begin(rule(), at(26, "10:00"), [], {})
    look(record, rule(), at(26, "10:00"))
    later = Rule(Timetable(Days("mon-fri"), time(22, 0), ZONE, 0.0), settle=2.0, poll=MINUTE)
    look(record, later, at(26, "10:05"))
    assert [(each.day, each.due) for each in record.in_order() if not each.missing] == [("2026-11-26", at(26, "22:00"))]


def test_the_cache_of_the_present_delivery_is_right_at_every_moment() -> None:
    by = rule()
    for minute in range(0, 3 * 1440, 7):
        now = START + minute * MINUTE
        due = by.timetable.at(datetime.fromtimestamp(now, ZoneInfo("UTC")))
        assert sorting.current(by.timetable, now) == due

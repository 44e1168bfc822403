"""A path with a date in it matches the names of any day, and a name says which day it is of."""

import glob
from datetime import date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from etl.calendar.names import HOLE, Moment, Names, found_in
from tests.helpers.examples import examples

FORMS = [
    *("%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%y%m%d", "%-d_%-m_%Y", "%d%b%Y", "%B %d, %Y", "%A %d %B %Y", "%Y%j", "%y%j"),
    *(
        "%G-W%V-%u",
        "%Y-W%W-%a",
        "%Y week %U %A",
        "%Y/%m/%d",
        "%m%d",
        "%d %b",
        "%Y%m%dT%H%M%S",
        "%%%Y%m%d%%",
        "%I%p %Y%m%d",
    ),
]
DAYS = st.dates(date(1970, 1, 1), date(2068, 12, 31))


def of(form: str | None, name: str = "date") -> Names:
    return Names(f"/in/claims-{HOLE}-*.csv", (Moment(name, form),))


@given(form=st.sampled_from(FORMS), day=DAYS, time=st.times())
@hypothesis_settings(max_examples=examples(300))
def test_every_date_is_read_back_as_it_is_written(form: str, day: date, time: object) -> None:
    moment = datetime.combine(day, time)  # type: ignore[arg-type]
    name = f"/in/claims-{moment.strftime(form)}-1.csv"
    assert of(form).day(name, near=day) == day


@given(form=st.sampled_from([*FORMS, "%Y-%m", "%B", "%Y"]), day=DAYS)
@hypothesis_settings(max_examples=examples(50))
def test_the_glob_matches_every_date(tmp_path_factory: pytest.TempPathFactory, form: str, day: date) -> None:
    root = tmp_path_factory.mktemp("in")
    path = root / f"claims-{day.strftime(form)}-1.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    names = Names(f"{root}/claims-{HOLE}-*.csv", (Moment("date", form),))
    assert glob.glob(names.glob) == [str(path)]


@given(first=st.sampled_from(FORMS[:4]), second=st.sampled_from(FORMS), day=DAYS, other=DAYS)
@hypothesis_settings(max_examples=examples(100))
def test_a_name_with_two_dates_is_of_neither(first: str, second: str, day: date, other: date) -> None:
    names = Names(f"/{HOLE}/{HOLE}.csv", (Moment("date", first), Moment("date", second)))
    same = names.day(f"/{day.strftime(first)}/{day.strftime(second)}.csv", near=day)
    assert same == day
    if (
        day != other
        and (day.month, day.day) != (other.month, other.day)
        and day.strftime(second) != other.strftime(second)
    ):
        assert names.day(f"/{day.strftime(first)}/{other.strftime(second)}.csv", near=day) is None


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("%Y%m%d", "20260230"),
        ("%Y%m%d", "20261301"),
        ("%Y%m%d", "2026112"),
        ("%Y-%m-%d", "2026-1-1"),
        ("%d%b", "31Feb"),
        ("%Y", "0000"),
    ],
)
def test_what_is_no_date_is_none(form: str, written: str) -> None:
    assert of(form).day(f"/in/claims-{written}-1.csv", date(2026, 1, 1)) is None


def test_a_form_without_a_day_says_the_first_that_is_written_so() -> None:
    near = date(2026, 1, 1)
    assert of("%Y-%m").day("/in/claims-2026-11-x.csv", near) == date(2026, 11, 1)
    assert of("%Y").day("/in/claims-2026-x.csv", near) == date(2026, 1, 1)
    assert of("%G-W%V").day("/in/claims-2026-W01-x.csv", near) == date(2025, 12, 29)


def test_a_form_without_a_year_says_the_date_that_is_nearest() -> None:
    assert of("%m%d").day("/in/claims-1231-x.csv", date(2027, 1, 2)) == date(2026, 12, 31)
    assert of("%m%d").day("/in/claims-0102-x.csv", date(2026, 12, 31)) == date(2027, 1, 2)


def test_of_a_window_the_start_says_the_day() -> None:
    names = Names(f"/in/{HOLE}-{HOLE}.csv", (Moment("start"), Moment("end")))
    assert names.day("/in/2026-11-25-2026-11-26.csv", date(2026, 1, 1)) == date(2026, 11, 25)
    assert names.day("/in/2026-11-25T060000-2026-11-26.csv", date(2026, 1, 1)) == date(2026, 11, 25)


def test_names_without_a_date_say_none() -> None:
    names = Names("/in/claims-*.csv")
    assert names.telling is None
    assert names.day("/in/claims-20261126.csv", date(2026, 1, 1)) is None


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("/in/[[]a]/**/x-\0.csv", "/in/[a]/deep/er/x-2026-11-26.csv"),
        ("/in/**/x-\0.csv", "/in/x-2026-11-26.csv"),
        ("/in/[!b]?-\0[0-9].csv", "/in/ac-2026-11-261.csv"),
        ("/in/[a^]-\0.csv", "/in/^-2026-11-26.csv"),
        ("/in/a.b+c-\0.csv", "/in/a.b+c-2026-11-26.csv"),
    ],
)
def test_the_rest_of_a_name_is_what_the_glob_says(tmp_path: Path, pattern: str, name: str) -> None:
    assert Names(pattern, (Moment("date"),)).day(name, date(2026, 1, 1)) == date(2026, 11, 26)
    assert Names(pattern, (Moment("date"),)).day(name.replace("/in", "/other"), date(2026, 1, 1)) is None


def test_a_date_is_found_anywhere_in_a_text_but_not_within_a_longer_number() -> None:
    near = date(2026, 1, 1)
    assert found_in("claims_20261126.done", ["%Y%m%d"], near) == date(2026, 11, 26)
    assert found_in("120261126", ["%Y%m%d"], near) is None
    assert found_in("20261399 20261127", ["%Y%m%d"], near) == date(2026, 11, 27)
    assert found_in("all.done", ["%Y%m%d"], near) is None

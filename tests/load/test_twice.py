"""No row twice and none stale: what other runs have loaded meanwhile, older files, and columns that a file lacks."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.config.pipeline import Pipeline
from etl.errors import ChangedFile
from etl.load import Delivery, ledger, load
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, values

ROWS = chunk([{"id": 1}, {"id": 2}])


@pytest.fixture(params=["sqlite", "postgresql", pytest.param("duckdb", marks=pytest.mark.slow)])
def target_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same test with every kind of target; DuckDB takes a second for each."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("pg_url")
        return url
    return f"{request.param}:///{tmp_path}/target.db"


def keyed(**rows: str) -> Any:
    """Return rows of a key `k` and a value `v`."""
    return chunk([{"k": key, "v": value} for key, value in rows.items()])


# --- appended by another run meanwhile ---


@pytest.mark.parametrize("how", [{"atomic": True}, {"max_rejects": "50%"}], ids=str)
def test_a_retry_leaves_out_what_a_later_run_has_appended(target_url: str, how: dict[str, Any]) -> None:
    made, parts = pipeline(**how), [partition(1), partition(2)]
    deliver(target_url, made, ROWS, of=parts[0], partitions=2)
    assert not finished(target_url, made, parts, done=[1]).applied
    for part in parts:
        deliver(target_url, made, ROWS, of=part, partitions=2, run="r2", content=f"c{part.number}")
    assert finished(target_url, made, parts, run="r2").loaded == 4
    deliver(target_url, made, ROWS, of=parts[1], partitions=2, content="c2", attempt=2)
    final = finished(target_url, made, parts)
    assert (final.loaded, final.unchanged) == (0, 4)
    assert len(values(target_url, "id")) == 4
    assert finished(target_url, made, parts) == final


def test_of_two_runs_that_stage_the_same_files_one_appends_them(target_url: str) -> None:
    made, parts = pipeline(atomic=True), [partition(1), partition(2)]
    for run in ("r1", "r2"):
        for part in parts:
            deliver(target_url, made, ROWS, of=part, partitions=2, run=run, content=f"c{part.number}")
    assert finished(target_url, made, parts, run="r2").loaded == 4
    assert (finished(target_url, made, parts).loaded, finished(target_url, made, parts).unchanged) == (0, 4)
    assert len(values(target_url, "id")) == 4


def test_only_what_another_run_has_appended_is_left_out(target_url: str) -> None:
    made, parts = pipeline(atomic=True), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, ROWS, of=part, partitions=2, content=f"c{part.number}")
    deliver(target_url, made, ROWS, of=partition(1), run="r2", content="c1")
    final = finished(target_url, made, parts)
    assert (final.loaded, final.unchanged) == (2, 2)
    assert values(target_url, "_run, _file") == [("r1", "2.csv")] * 2 + [("r2", "1.csv")] * 2


def test_rows_that_the_run_which_appended_their_file_meanwhile_has_rejected_are_not_unchanged(target_url: str) -> None:
    made, parts = pipeline(atomic=True), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, ROWS, of=part, partitions=2, content=f"c{part.number}")
    one = Delivery(made, "r2", partition(1), "c1", 1, read=2)
    load(one, iter([ROWS.slice(0, 1)]), url=target_url, rejected=1, read=2)
    final = finished(target_url, made, parts)
    assert (final.loaded, final.unchanged, final.rejected) == (2, 1, 1)
    assert final.warnings == (
        "1.csv was appended by run r2, which did not load 1 of 2 rows: rq-etl rejects r2 --export FILE, "
        "fix what is wrong, then rq-etl rejects r2 --load FILE",
    )
    again = finished(target_url, made, parts)
    assert (again.loaded, again.unchanged, again.rejected) == (2, 1, 1)


def test_a_file_that_another_run_has_appended_otherwise_meanwhile_is_refused(target_url: str) -> None:
    made, parts = pipeline(atomic=True), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, ROWS, of=part, partitions=2, content=f"c{part.number}")
    deliver(target_url, made, chunk([{"id": 7}]), of=partition(1), run="r2", content="other")
    with pytest.raises(ChangedFile, match=r"1\.csv has changed since run r2"):
        finished(target_url, made, parts)
    assert values(target_url, "id") == [(7,)]


# --- an older file never beats a newer one ---


def merged(url: str, made: Pipeline, run: str, *files: tuple[str, float, str, dict[str, str]]) -> Any:
    """Merge files (name, time, content, rows) in one run."""
    parts = [partition(number, name, modified=time) for number, (name, time, _, _) in enumerate(files, 1)]
    for part, (_, _, content, rows) in zip(parts, files, strict=True):
        counts = deliver(url, made, keyed(**rows), of=part, partitions=len(parts), run=run, content=content)
    return finished(url, made, parts, run=run) if len(parts) > 1 else counts


@pytest.mark.parametrize("also", [[], [("x.csv", 2.0, "x", {"x": "x"})]], ids=["alone", "with another"])
def test_a_file_that_comes_late_never_beats_a_newer_one_that_is_gone(target_url: str, also: list[Any]) -> None:
    made = pipeline("merge", key="k")
    merged(target_url, made, "r1", ("new.csv", 9.0, "n", {"a": "new", "b": "new"}))
    late = merged(target_url, made, "r2", ("old.csv", 1.0, "o", {"a": "old", "c": "old"}), *also)
    assert (late.loaded, late.superseded) == (1 + len(also), 1)
    assert [row for row in values(target_url, "k, v") if row[0] != "x"] == [("a", "new"), ("b", "new"), ("c", "old")]


def test_a_file_that_was_fixed_beats_those_that_were_newer_than_it(target_url: str) -> None:
    made = pipeline("merge", key="k")
    merged(target_url, made, "r1", ("a.csv", 1.0, "a", {"k": "a"}), ("b.csv", 2.0, "b", {"k": "b"}))
    assert values(target_url, "v") == [("b",)]
    assert merged(target_url, made, "r2", ("a.csv", 3.0, "a2", {"k": "fixed"})).loaded == 1
    assert values(target_url, "v") == [("fixed",)]


def test_a_file_replaced_by_an_older_copy_of_itself_is_loaded(target_url: str) -> None:
    made = pipeline("merge", key="k")
    merged(target_url, made, "r1", ("a.csv", 5.0, "a", {"k": "a"}))
    assert merged(target_url, made, "r2", ("a.csv", 3.0, "a2", {"k": "backup"})).loaded == 1


@pytest.mark.parametrize("mode", [{"mode": "merge", "key": "k"}, {"mode": "replace", "by": ["_file"]}], ids=str)
def test_a_file_replaced_by_an_older_copy_of_itself_is_loaded_beside_others(
    target_url: str, mode: dict[str, Any]
) -> None:
    made = pipeline(**mode)
    merged(target_url, made, "r1", ("a.csv", 5.0, "a", {"k": "a"}))
    merged(target_url, made, "r2", ("a.csv", 3.0, "a2", {"k": "backup"}), ("b.csv", 2.0, "b", {"b": "b"}))
    assert values(target_url, "k, v") == [("b", "b"), ("k", "backup")]


def test_a_newer_file_that_is_not_read_again_stays_newer(target_url: str) -> None:
    made = pipeline("merge", key="k")
    merged(target_url, made, "r1", ("a.csv", 1.0, "a", {"k": "a"}), ("b.csv", 2.0, "b", {"k": "b"}))
    parts = [partition(1, "a.csv", modified=3.0), partition(2, "b.csv", modified=4.0)]  # b was touched only
    deliver(target_url, made, keyed(k="a2"), of=parts[0], partitions=2, run="r2", content="a2")
    delivery = ledger.Delivery(made, "r2", parts[1], "b", 2, skipped=1)
    load(delivery, iter(()), url=target_url, rejected=0, read=1)
    assert finished(target_url, made, parts, run="r2").superseded == 1
    assert values(target_url, "v") == [("b",)]


def test_files_of_the_same_time_are_ordered_by_name_in_whichever_run_they_come(target_url: str) -> None:
    made = pipeline("merge", key="k")
    merged(target_url, made, "r1", ("b.csv", 1.0, "b", {"k": "b"}))
    merged(target_url, made, "r2", ("a.csv", 1.0, "a", {"k": "a"}))
    assert values(target_url, "v") == [("b",)]


def test_files_read_together_are_as_old_as_each_of_them(target_url: str) -> None:
    made = pipeline("merge", key="k", split="none")
    both = partition(1, ["a.csv", "b.csv"])
    pieces = tuple(
        piece.model_copy(update={"modified": time}) for piece, time in zip(both.pieces, (1.0, 5.0), strict=True)
    )
    rows = chunk([{"k": "a", "v": "a"}], first=2)
    later = chunk([{"k": "b", "v": "b"}], first=(1 << 40) + 2)
    deliver(target_url, made, rows, later, of=both.model_copy(update={"pieces": pieces}), content="ab")
    merged(target_url, made, "r2", ("c.csv", 3.0, "c", {"a": "c", "b": "c"}))
    assert values(target_url, "k, v") == [("a", "c"), ("b", "b")]


def test_rows_of_which_the_ledger_does_not_know_how_old_they_are_give_way(target_url: str) -> None:
    made = pipeline("merge", key="k")
    merged(target_url, made, "r1", ("new.csv", 9.0, "n", {"a": "new"}))
    query(target_url, "UPDATE _etl_loads SET modified = NULL")
    assert merged(target_url, made, "r2", ("old.csv", 1.0, "o", {"a": "old"})).loaded == 1


def test_the_file_decides_between_rows_that_are_equally_new(target_url: str) -> None:
    made = pipeline("merge", key="k", newest="at")
    for run, name, time, at in (("r1", "b.csv", 2.0, 1), ("r2", "a.csv", 1.0, 1)):
        deliver(
            target_url, made, chunk([{"k": "k", "v": name, "at": at}]), of=partition(1, name, modified=time), run=run
        )
    assert values(target_url, "v") == [("b.csv",)]
    deliver(target_url, made, chunk([{"k": "k", "v": "x", "at": 2}]), of=partition(1, "x.csv", modified=0.5), run="r3")
    assert values(target_url, "v") == [("x",)]


# --- columns that a file lacks ---


def test_a_column_that_one_file_of_the_run_lacks_keeps_what_the_table_has(target_url: str) -> None:
    made, parts = pipeline("merge", key="k"), [partition(1), partition(2)]
    deliver(target_url, made, chunk([{"k": 1, "v": "a", "note": "kept"}, {"k": 2, "v": "a", "note": "gone"}]), run="r0")
    deliver(target_url, made, chunk([{"k": 1, "v": "b"}, {"k": 3, "v": "b"}]), of=parts[0], partitions=2)
    deliver(target_url, made, chunk([{"k": 2, "v": "b", "note": None}]), of=parts[1], partitions=2, content="c2")
    assert finished(target_url, made, parts).loaded == 3
    assert values(target_url, "k, v, note") == [(1, "b", "kept"), (2, "b", None), (3, "b", None)]


@pytest.mark.parametrize("files", [1, 2])
def test_columns_that_no_file_of_the_run_has_keep_what_the_table_has(target_url: str, files: int) -> None:
    made, parts = pipeline("merge", key="k"), [partition(number) for number in range(1, files + 1)]
    deliver(target_url, made, chunk([{"k": 1, "a": "a", "note": "kept"}, {"k": 9, "a": "a", "note": "x"}]), run="r0")
    query(target_url, "ALTER TABLE claims_acme ADD COLUMN by_hand INTEGER")
    query(target_url, "UPDATE claims_acme SET by_hand = 7")
    for part in parts:
        rows = chunk([{"k": part.number, "a": "b"}])
        counts = deliver(target_url, made, rows, of=part, partitions=files, content=f"c{part.number}")
    final = counts if files == 1 else finished(target_url, made, parts)
    assert (final.loaded, values(target_url, "k, a, note, by_hand")[0]) == (files, (1, "b", "kept", 7))


def test_files_of_one_run_are_merged_as_if_they_came_one_night_after_another(target_url: str) -> None:
    made, parts = pipeline("merge", key="k"), [partition(1), partition(2), partition(3)]
    deliver(target_url, made, chunk([{"k": 1, "a": "0", "b": "0", "c": "0"}]), run="r0")
    for part, row in zip(parts, ({"k": 1, "a": "1", "b": "1"}, {"k": 1, "b": "2"}, {"k": 1, "a": "3"}), strict=True):
        deliver(target_url, made, chunk([row]), of=part, partitions=3, content=f"c{part.number}")
    final = finished(target_url, made, parts)
    assert (final.loaded, final.superseded) == (1, 2)
    assert values(target_url, "a, b, c") == [("3", "2", "0")]


def test_a_row_that_only_lacks_columns_is_unchanged(target_url: str) -> None:
    made, parts = pipeline("merge", key="k"), [partition(1), partition(2)]
    deliver(target_url, made, chunk([{"k": 1, "v": "a", "note": "kept"}]), run="r0")
    deliver(target_url, made, chunk([{"k": 1, "v": "a"}]), of=parts[0], partitions=2)
    deliver(target_url, made, chunk([{"k": 2, "v": "b", "note": "n"}]), of=parts[1], partitions=2, content="c2")
    assert finished(target_url, made, parts).unchanged == 1


# --- the latest load ---


def test_the_latest_load_does_not_depend_on_a_workers_clock(target_url: str) -> None:
    made = pipeline("merge", key="id")
    deliver(target_url, made, ROWS)
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat(sep=" ")
    query(target_url, f"UPDATE _etl_loads SET loaded_at = '{ahead}', types = '{{\"id\": \"string\"}}'")
    deliver(target_url, made, ROWS, run="r2")
    from tests.helpers.deliveries import connected

    with connected(target_url) as connection:
        assert ledger.last_types(connection, ledger.named(None), made) == {"id": "integer"}
    assert values(target_url, "run, sequence", "_etl_loads") == [("r1", 1), ("r2", 2)]


def test_a_ledger_of_an_earlier_release_gets_the_columns_it_lacks(target_url: str) -> None:
    deliver(target_url, pipeline(), ROWS)
    query(target_url, "DROP INDEX IF EXISTS _etl_loads_sequence")
    for column in ("sequence", "code", "lookups", "modified", "modified_each", "good"):
        query(target_url, f"ALTER TABLE _etl_loads DROP COLUMN {column}")
    assert deliver(target_url, pipeline(), ROWS, run="r2").unchanged == 2
    deliver(target_url, pipeline(), ROWS, run="r3", of=partition(1, "new.csv"), content="c2")
    assert values(target_url, "run, sequence", "_etl_loads") == [("r1", None), ("r2", 1), ("r3", 2)]


# --- the same rows under another name ---


@pytest.mark.parametrize("mode", [{}, {"mode": "replace", "by": ["_file"]}], ids=str)
def test_the_same_rows_under_another_name_are_loaded_with_a_warning(target_url: str, mode: dict[str, Any]) -> None:
    made = pipeline(**mode)
    assert deliver(target_url, made, ROWS).warnings == ()
    [warning] = deliver(target_url, made, ROWS, run="r2", of=partition(1, "renamed.csv")).warnings
    assert warning == "renamed.csv has the same rows as 1.csv of run r1: they are in claims_acme twice now"


def test_a_copy_of_a_file_in_the_same_run_is_loaded_with_a_warning(target_url: str) -> None:
    made, parts = pipeline(atomic=True), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, ROWS, of=part, partitions=2)
    [warning] = finished(target_url, made, parts).warnings
    assert warning.startswith("1.csv and 2.csv have the same rows")


def test_rows_that_are_not_there_twice_are_no_warning(target_url: str) -> None:
    deliver(target_url, pipeline(), content="empty")
    assert deliver(target_url, pipeline(), of=partition(1, "b.csv"), run="r2", content="empty").warnings == ()
    deliver(target_url, pipeline(), ROWS, run="r3", content="c3")
    query(target_url, "DELETE FROM claims_acme")
    assert deliver(target_url, pipeline(), ROWS, run="r4", of=partition(1, "c.csv"), content="c3").warnings == ()
    made = pipeline("merge", key="id")
    assert deliver(target_url, made, ROWS, run="r5", of=partition(1, "d.csv"), content="c3").warnings == ()


def test_a_function_that_gives_the_same_rows_again_is_appended_with_a_warning(target_url: str) -> None:
    made = pipeline()
    made = type(made).model_validate({**dict(made), "extract": {"type": "function", "function": "steps:rows"}})
    of = partition(1, "steps:rows")
    assert deliver(target_url, made, ROWS, of=of).warnings == ()
    [warning] = deliver(target_url, made, ROWS, of=of, run="r2").warnings
    assert warning == "steps:rows has the same rows as in run r1: they are in claims_acme twice now"

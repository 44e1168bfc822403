"""The ledger says what was loaded, so that nothing is loaded twice."""

from typing import Any

import pytest

from etl.errors import ChangedFile
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, values

ROWS = chunk([{"id": 1}, {"id": 2}])


def test_the_ledger_tells_file_content_and_counts(target_url: str) -> None:
    deliver(target_url, pipeline(), ROWS, content="abc")
    columns = "run, partition, client, pipeline, table_name, mode, file, content, rows, loaded, unchanged, superseded"
    expected = ("r1", 1, "acme", "claims", "claims_acme", "append", "1.csv", "abc", 2, 2, 0, 0)
    assert values(target_url, columns, "_etl_loads") == [expected]


def test_a_file_already_appended_is_unchanged(target_url: str) -> None:
    deliver(target_url, pipeline(), ROWS)
    again = deliver(target_url, pipeline(), ROWS, run="r2")
    assert (again.loaded, again.unchanged, again.final) == (0, 2, True)
    assert deliver(target_url, pipeline(), ROWS, run="r3").unchanged == 2
    assert len(values(target_url, "id")) == 2


def test_of_a_changed_file_the_run_is_named_that_appended_it_and_none_that_found_it_there(target_url: str) -> None:
    for run in ("r1", "r2", "r3"):
        deliver(target_url, pipeline(), ROWS, run=run)
    with pytest.raises(ChangedFile, match=r"has changed since run r1 "):
        deliver(target_url, pipeline(), ROWS, run="r4", content="c2")


def test_a_file_that_changed_since_it_was_appended_is_refused(target_url: str) -> None:
    deliver(target_url, pipeline(), ROWS)
    with pytest.raises(ChangedFile, match=r"1\.csv has changed since run r1") as told:
        deliver(target_url, pipeline(), ROWS, run="r2", content="c2")
    assert 'by = ["_file"]' in told.value.cure
    assert len(values(target_url, "id")) == 2


def test_another_clients_or_pipelines_file_of_the_same_name_is_another_file(target_url: str) -> None:
    shared: dict[str, Any] = {"table": "claims"}
    deliver(target_url, pipeline(**shared), ROWS)
    assert deliver(target_url, pipeline(client="zenith", **shared), ROWS, run="r2").loaded == 2
    assert deliver(target_url, pipeline(name="other", **shared), ROWS, run="r3").loaded == 2


def test_the_part_of_a_file_that_an_earlier_run_could_not_load_is_loaded(target_url: str) -> None:
    first = partition(1, "a.csv", start=0, end=100, version="v")
    second = partition(2, "a.csv", start=100, version="v")
    deliver(target_url, pipeline(), ROWS, of=first, partitions=2, content="c1")
    assert deliver(target_url, pipeline(), ROWS, of=first, partitions=2, content="c1", run="r2").unchanged == 2
    assert deliver(target_url, pipeline(), ROWS, of=second, partitions=2, content="c2", run="r2").loaded == 2


@pytest.mark.parametrize(
    "piece", [{"start": 50, "version": "v"}, {"start": 100, "version": "w"}, {"start": 0, "version": "v"}], ids=str
)
def test_a_file_cut_otherwise_than_when_it_was_appended_is_refused(target_url: str, piece: dict[str, Any]) -> None:
    deliver(target_url, pipeline(), ROWS, of=partition(1, "a.csv", start=0, end=100, version="v"), partitions=2)
    with pytest.raises(ChangedFile):
        deliver(target_url, pipeline(), ROWS, of=partition(2, "a.csv", **piece), content="c2", run="r2", partitions=2)


def test_a_whole_file_is_known_again_when_it_is_planned_with_its_version(target_url: str) -> None:
    deliver(target_url, pipeline(), ROWS, content="v")
    assert deliver(target_url, pipeline(), ROWS, content="v", of=partition(version="v"), run="r2").unchanged == 2


def test_files_read_together_are_known_again_together_only(target_url: str) -> None:
    both = partition(file=["a.csv", "b.csv"])
    deliver(target_url, pipeline(), ROWS, of=both)
    assert deliver(target_url, pipeline(), ROWS, of=both, run="r2").unchanged == 2
    for files in (["a.csv", "b.csv", "c.csv"], "b.csv"):
        with pytest.raises(ChangedFile):
            deliver(target_url, pipeline(), ROWS, of=partition(file=files), run="r3")
    assert deliver(target_url, pipeline(), ROWS, of=partition(file=["c.csv", "d.csv"]), run="r3").loaded == 2


def test_a_file_whose_name_looks_like_a_list_is_one_file(target_url: str) -> None:
    for name in ("[1].csv", '["a.csv"]', "[x"):
        deliver(target_url, pipeline(), ROWS, of=partition(file=name), run=f"{name}1")
        assert deliver(target_url, pipeline(), ROWS, of=partition(file=name), run=f"{name}2").unchanged == 2


def test_a_file_that_was_empty_before_may_have_rows_now(target_url: str) -> None:
    deliver(target_url, pipeline())
    assert deliver(target_url, pipeline(), ROWS, run="r2", content="c2").loaded == 2


def test_what_a_function_extracts_is_appended_each_time(target_url: str) -> None:
    made = pipeline()
    made = type(made).model_validate({**dict(made), "extract": {"type": "function", "function": "legacy:rows"}})
    for run in ("r1", "r2"):
        assert deliver(target_url, made, ROWS, run=run).loaded == 2


def test_a_merged_file_is_merged_again(target_url: str) -> None:
    made = pipeline("merge", key="id")
    deliver(target_url, made, ROWS)
    assert deliver(target_url, made, ROWS, run="r2").unchanged == 2


def test_rows_staged_and_never_applied_do_not_count_as_loaded(target_url: str) -> None:
    made, parts = pipeline(atomic=True), [partition(1), partition(2)]
    deliver(target_url, made, ROWS, of=parts[0], partitions=2)
    assert not finished(target_url, made, parts, done=[1]).applied
    for part in parts:
        deliver(target_url, made, ROWS, of=part, partitions=2, run="r2")
    assert finished(target_url, made, parts, run="r2").loaded == 4


def test_a_later_attempt_takes_back_what_an_earlier_one_staged(target_url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, ROWS, of=part, partitions=2)
    assert deliver(target_url, made, chunk([{"id": 7}]), of=parts[0], partitions=2).staged == 2
    for part in parts:
        changed = chunk([{"id": "x1"}, {"id": f"x{part.number}"}])  # the column has another type now
        assert deliver(target_url, made, changed, of=part, partitions=2, attempt=2).staged == 2
    assert finished(target_url, made, parts).loaded == 2
    assert values(target_url, "id") == [("x1",), ("x2",)]


def test_a_later_attempt_leaves_what_is_final_alone(target_url: str) -> None:
    deliver(target_url, pipeline(), ROWS)
    assert deliver(target_url, pipeline(), chunk([{"id": 9}]), attempt=2).loaded == 2


def test_the_ledger_stands_in_the_schema_of_the_table(pg_url: str) -> None:
    query(pg_url, "CREATE SCHEMA dw")
    made, parts = pipeline("merge", key="id", table="dw.claims"), [partition(1), partition(2)]
    for part in parts:
        deliver(pg_url, made, ROWS, of=part, partitions=2)
    final = finished(pg_url, made, parts)
    assert (final.loaded, final.superseded) == (2, 2)
    tables = query(pg_url, "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('dw', 'public')")
    assert sorted(tables) == [("dw", "_etl_columns"), ("dw", "_etl_loads"), ("dw", "claims")]

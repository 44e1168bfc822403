"""Who wins a key, what a replace replaces, and that a run applied in two goes is as one applied at once."""

from datetime import date
from itertools import count
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.errors import ReceiptMismatch, TooManyRejects
from etl.load import FinishCounts
from tests.helpers.deliveries import chunk, connected, deliver, finished, partition, pipeline, query, table, values
from tests.helpers.examples import examples


def counts(final: FinishCounts) -> tuple[int, int, int]:
    return final.loaded, final.unchanged, final.superseded


def names(url: str) -> set[str]:
    with connected(url) as connection:
        return {name for name in sa.inspect(connection).get_table_names() if name not in ("_etl_columns", "_etl_loads")}


# --- merge ---


def test_a_merge_updates_what_differs_and_leaves_what_is_equal(target_url: str) -> None:
    made = pipeline("merge", key="id")
    first = deliver(target_url, made, chunk([{"id": 1, "n": "a"}, {"id": 2, "n": None}, {"id": 3, "n": "c"}]))
    assert (first.loaded, first.unchanged, first.superseded) == (3, 0, 0)
    rows = chunk([{"id": 1, "n": "a"}, {"id": 2, "n": None}, {"id": 3, "n": None}, {"id": 4, "n": "d"}])
    second = deliver(target_url, made, rows, run="r2", of=partition(1, "b.csv"))
    assert (second.loaded, second.unchanged, second.superseded) == (2, 2, 0)
    expected = [(1, "a", "r1", "1.csv"), (2, None, "r1", "1.csv"), (3, None, "r2", "b.csv"), (4, "d", "r2", "b.csv")]
    assert values(target_url, "id, n, _run, _file") == expected


def test_of_rows_with_one_key_the_last_wins(target_url: str) -> None:
    rows = [{"id": 1, "n": "a"}, {"id": 1, "n": "b"}, {"id": 2, "n": "c"}]
    found = deliver(target_url, pipeline("merge", key="id"), chunk(rows), chunk([{"id": 2, "n": "d"}], first=5))
    assert (found.loaded, found.superseded) == (2, 2)
    assert values(target_url, "id, n") == [(1, "b"), (2, "d")]


def test_an_older_row_never_overwrites_a_newer_one(target_url: str) -> None:
    made = pipeline("merge", key="id", newest="at")
    deliver(target_url, made, chunk([{"id": 1, "at": 5, "n": "a"}, {"id": 2, "at": None, "n": "b"}]))
    rows = [{"id": 1, "at": 4, "n": "x"}, {"id": 1, "at": None, "n": "y"}, {"id": 2, "at": 0, "n": "z"}]
    second = deliver(target_url, made, chunk(rows), run="r2")
    assert (second.loaded, second.unchanged, second.superseded) == (1, 0, 2)
    third = deliver(target_url, made, chunk([{"id": 2, "at": None, "n": "w"}]), run="r3")
    assert third.superseded == 1
    assert values(target_url, "id, n") == [(1, "a"), (2, "z")]


def test_newest_as_text_is_compared_letter_by_letter(target_url: str) -> None:
    made = pipeline("merge", key="id", newest="at", columns={"id": {"type": "integer"}, "at": {"type": "string"}})
    deliver(target_url, made, chunk([{"id": 1, "at": "a"}, {"id": 1, "at": "B"}]))
    assert values(target_url, "at") == [("a",)]


def test_a_key_of_several_columns_tells_rows_apart_within_a_client(target_url: str) -> None:
    for client in ("acme", "zenith"):
        made = pipeline("merge", key=["id", "line"], table="claims", client=client)
        rows = [{"id": 1, "line": 1, "n": client}, {"id": 1, "line": 2, "n": client}, {"id": 1, "line": 1, "n": "last"}]
        found = deliver(target_url, made, chunk(rows), run=client)
        assert (found.loaded, found.superseded) == (2, 1)
    found_rows = values(target_url, "_client, line, n", "claims")
    assert found_rows == [("acme", 1, "last"), ("acme", 2, "acme"), ("zenith", 1, "last"), ("zenith", 2, "zenith")]


def test_columns_that_the_rows_lack_keep_what_the_table_has(target_url: str) -> None:
    made = pipeline("merge", key="id")
    deliver(target_url, made, chunk([{"id": 1, "n": "a", "note": "kept"}]))
    deliver(target_url, made, chunk([{"id": 1, "n": "b"}]), run="r2")
    assert values(target_url, "n, note") == [("b", "kept")]


def test_a_column_emptied_in_the_source_is_emptied_in_the_table(target_url: str) -> None:
    made = pipeline("merge", key="id")
    deliver(target_url, made, chunk([{"id": 1, "n": 5}]))
    deliver(target_url, made, chunk([{"id": 1, "n": None}]), run="r2")  # a column of type null
    assert values(target_url, "n") == [(None,)]


def test_a_merge_of_keys_alone_inserts_them(target_url: str) -> None:
    made = pipeline("merge", key="id")
    assert deliver(target_url, made, chunk([{"id": 1}, {"id": 1}])).superseded == 1
    assert deliver(target_url, made, chunk([{"id": 1}, {"id": 2}]), run="r2").unchanged == 1


def test_the_later_file_wins_whatever_came_first(target_url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1, order=2), partition(2, order=1), partition(3, order=0)]
    for part in parts:
        rows = chunk([{"id": 1, "n": f"order {part.order}"}, {"id": 10 + part.number, "n": "x"}])
        assert deliver(target_url, made, rows, of=part, partitions=3).staged == 2
    assert names(target_url) == {"_etl_shadow_r1"}
    final = finished(target_url, made, parts)
    assert counts(final) == (4, 0, 2)
    assert values(target_url, "n, _file") == [("order 2", "1.csv"), *(("x", f"{number}.csv") for number in (1, 2, 3))]
    assert names(target_url) == {"claims_acme"}
    assert finished(target_url, made, parts) == final


def test_an_older_files_rows_that_come_late_do_not_overwrite(target_url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2), partition(3)]
    old, new = chunk([{"id": 1, "n": "old"}, {"id": 2, "n": "old"}]), chunk([{"id": 1, "n": "new"}])
    newest = chunk([{"id": 1, "n": "newest"}, {"id": 3, "n": "newest"}])
    deliver(target_url, made, new, of=parts[1], partitions=3)
    assert counts(finished(target_url, made, parts, done=[2])) == (1, 0, 0)
    assert values(target_url, "id, n") == [(1, "new")]
    deliver(target_url, made, old, of=parts[0], partitions=3)
    assert counts(finished(target_url, made, parts, done=[1, 2])) == (2, 0, 1)
    assert values(target_url, "id, n") == [(1, "new"), (2, "old")]
    deliver(target_url, made, newest, of=parts[2], partitions=3)
    assert counts(finished(target_url, made, parts)) == (3, 0, 2)
    assert values(target_url, "id, n") == [(1, "newest"), (2, "old"), (3, "newest")]


def test_what_a_later_run_wrote_in_between_is_left_alone(target_url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    rows = chunk([{"id": 1, "n": "r1"}, {"id": 2, "n": "r1"}, {"id": 3, "n": "same"}])
    deliver(target_url, made, chunk([{"id": 3, "n": "same"}]), run="r0")
    deliver(target_url, made, rows, of=parts[0], partitions=2)
    assert counts(finished(target_url, made, parts, done=[1])) == (2, 1, 0)
    deliver(target_url, made, chunk([{"id": 1, "n": "r2"}]), run="r2")
    deliver(target_url, made, chunk([{"id": 4, "n": "r1"}]), of=parts[1], partitions=2)
    assert counts(finished(target_url, made, parts)) == (2, 1, 1)
    assert values(target_url, "id, n, _run") == [(1, "r2", "r2"), (2, "r1", "r1"), (3, "same", "r0"), (4, "r1", "r1")]


_clients = count()
_row = st.tuples(st.integers(0, 4), st.sampled_from(["a", "b", None]), st.one_of(st.none(), st.integers(0, 3)))


def _winners(rows: list[dict[str, Any]], there: dict[int, dict[str, Any]], newest: bool) -> dict[int, dict[str, Any]]:
    """Return what pandas says the table holds after a run."""
    frame = pd.DataFrame(rows, columns=["id", "n", "at", "order", "line"], dtype=object)
    frame["rank"] = frame["at"].map(lambda at: -1 if at is None else at) if newest else 0
    last = frame.sort_values(["rank", "order", "line"]).drop_duplicates("id", keep="last")
    after = dict(there)
    for row in last.to_dict("records"):
        old = there.get(row["id"])
        if not newest or old is None or old["rank"] <= row["rank"]:
            after[row["id"]] = {str(name): value for name, value in row.items()}
    return after


@pytest.mark.parametrize("newest", [False, True], ids=["by file", "by newest"])
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_split_and_any_order_merge_as_pandas_does(target_url: str, newest: bool, data: st.DataObject) -> None:
    client = f"c{next(_clients)}"
    made = pipeline("merge", key="id", client=client, **({"newest": "at"} if newest else {}))
    expected: dict[int, dict[str, Any]] = {}
    for run in range(data.draw(st.integers(1, 2), "runs")):
        files = data.draw(st.lists(st.lists(_row, max_size=6), min_size=1, max_size=3), "files")
        parts = [partition(number + 1) for number in range(len(files))]
        rows, loaded = [], set()
        order = data.draw(st.permutations(range(len(files))), "order")
        for nth, index in enumerate(order):
            of_file = [
                {"id": id, "n": n, "at": at, "order": index, "line": line}
                for line, (id, n, at) in enumerate(files[index])
            ]
            rows += of_file
            cut = data.draw(st.integers(0, len(of_file)), "cut")
            halves = [(of_file[:cut], 0), (of_file[cut:], cut)]
            kept = ("id", "n", "at")
            chunks = [
                chunk([{name: row[name] for name in kept} for row in half], first) for half, first in halves if half
            ]
            deliver(target_url, made, *chunks, of=parts[index], partitions=len(files), run=f"{client}_{run}")
            loaded.add(index + 1)
            if nth + 1 < len(files) and data.draw(st.booleans(), "partial"):
                finished(target_url, made, parts, done=sorted(loaded), run=f"{client}_{run}")
        final = finished(target_url, made, parts, run=f"{client}_{run}")
        assert sum(counts(final)) == len(rows)
        expected = _winners(rows, expected, newest)
        if expected:
            found = table(target_url, made.table).astype(object)
            texts = found["n"].where(found["n"].notna(), None) if "n" in found else [None] * len(found)
            assert dict(zip(found["id"], texts, strict=True)) == {id: row["n"] for id, row in expected.items()}
    assert not {name for name in names(target_url) if name.startswith("_etl_") and f"_{client}_" in name}


# --- unique ---


def test_a_unique_value_in_two_partitions_is_a_reject_of_the_later(target_url: str) -> None:
    made = pipeline(columns={"id": {"type": "integer", "unique": True}, "n": {}})
    parts = [partition(1), partition(2), partition(3)]
    of_parts: list[list[int | None]] = [[1, None], [2, 1, None], [2, 3]]
    for part, ids in zip(parts, of_parts, strict=True):
        deliver(target_url, made, chunk([{"id": id, "n": part.pieces[0].file} for id in ids]), of=part, partitions=3)
    final = finished(target_url, made, parts)
    assert [(found.partition, found.row, found.column) for found in final.duplicates] == [(2, 3, "id"), (3, 2, "id")]
    assert counts(final) == (5, 0, 0)
    expected = [(1, "1.csv"), (2, "2.csv"), (3, "3.csv"), (None, "1.csv"), (None, "2.csv")]
    assert values(target_url, "id, n") == sorted(expected, key=str)
    assert finished(target_url, made, parts) == final


def test_a_unique_value_loaded_already_stays_when_an_earlier_file_comes_late(target_url: str) -> None:
    made, parts = pipeline("merge", key="id", columns={"id": {"unique": True}}), [partition(1), partition(2)]
    deliver(target_url, made, chunk([{"id": "a", "n": 2}]), of=parts[1], partitions=2)
    finished(target_url, made, parts, done=[2])
    deliver(target_url, made, chunk([{"id": "a", "n": 1}, {"id": "b", "n": 1}]), of=parts[0], partitions=2)
    final = finished(target_url, made, parts)
    assert [(found.partition, found.row) for found in final.duplicates] == [(1, 2)]
    assert counts(final) == (2, 0, 0)
    assert values(target_url, "id, n") == [("a", 2), ("b", 1)]
    assert finished(target_url, made, parts) == final


def test_duplicates_count_for_max_rejects(target_url: str) -> None:
    made, parts = pipeline(max_rejects=1, columns={"id": {"unique": True}}), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, chunk([{"id": "a"}]), of=part, partitions=2)
    with pytest.raises(TooManyRejects, match="2 of 100"):
        finished(target_url, made, parts, rejected=1)
    assert "claims_acme" not in names(target_url)
    assert finished(target_url, made, parts).rejected == 1


# --- append in several partitions ---


def test_a_plain_append_of_several_partitions_is_final_at_once(target_url: str) -> None:
    made, parts = pipeline(), [partition(1), partition(2)]
    for part in parts:
        assert deliver(target_url, made, chunk([{"id": 1}]), of=part, partitions=2).final
    assert counts(finished(target_url, made, parts)) == (2, 0, 0)


def test_an_atomic_append_shows_nothing_until_every_partition_is_there(target_url: str) -> None:
    made, parts = pipeline(atomic=True), [partition(1), partition(2)]
    deliver(target_url, made, chunk([{"id": 1}]), of=parts[0], partitions=2)
    final = finished(target_url, made, parts, done=[1])
    assert (final.applied, counts(final)) == (False, (0, 0, 0))
    assert "claims_acme" not in names(target_url)
    deliver(target_url, made, chunk([{"id": 2}]), of=parts[1], partitions=2)
    assert counts(finished(target_url, made, parts)) == (2, 0, 0)
    assert values(target_url, "id, _file") == [(1, "1.csv"), (2, "2.csv")]


def test_too_many_rejects_apply_nothing(target_url: str) -> None:
    made, parts = pipeline("merge", key="id", max_rejects="5%"), [partition(1), partition(2)]
    for part in parts:
        assert deliver(target_url, made, chunk([{"id": 1}]), of=part, partitions=2, rejected=50).staged == 1
    with pytest.raises(TooManyRejects, match="6 of 100 rows were rejected, max_rejects allows 5"):
        finished(target_url, made, parts, rejected=6)
    assert "claims_acme" not in names(target_url)
    assert finished(target_url, made, parts, rejected=5).loaded == 1


def test_a_run_of_which_nothing_was_loaded_finishes_without_the_target() -> None:
    final = finished("postgresql://nobody@nowhere.invalid/x", pipeline("merge", key="id"), [partition()], done=[])
    assert (counts(final), final.applied) == ((0, 0, 0), False)


def test_staged_rows_that_went_missing_are_reported(target_url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, chunk([{"id": part.number}]), of=part, partitions=2)
    query(target_url, "DELETE FROM _etl_shadow_r1 WHERE id = 2")
    with pytest.raises(ReceiptMismatch, match="partition 2 staged 1 rows, the target has 0"):
        finished(target_url, made, parts)


# --- replace ---


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_replace_leaves_this_runs_rows_only(target_url: str, partitions: int) -> None:
    other = pipeline("append", table="claims", client="zenith")
    deliver(target_url, other, chunk([{"id": 99}]), run="z")
    made, parts = pipeline("replace", table="claims"), [partition(number + 1) for number in range(partitions)]
    for run in ("r1", "r2"):
        for part in parts:
            deliver(target_url, made, chunk([{"id": part.number}]), of=part, partitions=partitions, run=run)
        if partitions == 2:
            before = [("acme", "r1")] * 2 if run == "r2" else []
            assert values(target_url, "_client, _run", "claims") == [*before, ("zenith", "z")]
        assert counts(finished(target_url, made, parts, run=run)) == (partitions, 0, 0)
    expected = [("acme", number + 1, "r2") for number in range(partitions)]
    assert values(target_url, "_client, id, _run", "claims") == [*expected, ("zenith", 99, "z")]


@pytest.mark.parametrize("by", [(), ("month",), ("_file",)], ids=str)
@pytest.mark.parametrize("partitions", [1, 2])
def test_a_run_without_rows_never_empties_a_table(target_url: str, by: tuple[str, ...], partitions: int) -> None:
    made, parts = pipeline("replace", by=by), [partition(number + 1) for number in range(partitions)]
    deliver(target_url, made, chunk([{"id": 1, "month": "May"}]), run="r0")
    for part in parts:
        rows = chunk([{"id": 1, "month": "May"}]).slice(0, 0)
        deliver(target_url, made, rows, of=part, partitions=partitions, rejected=3)
    assert counts(finished(target_url, made, parts)) == (0, 0, 0)
    assert len(values(target_url, "id")) == 1


def test_a_replace_that_is_not_complete_changes_nothing(target_url: str) -> None:
    made, parts = pipeline("replace"), [partition(1), partition(2)]
    deliver(target_url, made, chunk([{"id": 1}]), run="r0")
    deliver(target_url, made, chunk([{"id": 2}]), of=parts[0], partitions=2)
    assert not finished(target_url, made, parts, done=[1]).applied
    assert values(target_url, "id") == [(1,)]
    deliver(target_url, made, chunk([{"id": 3}]), of=parts[1], partitions=2)
    assert finished(target_url, made, parts).loaded == 2
    assert values(target_url, "id") == [(2,), (3,)]


@pytest.mark.parametrize("partitions", [1, 2])
def test_replace_by_columns_replaces_the_values_that_occur_nulls_too(target_url: str, partitions: int) -> None:
    made = pipeline("replace", by=["month", "region"])
    old = [("May", "n"), ("May", "s"), ("June", "n"), (None, "n"), (None, None), ("July", None)]
    deliver(target_url, made, chunk([{"month": m, "region": r, "n": 0} for m, r in old]), run="r0")
    parts = [partition(number + 1) for number in range(partitions)]
    new: list[list[tuple[str | None, str | None]]] = [[("May", "n"), (None, None)], [(None, "n")]]
    rows = [[{"month": m, "region": r, "n": 1} for m, r in pairs] for pairs in new]
    for part, of_part in zip(parts, rows if partitions == 2 else [rows[0] + rows[1]], strict=True):
        deliver(target_url, made, chunk(of_part), of=part, partitions=partitions)
    assert counts(finished(target_url, made, parts)) == (3, 0, 0)
    expected = [("May", "n", 1), (None, None, 1), (None, "n", 1), ("May", "s", 0), ("June", "n", 0), ("July", None, 0)]
    assert values(target_url, "month, region, n") == sorted(expected, key=str)


def test_replace_by_a_date_column_works_as_by_text(target_url: str) -> None:
    made = pipeline("replace", by="day", columns={"day": {"type": "date"}, "n": {"type": "integer"}})
    rows = [{"day": date(2024, 1, 1), "n": 1}, {"day": date(2024, 1, 2), "n": 2}]
    deliver(target_url, made, chunk(rows))
    deliver(target_url, made, chunk([{"day": date(2024, 1, 2), "n": 3}]), run="r2")
    assert values(target_url, "n") == [(1,), (3,)]


def test_replace_by_file_replaces_what_earlier_versions_of_the_files_loaded(target_url: str) -> None:
    made, parts = pipeline("replace", by="_file"), [partition(1), partition(2), partition(3)]
    for part in parts:
        deliver(target_url, made, chunk([{"id": part.number}, {"id": 10}]), of=part, partitions=3, run="r0")
    finished(target_url, made, parts, run="r0")
    deliver(target_url, made, chunk([{"id": 20}]), of=parts[0], partitions=2, content="changed")
    deliver(target_url, made, of=parts[1], partitions=2)  # this file has no rows any more
    assert counts(finished(target_url, made, parts[:2])) == (1, 0, 0)
    assert values(target_url, "id, _file") == [(10, "3.csv"), (20, "1.csv"), (3, "3.csv")]

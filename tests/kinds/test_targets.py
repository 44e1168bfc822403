"""What every kind of target does alike, and what its facts say it can't do. A new kind is one row of `KINDS`."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from etl.config.databases import DATABASES
from etl.errors import BadSource, ConfigError, EtlError, FunctionFailed, TableMismatch, TargetBusy, TargetRefused
from etl.load import Delivery, Move, check_target, column_types, cursors, drop_shadow, history, leftovers, load
from etl.load.history import Record
from etl.load.targets import TargetFacts, kind_named
from etl.load.targets.connect import reading, transaction
from etl.types.cursor import Cursor
from tests.loading import chunk, deliver, finished, partition, pipeline, query, values

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 500, tzinfo=UTC)
EVERY: dict[str, tuple[pa.DataType, Any]] = {
    "string": (pa.string(), "Jürgen \"J\", 066\n\\.\n'x'"),
    "integer": (pa.int64(), -(2**63)),
    "number": (pa.float64(), 0.1),
    "decimal": (pa.decimal128(38, 9), Decimal("12345678901234567890.123456789")),
    "boolean": (pa.bool_(), True),
    "date": (pa.date32(), date(2024, 2, 29)),
    "timestamp": (pa.timestamp("us", tz="UTC"), MOMENT),
}
AS_THEY_ARE = [sample for _, sample in EVERY.values()]
AS_TEXT = [*AS_THEY_ARE[:3], 1.2345678901234567e19, 1, "2024-02-29", "2024-02-29 23:59:59.000500"]


@dataclass(frozen=True)
class Kind:
    """A kind's row in this suite.

    Args:
        url: What gives an empty database: a fixture's name, or a URL with {folder} in it.
        returned: How the values of `EVERY` come back.
    """

    url: str
    returned: list[Any]


KINDS = {
    "sqlite": Kind("sqlite:///{folder}/target.db", AS_TEXT),
    "postgresql": Kind("pg_url", AS_THEY_ARE),
    "duckdb": Kind("duckdb:///{folder}/target.duckdb", AS_THEY_ARE),
}


@pytest.fixture(params=list(KINDS))
def scheme(request: pytest.FixtureRequest) -> str:
    """One kind of target after the other."""
    name: str = request.param
    return name


@pytest.fixture
def url(request: pytest.FixtureRequest, scheme: str, tmp_path: Path) -> str:
    """An empty database of the kind."""
    made = KINDS[scheme].url
    found: str = made.format(folder=tmp_path) if "{" in made else request.getfixturevalue(made)
    return found


@pytest.fixture
def facts(scheme: str) -> TargetFacts:
    """What the kind says of itself."""
    return kind_named(scheme).FACTS


def every_type(value: bool = True) -> pa.Table:
    row = {name: sample if value else None for name, (_, sample) in EVERY.items()}
    return chunk([row], types={name: type for name, (type, _) in EVERY.items()})


def test_every_registered_kind_is_in_this_suite() -> None:
    assert list(KINDS) == list(DATABASES)


# --- once ---


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_a_second_execution_answers_the_same_counts_and_writes_nothing(url: str, mode: str) -> None:
    made = pipeline(mode, **({"key": "id"} if mode == "merge" else {}))
    first = deliver(url, made, chunk([{"id": 1}, {"id": 2}]))
    assert deliver(url, made, chunk([{"id": 3}])) == first
    assert values(url, "id") == [(1,), (2,)]


def _child(url: str, made: Any, run: str, number: int, pause: bool, ready: Any) -> None:
    def chunks() -> Any:
        yield chunk([{"id": number * 1000 + id, "n": "x"} for id in range(500)])
        if pause:
            ready.set()
            signal.pause()

    load(Delivery(made, run, partition(number), "c1", 1), chunks(), url=url, rejected=0, read=500)


def start(*given: Any) -> tuple[Any, Any]:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_child, args=(*given, ready))
    process.start()
    return process, ready


def test_processes_that_load_at_once_lose_and_double_nothing(url: str) -> None:
    made = [pipeline(table="claims", client=client) for client in ("acme", "zenith")]
    given = [(made[0], "r1", 1), (made[0], "r1", 1), (made[1], "r2", 2)]
    started = [start(url, *each, False) for each in given]
    for process, _ in started:
        process.join()
    assert [process.exitcode for process, _ in started] == [0, 0, 0]
    assert query(url, "SELECT _client, count(*), count(DISTINCT id) FROM claims GROUP BY 1 ORDER BY 1") == [
        ("acme", 500, 500),
        ("zenith", 500, 500),
    ]


def test_a_load_killed_halfway_leaves_nothing_and_the_next_is_complete(url: str) -> None:
    made = pipeline("merge", key="id")
    process, ready = start(url, made, "r1", 1, True)
    assert ready.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert column_types(made, url=url) == {}
    assert deliver(url, made, chunk([{"id": 1, "n": "x"}])).loaded == 1
    assert values(url, "id") == [(1,)]


def test_threads_that_make_one_table_at_once_all_succeed(url: str) -> None:
    def one(number: int) -> int:
        made = pipeline("merge", table="claims", client=f"client_{number}", key="id")
        return deliver(url, made, chunk([{"id": 1, f"c{number % 2}": 1}]), run=f"r{number}").loaded

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(one, range(4))) == 4
    assert query(url, "SELECT count(*) FROM claims") == [(4,)]


def test_a_writer_meets_another_as_the_facts_say(
    url: str, scheme: str, facts: TargetFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    if facts.writers == "one":
        monkeypatch.setattr(kind_named(scheme), "WAIT", 0.05)
    deliver(url, pipeline(), chunk([{"id": 1}]))
    with transaction(url) as other:
        other.exec_driver_sql("UPDATE claims_acme SET id = 2")
        if facts.writers == "one":
            with pytest.raises(TargetBusy, match="another program") as busy:
                deliver(url, pipeline(), chunk([{"id": 3}]), run="r2", of=partition(2))
            assert busy.value.retryable
        else:
            deliver(url, pipeline(), chunk([{"id": 3}]), run="r2", of=partition(2))
    assert values(url, "id") == ([(2,)] if facts.writers == "one" else [(2,), (3,)])


# --- modes ---


def test_an_append_of_changed_content_is_refused(url: str) -> None:
    deliver(url, pipeline(), chunk([{"id": 1}]))
    with pytest.raises(EtlError, match=r"1\.csv has changed since run r1"):
        deliver(url, pipeline(), chunk([{"id": 2}]), run="r2", content="c2")
    assert deliver(url, pipeline(), chunk([{"id": 1}]), run="r3").unchanged == 1


def test_a_merge_writes_what_is_new_or_differs_of_its_own_client(url: str) -> None:
    made = pipeline("merge", table="claims", key="id")
    other = pipeline("merge", table="claims", key="id", client="zenith")
    deliver(url, other, chunk([{"id": 1, "n": "theirs"}]), run="z1")
    deliver(url, made, chunk([{"id": 1, "n": "a"}, {"id": 2, "n": None}]))
    counts = deliver(url, made, chunk([{"id": 1, "n": "b"}, {"id": 2, "n": None}, {"id": 3, "n": "c"}]), run="r2")
    assert (counts.loaded, counts.unchanged, counts.superseded) == (2, 1, 0)
    found = values(url, "_client, id, n, _run", "claims")
    assert found == [
        ("acme", 1, "b", "r2"),
        ("acme", 2, None, "r1"),
        ("acme", 3, "c", "r2"),
        ("zenith", 1, "theirs", "z1"),
    ]


def test_a_key_twice_in_a_batch_is_resolved_and_the_newest_stays(url: str) -> None:
    made = pipeline("merge", key=["id", "part"], newest="at")
    rows = [{"id": 1, "part": "x", "at": 5}, {"id": 1, "part": "x", "at": 7}, {"id": 1, "part": "x", "at": 6}]
    assert deliver(url, made, chunk(rows)).superseded == 2
    older = deliver(url, made, chunk([{"id": 1, "part": "x", "at": 3}]), run="r2")
    assert (older.loaded, older.superseded) == (0, 1)
    assert values(url, '"at"') == [(7,)]


def test_text_decides_who_is_newest_by_its_code_points(url: str) -> None:
    made = pipeline("merge", key="id", newest="v")
    deliver(url, made, chunk([{"id": 1, "v": "a"}]))
    assert deliver(url, made, chunk([{"id": 1, "v": "B"}]), run="r2").superseded == 1
    assert deliver(url, made, chunk([{"id": 1, "v": "ä"}]), run="r3").loaded == 1


def test_a_replace_replaces_its_own_rows_alone(url: str) -> None:
    for client in ("acme", "zenith"):
        made = pipeline("replace", table="claims", client=client)
        deliver(url, made, chunk([{"id": 1}, {"id": 2}]), run=f"{client}1")
    deliver(url, pipeline("replace", table="claims"), chunk([{"id": 3}]), run="acme2")
    assert values(url, "_client, id", "claims") == [("acme", 3), ("zenith", 1), ("zenith", 2)]


def test_a_replace_by_columns_replaces_rows_with_these_values_and_nulls_too(url: str) -> None:
    made = pipeline("replace", by=["month", "kind"])
    rows = [{"month": 1, "kind": "a", "n": 1}, {"month": 1, "kind": None, "n": 2}, {"month": 2, "kind": "a", "n": 3}]
    deliver(url, made, chunk(rows))
    again = [{"month": 1, "kind": "a", "n": 10}, {"month": 1, "kind": None, "n": 20}]
    deliver(url, made, chunk(again), run="r2", content="c2")
    assert values(url, "n") == [(10,), (20,), (3,)]


def test_a_replace_by_file_replaces_what_earlier_versions_of_it_loaded(url: str) -> None:
    made = pipeline("replace", by=["_file"])
    deliver(url, made, chunk([{"n": 1}, {"n": 2}]))
    deliver(url, made, chunk([{"n": 5}]), run="r2", of=partition(2))
    deliver(url, made, chunk([{"n": 3}]), run="r3", content="c2")
    assert values(url, "n") == [(3,), (5,)]


@pytest.mark.parametrize("changes", [{"mode": "append", "atomic": True}, {"mode": "replace"}], ids=str)
def test_an_atomic_run_shows_nothing_until_it_is_complete(url: str, changes: dict[str, Any]) -> None:
    made, parts = pipeline(**changes), [partition(1), partition(2)]
    assert deliver(url, made, chunk([{"id": 1}]), of=parts[0], partitions=2).staged == 1
    assert not finished(url, made, parts, done=[1]).applied
    assert column_types(made, url=url) == {}
    deliver(url, made, chunk([{"id": 2}, {"id": 3}]), of=parts[1], partitions=2)
    assert finished(url, made, parts).loaded == 3
    assert finished(url, made, parts).loaded == 3
    assert values(url, "id, _file") == [(1, "1.csv"), (2, "2.csv"), (3, "2.csv")]


def test_partitions_of_a_merge_meet_in_finish_whatever_came_first(url: str) -> None:
    made, parts = pipeline("merge", key="id", newest="at"), [partition(number) for number in (1, 2, 3)]
    for part in reversed(parts):
        rows = [{"id": 1, "at": 10 - part.number}, {"id": part.number + 1, "at": 0}]
        deliver(url, made, chunk(rows), of=part, partitions=3)
    counts = finished(url, made, parts, done=[2, 3])
    assert (counts.loaded, counts.superseded) == (3, 1)
    counts = finished(url, made, parts)
    assert (counts.loaded, counts.superseded) == (4, 2)
    assert values(url, 'id, "at"') == [(1, 9), (2, 0), (3, 0), (4, 0)]


def test_a_unique_value_twice_in_a_run_is_a_reject_with_its_row(url: str) -> None:
    made, parts = pipeline(columns={"id": {"type": "integer", "unique": True}}), [partition(1), partition(2)]
    for part in parts:
        deliver(url, made, chunk([{"id": 7}, {"id": part.number}]), of=part, partitions=2)
    counts = finished(url, made, parts)
    assert [(each.partition, each.row, each.column) for each in counts.duplicates] == [(2, 2, "id")]
    assert values(url, "id") == [(1,), (2,), (7,)]
    assert finished(url, made, parts).rejected == 1


def test_a_later_attempt_takes_back_what_an_earlier_one_staged(url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    deliver(url, made, chunk([{"id": 1}, {"id": 2}]), of=parts[0], partitions=2)
    assert deliver(url, made, chunk([{"id": 3}]), of=parts[0], partitions=2, attempt=2).staged == 1
    deliver(url, made, chunk([{"id": 4}]), of=parts[1], partitions=2, attempt=2)
    assert finished(url, made, parts).loaded == 2
    assert values(url, "id") == [(3,), (4,)]


def test_what_was_staged_can_be_dropped_by_its_run_and_by_cleaning(url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    for run in ("r1", "r2"):
        deliver(url, made, chunk([{"id": 1}]), of=parts[0], partitions=2, run=run)
    drop_shadow(made, "r1", url=url)
    before = datetime.now(UTC).replace(year=2100)
    assert leftovers.drop(url, "warehouse", [None], spare=(), before=before) == ["r2"]
    assert query(url, "SELECT count(*) FROM _etl_loads") == [(0,)]


# --- tables ---


def test_values_of_every_type_come_back_as_they_were(url: str, scheme: str) -> None:
    for run, made in (("r1", pipeline()), ("r2", pipeline("merge", key="integer", table="merged_{client}"))):
        deliver(url, made, every_type(), run=run)
        (row,) = query(url, f"SELECT {', '.join(EVERY)} FROM {made.table}")
        assert list(row) == KINDS[scheme].returned
        assert column_types(made, url=url) == {name: name for name in EVERY}
    deliver(url, pipeline(), every_type(False), run="r3", of=partition(3))
    assert query(url, "SELECT count(*) FROM claims_acme WHERE date IS NULL AND decimal IS NULL") == [(1,)]


def test_a_table_that_takes_fewer_digits_refuses_those_it_would_round(url: str) -> None:
    query(url, "CREATE TABLE claims_acme (amount NUMERIC(10, 2), _run TEXT, _file TEXT)")
    deliver(url, pipeline(), chunk([{"amount": Decimal("12.250000000")}]))
    with pytest.raises(TableMismatch, match="amount"):
        deliver(url, pipeline(), chunk([{"amount": Decimal("12.345000000")}]), run="r2", of=partition(2))
    assert [float(amount) for (amount,) in values(url, "amount")] == [12.25]


def test_digits_that_no_column_of_the_kind_has_are_refused_or_kept(url: str) -> None:
    longer = chunk([{"amount": Decimal("0.1234567890123")}])
    try:
        deliver(url, pipeline(), longer)
    except TableMismatch as error:
        assert "amount" in str(error)  # noqa: PT017
        assert column_types(pipeline(), url=url) == {}
    else:
        assert values(url, "amount")[0][0] in (Decimal("0.1234567890123"), 0.1234567890123)


def test_a_column_of_another_type_is_refused_with_its_name(url: str) -> None:
    deliver(url, pipeline(), chunk([{"id": 1, "n": 1}]))
    with pytest.raises(TableMismatch, match="column n: the table has"):
        deliver(url, pipeline(), chunk([{"id": 1, "n": "x"}]), run="r2", of=partition(2))


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_new_columns_are_added_refused_or_left_out(url: str, mode: str) -> None:
    key = {"key": "id"} if mode == "merge" else {}
    deliver(url, pipeline(mode, **key), chunk([{"id": 1}]))
    with pytest.raises(TableMismatch, match="new_columns is fail"):
        deliver(url, pipeline(mode, new_columns="fail", **key), chunk([{"id": 2, "n": 1}]), run="r2", of=partition(2))
    ignoring = pipeline(mode, new_columns="ignore", **key)
    deliver(url, ignoring, chunk([{"id": 2, "n": 1}]), run="r3", of=partition(3))
    assert set(column_types(pipeline(mode, **key), url=url)) == {"id"}
    adding = pipeline(mode, new_columns="add", **key)
    deliver(url, adding, chunk([{"id": 3, "n": 1}]), chunk([{"id": 1, "n": 2}]), run="r4", of=partition(4))
    assert values(url, "id, n")[-1] == (3, 1)


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_columns_name_may_hold_anything(url: str, mode: str) -> None:
    names = ["margin %", "a:b", 'he said "x"', "Straße", "select", "%s", "{x}", "?"]
    made = pipeline(mode, key="margin %") if mode == "merge" else pipeline()
    deliver(url, made, chunk([dict.fromkeys(names, "v")]))
    deliver(url, made, chunk([dict.fromkeys([*names, "more:% "], "w")]), run="r2", of=partition(file="b.csv"))
    assert set(column_types(made, url=url)) == {*names, "more:% "}


def test_names_that_differ_in_case_are_two_columns_or_refused(url: str, facts: TargetFacts) -> None:
    rows = chunk([{"id": 1, "ID": 2}])
    if facts.folds_case:
        with pytest.raises(BadSource, match="differs from another in case only"):
            deliver(url, pipeline(), rows)
    else:
        assert deliver(url, pipeline(), rows).loaded == 1
        assert values(url, 'id, "ID"') == [(1, 2)]


def test_names_longer_than_the_kind_takes_are_refused(url: str, facts: TargetFacts) -> None:
    with pytest.raises(BadSource, match=f"longer than {facts.name_bytes} bytes"):
        deliver(url, pipeline(), chunk([{"x" * (facts.name_bytes + 1): 1}]))
    with pytest.raises(ConfigError, match=f"longer than {facts.name_bytes} bytes"):
        deliver(url, pipeline(table="t" * (facts.name_bytes + 1)), chunk([{"id": 1}]))


def test_more_columns_than_the_kind_takes_are_refused(url: str, facts: TargetFacts) -> None:
    with pytest.raises(BadSource, match=f"takes {facts.columns:,}"):
        deliver(url, pipeline(), chunk([{f"c{number}": 1 for number in range(facts.columns + 1)}]))


def test_a_table_in_a_schema_has_its_ledger_beside_it_or_no_schema_at_all(url: str, facts: TargetFacts) -> None:
    made, parts = pipeline("merge", key="id", table="dw.claims"), [partition(1), partition(2)]
    if facts.schemas:
        with pytest.raises(TargetRefused, match="no such schema"):
            deliver(url, made, chunk([{"id": 1}]))
        query(url, "CREATE SCHEMA dw")
    for part in parts:
        deliver(url, made, chunk([{"id": part.number}]), of=part, partitions=2)
    assert finished(url, made, parts, record=lambda counts: record("r1")).loaded == 2
    where = "dw." if facts.schemas else ""
    assert query(url, f"SELECT count(*) FROM {where}_etl_loads") == [(2,)]
    assert values(url, "id", "dw.claims" if facts.schemas else '"dw.claims"') == [(1,), (2,)]
    assert [each.run for each in history.read(url, "warehouse", ["dw"])] == ["r1"]


def test_a_table_with_keys_of_its_own_is_merged_into(url: str) -> None:
    query(url, "CREATE TABLE claims_acme (id BIGINT PRIMARY KEY, n TEXT, _run TEXT, _file TEXT)")
    made = pipeline("merge", key="id")
    deliver(url, made, chunk([{"id": 1, "n": "a"}, {"id": 2, "n": "b"}]))
    deliver(url, made, chunk([{"id": 1, "n": "c"}, {"id": 3, "n": "d"}]), run="r2")
    assert values(url, "id, n") == [(1, "c"), (2, "b"), (3, "d")]


def test_a_merge_into_rows_with_the_same_key_is_refused_or_replaces_them_all(url: str, facts: TargetFacts) -> None:
    deliver(url, pipeline(), chunk([{"id": 1, "n": "a"}, {"id": 1, "n": "b"}]))
    made = pipeline("merge", key="id")
    if facts.keys:
        with pytest.raises(TableMismatch, match="rows with the same id"):
            deliver(url, made, chunk([{"id": 1, "n": "c"}]), run="r2")
    else:
        deliver(url, made, chunk([{"id": 1, "n": "c"}]), run="r2")
        assert values(url, "id, n") == [(1, "c")]


# --- beside the rows ---


def record(run: str, **changes: Any) -> Record:
    moment, counts = datetime(2024, 3, 1, tzinfo=UTC), {"loaded": 1}
    given = {"state": "succeeded", "attempt": 1, "submitted": moment, "started": None, "finished": moment, **changes}
    return Record(run, "acme", "claims", "claims_acme", rows=counts, partitions={"total": 1}, **given)


def test_history_is_written_with_the_rows_and_a_later_attempts_row_stays(url: str) -> None:
    made = pipeline()
    with reading(url, "warehouse") as connection:
        assert connection is None or query(url, "SELECT 1") == [(1,)]
    history.remember(made, record("r1", attempt=2), url=url)
    history.remember(made, record("r1", state="failed"), url=url)
    history.remember(made, record("r2", error="why"), url=url)
    found = {each.run: (each.state, each.attempt, each.error) for each in history.read(url, "warehouse", [None])}
    assert found == {"r1": ("succeeded", 2, None), "r2": ("succeeded", 1, "why")}
    latest = history.read(url, "warehouse", [None], latest=True, since=datetime(2024, 1, 1, tzinfo=UTC))
    assert latest[0].finished == datetime(2024, 3, 1, tzinfo=UTC)


def test_a_cursor_moves_with_the_rows_and_never_backwards(url: str) -> None:
    made = pipeline("merge", key="id", extract={"type": "csv", "path": "*.csv", "cursor": "at"})

    def move(run: str, since: Cursor | None, latest: Cursor) -> None:
        delivery = Delivery(made, run, partition(), run, 1)
        load(delivery, iter([chunk([{"id": 1, "at": 5}])]), url=url, rejected=0, read=1, move=Move(since, latest))

    assert cursors.read(made, url=url) is None
    five, three = Cursor("integer", "5"), Cursor("integer", "3")
    move("r1", None, five)
    move("r2", five, three)
    there = cursors.read(made, url=url)
    assert there is not None
    assert (there.cursor, there.run) == (five, "r1")
    cursors.place(made, three, url=url)
    assert cursors.clear(made, url=url)
    assert not cursors.clear(made, url=url)


FUNCTIONS = {
    "fine": 'connection.exec_driver_sql("CREATE TABLE mine AS SELECT 1 AS n")',
    "commit": "connection.commit()",
    "statement": 'connection.exec_driver_sql("COMMIT")',
    "hidden": 'connection.exec_driver_sql("/* */ COMMIT")',
    "driver": "connection.connection.driver_connection.commit()",
    "raises": 'raise ValueError("secret")',
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_load_function_may_do_anything_but_end_the_transaction(url: str, name: str, tmp_path: Path) -> None:
    module = f"legacy_{name}_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(f"def load_claims(df, connection):\n    {FUNCTIONS[name]}\n")
    made = pipeline(function=f"{module}:load_claims", modules=(module,), root=str(tmp_path))
    if name == "fine":
        assert deliver(url, made, chunk([{"id": 1}])).loaded == 1
        assert query(url, "SELECT n FROM mine") == [(1,)]
        return
    with pytest.raises(FunctionFailed) as failed:
        deliver(url, made, chunk([{"id": 1}]))
    assert "secret" not in str(failed.value)
    assert ("ends the transaction" in str(failed.value)) == (name != "raises")
    with transaction(url) as connection:
        tables = sa.inspect(connection).get_table_names()
    assert "mine" not in tables
    assert "_etl_loads" not in tables or query(url, "SELECT count(*) FROM _etl_loads") == [(0,)]


def test_a_target_says_what_it_is(url: str, scheme: str) -> None:
    made = DATABASES[scheme]
    if made.file:
        assert check_target(url).endswith("will be made by the first load")
    deliver(url, pipeline(), chunk([{"id": 1}]))
    assert check_target(url).startswith(f"{made.title} ")


def broken(url: str, scheme: str) -> str:
    if DATABASES[scheme].file:
        Path(url.partition("///")[2]).write_bytes(b"no database" * 1000)
        return url
    return url.replace("/test_", "/nothing_")


@pytest.mark.parametrize("call", [check_target, lambda url: deliver(url, pipeline(), chunk([{"id": 1}]))])
def test_a_target_that_is_no_database_is_refused_in_words(url: str, scheme: str, call: Callable[[str], Any]) -> None:
    with pytest.raises(EtlError, match=r"no sound|can't be reached|does not exist") as refused:
        call(broken(url, scheme))
    assert refused.value.cure


def test_a_value_the_table_refuses_is_not_in_the_message(url: str) -> None:
    query(url, "CREATE TABLE claims_acme (id BIGINT NOT NULL CHECK (id > 0), _run TEXT, _file TEXT)")
    for number, value in enumerate((None, -424242)):
        with pytest.raises(TargetRefused) as refused:
            deliver(url, pipeline(), chunk([{"id": 1}, {"id": value}]), run=f"r{number}")
        assert "424242" not in str(refused.value)
    assert values(url, "id") == []


def test_a_kind_whose_driver_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for scheme, made in DATABASES.items():
        if made.extra:
            monkeypatch.setitem(__import__("sys").modules, made.extra, None)
            monkeypatch.delitem(__import__("sys").modules, made.module, raising=False)
            kind_named.cache_clear()
            with pytest.raises(ConfigError, match=f"{made.title} can't be opened: the driver") as missing:
                kind_named(scheme)
            assert f"rq-etl[{made.extra}]" in missing.value.cure
    kind_named.cache_clear()

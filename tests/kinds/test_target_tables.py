"""How every kind of target keeps rows and what is beside them; what its facts say it can't do is refused."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from etl.config.kinds import DATABASES
from etl.errors import BadSource, ConfigError, EtlError, FunctionFailed, TableMismatch, TargetRefused
from etl.load import Delivery, Move, check_target, column_types, cursors, history, load
from etl.load.history import Record
from etl.load.targets import TargetFacts, kind_named
from etl.load.targets.connect import reading, transaction
from etl.types.cursor import Cursor
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, values
from tests.helpers.nights import Night, Nights
from tests.kinds.conftest import EVERY, KINDS, every_type

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


def test_a_column_of_another_type_becomes_wider_or_is_refused_with_its_name(url: str) -> None:
    deliver(url, pipeline(), chunk([{"id": 1, "n": 1}]))
    careful = pipeline(type_changes="fail")
    with pytest.raises(TableMismatch, match=r"column n: the table has \w+, the pipeline string \(type_changes is fail"):
        deliver(url, careful, chunk([{"id": 1, "n": "x"}]), run="r2", of=partition(2))
    found = deliver(url, pipeline(), chunk([{"id": 1, "n": "x"}]), run="r3", of=partition(3))
    assert values(url, "n") == [("1",), ("x",)]
    assert "table claims_acme, column n is string now and was integer" in found.warnings


def test_floats_that_become_decimals_beside_long_integers_keep_their_digits(url: str) -> None:
    floats, runs = [123456789012345.6, 1e15, 1e22, 0.1, -4111111111111111.0], Nights(url, pipeline(table="t"))
    for number, given in enumerate((pa.array(floats), pa.array([2**53 + 1]))):
        for step in runs.steps(Night(number, "acme", [pa.table({"v": given})], typed=True)):
            step()
    found = [row["v"] for row in runs.table()[1].values()]
    assert found == [*(Decimal(repr(each)) for each in floats), Decimal(2**53 + 1)]


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

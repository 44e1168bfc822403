"""Rows reach the target once, whole or not at all."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl.errors import BadSource, MissingColumn, ReceiptMismatch, TooManyRejects
from etl.load import column_types, drop_shadow
from etl.load.targets.postgres import decimal_text
from etl.load.targets.sqlite import _values
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, table, values

EVERY = {
    "string": (pa.string(), "Jürgen \"J\", 066\n\\.\n'x'"),
    "integer": (pa.int64(), -(2**63)),
    "number": (pa.float64(), 0.1),
    "decimal": (pa.decimal128(38, 9), Decimal("12.500000000")),
    "boolean": (pa.bool_(), True),
    "date": (pa.date32(), date(2024, 2, 29)),
    "timestamp": (pa.timestamp("us", tz="UTC"), datetime(2024, 2, 29, 23, 59, 59, 500, tzinfo=UTC)),
}


def every_type(value: bool = True) -> pa.Table:
    row = {name: sample if value else None for name, (_, sample) in EVERY.items()}
    return chunk([row], types={name: type for name, (type, _) in EVERY.items()})


def test_an_append_writes_the_rows_and_where_they_came_from(target_url: str) -> None:
    rows = chunk([{"id": 1, "name": "a"}, {"id": 2, "name": None}])
    counts = deliver(target_url, pipeline(), rows, chunk([{"id": 3, "name": ""}], first=4))
    assert (counts.loaded, counts.unchanged, counts.superseded, counts.final) == (3, 0, 0, True)
    found = values(target_url, "id, name, _run, _file")
    assert found == [(1, "a", "r1", "1.csv"), (2, None, "r1", "1.csv"), (3, "", "r1", "1.csv")]


def test_a_load_delivered_twice_answers_its_first_counts_and_writes_nothing(target_url: str) -> None:
    first = deliver(target_url, pipeline(), chunk([{"id": 1}]))
    again = deliver(target_url, pipeline(), chunk([{"id": 1}, {"id": 2}]))
    assert first == again
    assert len(table(target_url)) == 1


def test_values_of_every_type_come_back_as_they_were(target_url: str) -> None:
    deliver(target_url, pipeline(), every_type(), every_type(False))
    (none, row) = sorted(query(target_url, f"SELECT {', '.join(EVERY)} FROM claims_acme"), key=lambda row: row[0] or "")
    assert set(none) == {None}
    expected: list[Any] = [sample for _, sample in EVERY.values()]
    if target_url.startswith("sqlite"):
        expected = [*expected[:3], 12.5, 1, "2024-02-29", "2024-02-29 23:59:59.000500"]
    assert list(row) == expected


def test_the_tables_columns_have_the_types_of_the_pipeline(target_url: str) -> None:
    deliver(target_url, pipeline(), every_type())
    assert column_types(pipeline(), url=target_url) == {name: name for name in EVERY}


def test_a_pipeline_whose_table_is_not_there_has_no_column_types(target_url: str) -> None:
    assert column_types(pipeline(), url=target_url) == {}


def test_decimals_have_no_trailing_zeros() -> None:
    texts = ["0", "12.5", "100", "0.0000001", "-3.000000001", "0.00000012", "-0.00001"]
    column = pa.chunked_array([pa.array([*map(Decimal, texts), None], pa.decimal128(38, 9))])
    assert decimal_text(column).to_pylist() == [*texts, None]
    whole = pa.chunked_array([pa.array([Decimal(100)], pa.decimal128(38, 0))])
    assert decimal_text(whole).to_pylist() == ["100"]


def test_sqlite_keeps_times_in_utc_with_a_fraction_only_where_there_is_one() -> None:
    column = pa.chunked_array([pa.array([0, 1_500_000, None], pa.timestamp("us", tz="America/Chicago"))])
    assert _values(column) == ["1970-01-01 00:00:00", "1970-01-01 00:00:01.500000", None]


@pytest.mark.parametrize("mode", ["append", "merge"])
def test_a_columns_name_may_hold_anything(target_url: str, mode: str) -> None:
    names = ["margin %", "a:b", 'he said "x"', "Straße", "select", "%s", "{x}", "?"]
    made = pipeline(mode, key="margin %") if mode == "merge" else pipeline()
    deliver(target_url, made, chunk([dict.fromkeys(names, "v")]))
    deliver(target_url, made, chunk([dict.fromkeys([*names, "more:% "], "w")]), run="r2", of=partition(file="b.csv"))
    assert set(table(target_url).columns) == {*names, "more:% ", "_run", "_file"}


def test_several_clients_share_a_table_told_apart_by_client(target_url: str) -> None:
    for client in ("acme", "zenith"):
        deliver(target_url, pipeline(table="claims", client=client), chunk([{"id": 1}]), run=client)
    assert values(target_url, "id, _client", "claims") == [(1, "acme"), (1, "zenith")]


def test_each_row_of_several_files_knows_its_own(target_url: str) -> None:
    rows = pa.table({"id": [1, 2], "_row": [2, (1 << 40) | 2]})
    for number, made in enumerate([pipeline(), pipeline("merge", key="id", table="merged_{client}")]):
        deliver(target_url, made, rows, of=partition(file=["a.csv", "b.csv"]), run=f"r{number}")
        assert values(target_url, "id, _file", made.table) == [(1, "a.csv"), (2, "b.csv")]


def test_a_partition_without_rows_makes_the_table_where_its_columns_are_declared(target_url: str) -> None:
    empty = chunk([{"id": 1}]).slice(0, 0)
    assert deliver(target_url, pipeline(columns={"id": {"type": "integer"}}), empty).loaded == 0
    assert list(table(target_url).columns) == ["id", "_run", "_file"]
    undeclared = pipeline(table="other_{client}")
    assert deliver(target_url, undeclared, empty, run="r2").final
    assert column_types(undeclared, url=target_url) == {}


def test_chunks_of_one_partition_may_differ_in_columns(target_url: str) -> None:
    for run, made in (("r1", pipeline()), ("r2", pipeline("merge", key="id", table="merged_{client}"))):
        first = chunk([{"id": 1, "late": None}])
        deliver(target_url, made, first, chunk([{"id": 2, "late": 1.5}], 3), chunk([{"id": 3}], 4), run=run)
        assert values(target_url, "id, late", made.table) == [(1, None), (2, 1.5), (3, None)]


def test_more_rejects_than_allowed_load_nothing(target_url: str) -> None:
    made = pipeline(max_rejects="10%")
    with pytest.raises(TooManyRejects, match="2 of 11 rows were rejected, max_rejects allows 1"):
        deliver(target_url, made, chunk([{"id": i} for i in range(9)]), rejected=2)
    assert column_types(made, url=target_url) == {}
    assert deliver(target_url, made, chunk([{"id": i} for i in range(9)]), rejected=1).loaded == 9


def test_a_null_key_is_reported_with_its_column_and_line(target_url: str) -> None:
    rows = chunk([{"id": 1, "n": 1}, {"id": None, "n": 2}])
    with pytest.raises(BadSource, match=r"1\.csv, line 3: key column id is empty in 1 rows") as told:
        deliver(target_url, pipeline("merge", key="id"), rows)
    assert "required" in told.value.cure


def test_a_column_that_decides_who_wins_must_be_there(target_url: str) -> None:
    with pytest.raises(MissingColumn, match="updated_at"):
        deliver(target_url, pipeline("merge", key="id", newest="updated_at"), chunk([{"id": 1}]))


@pytest.mark.parametrize("name", ["_file", "_run", "", "ID"])
def test_a_column_no_table_can_have_is_reported(target_url: str, name: str) -> None:
    if name == "ID" and not target_url.startswith("sqlite"):
        pytest.skip("PostgreSQL tells upper case from lower")
    with pytest.raises(BadSource, match="column"):
        deliver(target_url, pipeline(), chunk([{"id": 1, name: 2}]))


def test_a_trigger_that_drops_rows_does_not_go_unseen(pg_url: str) -> None:
    deliver(pg_url, pipeline(), chunk([{"id": 1}]))
    query(pg_url, "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    query(pg_url, "CREATE TRIGGER skip BEFORE INSERT ON claims_acme FOR EACH ROW EXECUTE FUNCTION skip()")
    with pytest.raises(ReceiptMismatch, match="took 0 rows of 1"):
        deliver(pg_url, pipeline(), chunk([{"id": 2}]), run="r2", of=partition(2))


def test_rows_are_read_one_chunk_at_a_time(target_url: str) -> None:
    alive: list[int] = []

    def chunks() -> Iterator[pa.Table]:
        for number in range(4):
            alive.append(pa.total_allocated_bytes())
            yield chunk([{"id": number, "text": "x" * 2_000_000}], first=number + 2)

    deliver(target_url, pipeline(), *(), run="r0")
    from etl.load import Delivery, load

    load(Delivery(pipeline(), "r1", partition(2), "c", 1), chunks(), url=target_url, rejected=0, read=4)
    assert alive[-1] - alive[0] < 6_000_000


# --- Several at once, and sudden death ---


def _child(url: str, made: Any, rows: int, pause: str, ready: Any) -> None:
    from etl.load import Delivery, load

    def chunks() -> Iterator[pa.Table]:
        yield chunk([{"id": number, "n": "x"} for number in range(rows)])
        if pause:
            ready.set()
            signal.pause()

    load(Delivery(made, "r1", partition(), "c1", 1), chunks(), url=url, rejected=0, read=rows)


def _spawn(*args: Any) -> Any:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_child, args=(*args, ready))
    process.start()
    return process, ready


@pytest.mark.slow
@pytest.mark.parametrize(
    "made", [pipeline(), pipeline("merge", key="id"), pipeline("replace")], ids=lambda p: p.load.mode
)
def test_a_load_killed_halfway_leaves_nothing_and_the_next_is_complete(target_url: str, made: Any) -> None:
    process, ready = _spawn(target_url, made, 5000, "pause")
    assert ready.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert column_types(made, url=target_url) == {}
    assert deliver(target_url, made, chunk([{"id": 1, "n": "x"}])).loaded == 1
    assert len(table(target_url)) == 1


def test_two_processes_that_load_one_partition_at_once_load_it_once(target_url: str) -> None:
    pair = [_spawn(target_url, pipeline(), 5000, "") for _ in range(2)]
    for process, _ in pair:
        process.join()
    assert [process.exitcode for process, _ in pair] == [0, 0]
    assert len(table(target_url)) == 5000


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_loads_that_make_one_table_at_once_all_succeed(target_url: str, mode: str) -> None:
    key = {"key": "id"} if mode == "merge" else {}

    def one(number: int) -> Any:
        made = pipeline(mode, table="claims", client=f"client_{number}", **key)
        return deliver(target_url, made, chunk([{"id": 1, f"c{number % 3}": 1}]), run=f"r{number}")

    assert sum(counts.loaded for counts in at_once(6, one)) == 6
    assert len(table(target_url, "claims")) == 6


def test_partitions_of_one_run_at_once_and_their_finish_do_not_block_each_other(target_url: str) -> None:
    def one_run(client: int) -> Any:
        made = pipeline("merge", table="claims", client=f"client_{client}", key="id")
        parts = [partition(number) for number in (1, 2, 3)]

        def one(number: int) -> Any:
            rows = chunk([{"id": id, "n": number, f"extra_{number}_{client}": "x"} for id in range(number, 20)])
            return deliver(target_url, made, rows, of=parts[number], partitions=3, run=f"r{client}")

        at_once(3, one)
        return finished(target_url, made, parts, run=f"r{client}")

    for final in at_once(3, one_run):
        assert (final.loaded, final.superseded) == (20, 37)
    assert len(table(target_url, "claims")) == 60


def test_dropping_what_was_staged_lets_the_partitions_be_loaded_again(target_url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    for part in parts:
        deliver(target_url, made, chunk([{"id": part.number}]), of=part, partitions=2)
    drop_shadow(made, "r1", url=target_url)
    with pytest.raises(ReceiptMismatch, match="no record"):
        finished(target_url, made, parts)
    for part in parts:
        assert deliver(target_url, made, chunk([{"id": part.number}]), of=part, partitions=2).staged == 1
    assert finished(target_url, made, parts).loaded == 2


def test_a_sqlite_file_and_its_folder_are_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/folder/target.db"
    assert deliver(url, pipeline(), chunk([{"id": 1}])).loaded == 1

"""What every kind of target does alike: once, at once, and in every mode. A new kind is one row of `KINDS`."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from etl.config.kinds import DATABASES
from etl.errors import EtlError, TableMismatch, TargetBusy
from etl.load import Delivery, column_types, drop_leftovers, drop_shadow, load
from etl.load.targets import TargetFacts, kind_named
from etl.load.targets.connect import transaction
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, values
from tests.kinds.conftest import KINDS


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


@pytest.mark.slow
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


def test_text_that_nobody_declared_decides_where_it_is_times_of_one_form(url: str) -> None:
    made = pipeline("merge", key="id", newest="v")
    deliver(url, made, chunk([{"id": 1, "v": "2026-01-02 10:00:00"}, {"id": 1, "v": "2026-01-02 10:00:00.5"}]))
    assert deliver(url, made, chunk([{"id": 1, "v": "2026-01-02 10:00:00"}]), run="r2").superseded == 1
    with pytest.raises(TableMismatch, match="says which row is newest") as raised:
        deliver(url, made, chunk([{"id": 1, "v": "2026-01-03"}]), run="r3")
    assert "2026" not in str(raised.value)


def test_text_decides_who_is_newest_by_its_code_points(url: str) -> None:
    made = pipeline("merge", key="id", newest="v", columns={"id": {"type": "integer"}, "v": {"type": "string"}})
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
    assert drop_leftovers(url, "warehouse", [None], spare=(), before=before) == ["r2"]
    assert query(url, "SELECT count(*) FROM _etl_loads") == [(0,)]

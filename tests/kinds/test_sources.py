"""What every kind of source must do. A new kind adds a row to CASES, and its facts say which promises it makes."""

import dataclasses
import gzip
import json
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest

from etl.config.kinds import KINDS, SourceFacts, config_of, source
from etl.config.mistakes import define
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import BadSource, EtlError, SourceMissing
from etl.partition import ROW_BITS, Plan
from etl.sources import extract, latest, plan
from etl.types.cursor import Span, cursor_of

Rows = list[dict[str, Any]]
ROWS: Rows = [{"id": number, "name": f"name {number}", "day": f"2026-01-{number:02}"} for number in range(1, 10)]


class Case(NamedTuple):
    """A kind of source under test.

    Args:
        extract: Its table, for rows that `write` has written.
        write: Writes rows where the source reads them.
        file: Of a kind of file, the name that `write` gives it.
        bad: Of a kind of file, a line that is no row.
    """

    extract: Mapping[str, Any]
    write: Callable[[Path, Rows], None]
    file: str = ""
    bad: str = ""


def write_csv(root: Path, rows: Rows) -> None:
    lines = ["id,name,day", *(",".join(map(str, row.values())) for row in rows)]
    (root / "rows.csv").write_text("\n".join(lines) + "\n")


def write_ndjson(root: Path, rows: Rows) -> None:
    (root / "rows.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_sql(root: Path, rows: Rows) -> None:
    with closing(sqlite3.connect(root / "source.db")) as database, database:
        database.execute("DROP TABLE IF EXISTS rows")
        database.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, name TEXT, day TEXT)")
        database.executemany("INSERT INTO rows VALUES (?, ?, ?)", [tuple(row.values()) for row in rows])


def write_function(root: Path, rows: Rows) -> None:
    (root / "conformance_source.py").write_text(f"def rows():\n    yield from {rows!r}\n")


CASES = {
    "csv": Case({"type": "csv", "path": "*.csv", "settle": 0}, write_csv, "rows.csv", "1,2,3,4"),
    "ndjson": Case({"type": "ndjson", "path": "*.ndjson", "settle": 0}, write_ndjson, "rows.ndjson", '{"id": '),
    "sql": Case(
        {"type": "sql", "url": "sqlite:///source.db", "table": "rows", "partition": "id", "rows": 4}, write_sql
    ),
    "function": Case({"type": "function", "function": "conformance_source:rows"}, write_function),
}
FACTS: dict[str, SourceFacts] = {kind: config_of(kind).FACTS for kind in KINDS}


def kinds(**facts: Any) -> pytest.MarkDecorator:
    """Run a test for the kinds that have these facts."""
    found = [kind for kind in CASES if facts.items() <= dataclasses.asdict(FACTS[kind]).items()]
    return pytest.mark.parametrize("kind", found)


def pipeline(root: Path, kind: str, *, load: Mapping[str, Any] | None = None, **extract: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "rows",
            "client": "acme",
            "root": str(root),
            "staging": str(root / "staging"),
            "modules": ("conformance_source",),
            "extract": {**CASES[kind].extract, **extract},
            "load": {"target": "warehouse", "table": "rows", **(load or {})},
            "target": {"name": "warehouse", "url": "sqlite:///warehouse.db"},
        }
    )


def read(pipeline: Pipeline, planned: Plan | None = None, span: Span | None = None) -> tuple[Rows, Rows, list[str]]:
    """Return all rows and rejects of a source, and each partition's hash."""
    rows, rejected, hashes = [], [], []
    for partition in (planned or plan(pipeline)).partitions:
        chunks, context = extract(pipeline, partition, Context("acme", "run"), span), []
        while True:
            try:
                context.append(next(chunks))
            except StopIteration as end:
                hashes.append(end.value)
                break
        assert context, "at least one chunk"
        assert len({chunk.rows.schema for chunk in context}) == 1, "chunks of a partition have the same columns"
        assert context[0].rows.column_names[-1] == "_row"
        assert context[0].rows.schema.field("_row").type == pa.int64()
        for chunk in context:
            rows += chunk.rows.to_pylist()
            rejected += chunk.rejects.to_pylist()
    return rows, rejected, hashes


def values(rows: Rows) -> Rows:
    """Return rows as text, without where they come from."""
    return [{key: str(value) for key, value in row.items() if key != "_row"} for row in rows]


def test_every_kind_is_tested() -> None:
    assert set(CASES) == set(KINDS)


@kinds()
def test_a_kind_is_known_by_its_type(kind: str) -> None:
    config = source(CASES[kind].extract)
    assert type(config) is config_of(kind)
    assert config.type == kind


@kinds()
def test_all_rows_are_read_and_each_says_where_it_comes_from(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    rows, rejected, _ = read(pipeline(tmp_path, kind))
    assert values(rows) == values(ROWS)
    assert not rejected
    assert all(row["_row"] >= 1 for row in rows)


@kinds()
def test_the_plan_is_the_same_each_time(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    planned = plan(pipeline(tmp_path, kind))
    assert plan(pipeline(tmp_path, kind)) == planned
    assert [partition.number for partition in planned.partitions] == [n + 1 for n in range(len(planned.partitions))]
    assert Plan.model_validate_json(planned.model_dump_json()) == planned


@kinds()
def test_the_same_content_has_the_same_hash_and_other_content_another(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    first, again = read(pipeline(tmp_path, kind))[2], read(pipeline(tmp_path, kind))[2]
    CASES[kind].write(tmp_path, [*ROWS[:-1], {**ROWS[-1], "name": "another"}])
    assert first == again != read(pipeline(tmp_path, kind))[2]


@kinds()
def test_a_source_without_rows_gives_a_chunk_without_rows(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, [])
    assert read(pipeline(tmp_path, kind))[:2] == ([], [])


@kinds()
def test_a_pipeline_with_the_source_survives_json(tmp_path: Path, kind: str) -> None:
    resolved = pipeline(tmp_path, kind)
    again = Pipeline.model_validate_json(resolved.model_dump_json())
    assert again == resolved
    assert again.fingerprint == resolved.fingerprint


@kinds(typed=True)
def test_values_of_a_typed_source_have_their_types(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    assert [row["id"] for row in read(pipeline(tmp_path, kind))[0]] == [row["id"] for row in ROWS]


@kinds(typed=False)
def test_a_cursor_of_a_source_without_types_must_be_declared(kind: str) -> None:
    load = {"target": "w", "table": "t", "mode": "merge", "key": ["id"]}
    table = {"extract": {**CASES[kind].extract, "cursor": "day"}, "load": load}
    [problem] = define(table, ["w"], [])[1]
    assert problem[0] == ("extract", "cursor")
    assert define({**table, "columns": {"day": {"type": "date"}, "id": {}}}, ["w"], [])[1] == []


@kinds(own_code=True)
def test_code_of_the_users_own_must_be_of_a_listed_module(kind: str) -> None:
    table = {"extract": CASES[kind].extract, "load": {"target": "w", "table": "t"}}
    assert define(table, ["w"], ["conformance_source"])[1] == []
    [(where, what)] = define(table, ["w"], [])[1]
    assert where[0] == "extract"
    assert "settings.modules" in what


@kinds(own_code=False)
def test_a_source_without_code_of_the_users_own_names_none(kind: str) -> None:
    assert not list(source(CASES[kind].extract).functions())


# --- windows ---


@kinds(windows="path")
def test_a_window_fills_the_path(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    folder = tmp_path / "2026-01-01"
    folder.mkdir()
    CASES[kind].write(folder, ROWS[:2])
    resolved = pipeline(tmp_path, kind, path="{start}/" + CASES[kind].file)
    assert resolved.extract.not_windowed() is None
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    assert len(read(resolved, plan(resolved, start=start, end=end))[0]) == 2


@kinds(windows="query")
def test_a_window_limits_the_rows_of_a_query(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    resolved = pipeline(tmp_path, kind, cursor="day", load={"mode": "merge", "key": ["id"]})
    assert resolved.extract.not_windowed() is None
    start, end = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 4, tzinfo=UTC)
    planned = plan(resolved, start=start, end=end)
    found = [
        row["id"]
        for partition in planned.partitions
        for chunk in extract(resolved, partition, Context("acme", "run", start=start, end=end))
        for row in chunk.rows.to_pylist()
    ]
    assert found == [2, 3]


@kinds(windows="query")
def test_a_query_reads_from_the_cursor_on_and_knows_its_latest(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    resolved = pipeline(tmp_path, kind, cursor="id", load={"mode": "merge", "key": ["id"]})
    span = Span(since=cursor_of(8), until=latest(resolved, 3))
    assert span.until == cursor_of(9)
    assert [row["id"] for row in read(resolved, span=span)[0]] == [8, 9]


@kinds()
def test_a_window_that_would_change_nothing_is_refused(tmp_path: Path, kind: str) -> None:
    problem = pipeline(tmp_path, kind).extract.not_windowed()
    assert (problem is not None) == (FACTS[kind].windows is not None)
    if FACTS[kind].windows != "query":
        assert latest(pipeline(tmp_path, kind, cursor="id"), 3) is None


# --- files ---


@kinds(files=False)
def test_a_source_that_is_no_file_has_no_keys_of_files(kind: str) -> None:
    with pytest.raises(ValueError, match="missing"):
        source({**CASES[kind].extract, "missing": "ok"})


@kinds(files=True)
def test_a_large_file_cut_into_ranges_gives_the_same_rows_and_lines(tmp_path: Path, kind: str) -> None:
    case = CASES[kind]
    case.write(tmp_path, [{**ROWS[0], "id": number} for number in range(500)])
    lines = (tmp_path / case.file).read_text().splitlines()
    (tmp_path / case.file).write_text("\n".join([*lines[:300], case.bad, "", *lines[300:]]))
    resolved = pipeline(tmp_path, kind)
    whole, cut = plan(resolved), plan(resolved, partition_bytes=4096)
    assert len(whole.partitions) == 1
    assert len(cut.partitions) > 2
    assert [[row["_row"], str(row["id"])] for row in read(resolved, cut)[0]] == [
        [row["_row"], str(row["id"])] for row in read(resolved, whole)[0]
    ]
    [bad], [again] = read(resolved, whole)[1], read(resolved, cut)[1]
    assert bad == again
    assert bad["row"] == 301


@kinds(files=True)
def test_rows_and_rejects_are_all_the_records(tmp_path: Path, kind: str) -> None:
    case = CASES[kind]
    case.write(tmp_path, ROWS)
    with (tmp_path / case.file).open("a") as file:
        file.write(f"\n{case.bad}\n{case.bad}\n")
    rows, rejected, _ = read(pipeline(tmp_path, kind))
    assert (len(rows), len(rejected)) == (len(ROWS), 2)
    assert {entry["file"] for entry in rejected} == {case.file}
    assert rejected[1]["row"] == rejected[0]["row"] + 1
    assert all(json.loads(entry["raw"]) for entry in rejected)


@kinds(files=True)
def test_files_read_at_once_are_joined_by_column(tmp_path: Path, kind: str) -> None:
    case = CASES[kind]
    for number, name in enumerate(("a", "b")):
        case.write(tmp_path, ROWS[:2])
        os.replace(tmp_path / case.file, tmp_path / f"{name}-{case.file}")
        os.utime(tmp_path / f"{name}-{case.file}", (number + 1, number + 1))
    resolved = pipeline(tmp_path, kind, split="none")
    [partition] = plan(resolved).partitions
    rows, _, _ = read(resolved)
    assert len(partition.pieces) == 2
    assert [row["_row"] >> ROW_BITS for row in rows] == [0, 0, 1, 1]


@kinds(files=True)
@pytest.mark.parametrize("form", ["gzip", "bom", "crlf", "utf-16"])
def test_a_file_is_read_in_whatever_form_it_comes(tmp_path: Path, kind: str, form: str) -> None:
    case = CASES[kind]
    case.write(tmp_path, ROWS)
    path = tmp_path / case.file
    content = path.read_bytes()
    forms = {
        "gzip": gzip.compress(content),
        "bom": b"\xef\xbb\xbf" + content,
        "crlf": content.replace(b"\n", b"\r\n"),
        "utf-16": content.decode().encode("utf-16"),
    }
    path.write_bytes(forms[form])
    assert values(read(pipeline(tmp_path, kind))[0]) == values(ROWS)


@kinds(files=True)
def test_a_file_that_is_not_in_its_encoding_is_refused_with_the_line(tmp_path: Path, kind: str) -> None:
    case = CASES[kind]
    case.write(tmp_path, ROWS)
    path = tmp_path / case.file
    path.write_bytes(path.read_bytes().replace(b"name 9", b"n\xe4me"))
    line = len(path.read_bytes().splitlines())
    with pytest.raises(BadSource, match=rf"line {line} is not utf-8"):
        read(pipeline(tmp_path, kind))


@kinds(files=True)
def test_a_file_that_has_gone_since_the_plan_is_missed(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    planned = plan(pipeline(tmp_path, kind))
    (tmp_path / CASES[kind].file).unlink()
    with pytest.raises(SourceMissing, match="gone"):
        read(pipeline(tmp_path, kind), planned)


@kinds(files=True)
def test_a_cut_file_that_has_changed_since_the_plan_is_refused(tmp_path: Path, kind: str) -> None:
    case = CASES[kind]
    case.write(tmp_path, ROWS * 100)
    resolved = pipeline(tmp_path, kind)
    planned = plan(resolved, partition_bytes=4096)
    os.utime(tmp_path / case.file, (1, 1))
    with pytest.raises(BadSource, match="changed"):
        read(resolved, planned)


@kinds(files=True)
def test_no_file_fails_or_warns_or_is_passed_over(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SourceMissing, match="no file matches"):
        plan(pipeline(tmp_path, kind))
    assert plan(pipeline(tmp_path, kind, missing="warn")).warnings
    assert plan(pipeline(tmp_path, kind, missing="ok")) == Plan()


@kinds(files=False)
def test_a_source_that_is_gone_is_reported_in_words(tmp_path: Path, kind: str) -> None:
    with pytest.raises(EtlError) as caught:
        read(pipeline(tmp_path, kind))
    assert caught.value.cure


@kinds()
def test_a_source_is_asked_at_its_pace(tmp_path: Path, kind: str) -> None:
    CASES[kind].write(tmp_path, ROWS)
    resolved, asked = pipeline(tmp_path, kind), []
    [first, *_] = plan(resolved).partitions
    list(extract(resolved, first, Context("acme", "run", pace=lambda: asked.append(1))))
    assert asked == [1]

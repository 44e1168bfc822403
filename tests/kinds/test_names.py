"""Tables as they are: columns spelled otherwise, names that are taken, what is no table, types that take text."""

from typing import Any

import pyarrow as pa
import pytest

from etl.errors import BadSource, EtlError, TableMismatch, TargetRefused
from etl.load import column_types
from etl.load.targets import TargetFacts
from tests.helpers.deliveries import chunk, deliver, finished, partition, pipeline, query, values

OWN = "_run TEXT, _file TEXT"
DECLARED = {"id": {"type": "integer"}, "amount": {"type": "integer", "unique": True}}


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("declared", [True, False])
def test_a_column_that_differs_in_case_only_is_that_column(url: str, mode: str, parts: int, declared: bool) -> None:
    query(url, f'CREATE TABLE claims_acme ("Id" INTEGER PRIMARY KEY, "AMOUNT" INTEGER, {OWN})')
    query(url, """INSERT INTO claims_acme VALUES (9, 90, 'old', 'old.csv')""")
    made = pipeline(mode, columns=DECLARED if declared else {}, **({"key": "id"} if mode == "merge" else {}))
    numbers = [partition(number + 1) for number in range(parts)]
    for part in numbers:
        rows = chunk([{"id": part.number, "amount": part.number * 10}])
        deliver(url, made, rows, of=part, partitions=parts, content=f"c{part.number}")
    if parts > 1:
        finished(url, made, numbers)
    old = [] if mode == "replace" else [(9, 90)]
    assert values(url, '"Id", "AMOUNT"') == [*((part.number, part.number * 10) for part in numbers), *old]
    if declared:
        assert column_types(made, url=url) == {"id": "integer", "amount": "integer"}
    if mode == "merge":
        again = deliver(url, made, chunk([{"id": 1, "amount": 10}, {"id": 9, "amount": 91}]), run="r3")
        assert (again.loaded, again.unchanged) == (1, 1)


def test_a_value_that_is_there_twice_is_a_reject_of_the_pipelines_column(url: str) -> None:
    query(url, f'CREATE TABLE claims_acme ("Id" INTEGER, "AMOUNT" INTEGER, {OWN})')
    made, parts = pipeline(columns=DECLARED), [partition(1), partition(2)]
    for part in parts:
        deliver(url, made, chunk([{"id": part.number, "amount": 1}]), of=part, partitions=2, content=f"c{part.number}")
    assert [each.column for each in finished(url, made, parts).duplicates] == ["amount"]


def test_a_table_made_meanwhile_with_another_spelling_gets_the_staged_rows(url: str) -> None:
    made, parts = pipeline("merge", key="id"), [partition(1), partition(2)]
    for part in parts:
        deliver(url, made, chunk([{"id": part.number, "n": 1}]), of=part, partitions=2, content=f"c{part.number}")
    query(url, f'CREATE TABLE claims_acme ("ID" BIGINT, n BIGINT, {OWN})')
    assert finished(url, made, parts).loaded == 2
    assert values(url, '"ID", n') == [(1, 1), (2, 1)]


def test_two_columns_that_differ_in_case_only_are_refused_unless_one_is_spelled_so(
    url: str, facts: TargetFacts
) -> None:
    if facts.folds_case:
        return
    query(url, f'CREATE TABLE claims_acme ("Id" INTEGER, "ID" INTEGER, {OWN})')
    with pytest.raises(TableMismatch, match='column id may be "ID" or "Id"'):
        deliver(url, pipeline(), chunk([{"id": 1}]))
    assert deliver(url, pipeline(), chunk([{"ID": 1, "Id": 2}])).loaded == 1
    assert values(url, '"ID", "Id"') == [(1, 2)]


def test_two_columns_of_the_rows_are_never_one_of_the_table(url: str, facts: TargetFacts) -> None:
    query(url, f'CREATE TABLE claims_acme ("Id" INTEGER, {OWN})')
    with pytest.raises(EtlError, match='columns id and ID are both "Id"'):
        deliver(url, pipeline(), chunk([{"id": 1, "ID": 2}]))


def test_columns_of_ours_that_are_spelled_otherwise_are_refused_by_name(url: str, facts: TargetFacts) -> None:
    query(url, 'CREATE TABLE claims_acme (id INTEGER, "_Run" TEXT, _file TEXT)')
    with pytest.raises(TableMismatch, match='column "_Run" differs from _run'):
        deliver(url, pipeline(), chunk([{"id": 1}]))
    with pytest.raises(BadSource, match="_FILE has the name"):
        deliver(url, pipeline(table="other"), chunk([{"_FILE": 1}]))
    with pytest.raises(BadSource, match="_etl_id has the name"):
        deliver(url, pipeline(table="other"), chunk([{"_etl_id": 1}]))


def test_a_table_that_differs_in_case_only_is_the_one_or_is_named(url: str, facts: TargetFacts) -> None:
    query(url, f'CREATE TABLE "Rates" (id INTEGER, {OWN})')
    if facts.folds_case:
        assert deliver(url, pipeline(table="rates"), chunk([{"id": 1}])).loaded == 1
    else:
        with pytest.raises(TableMismatch, match='no table rates, but "Rates"'):
            deliver(url, pipeline(table="rates"), chunk([{"id": 1}]))
        assert deliver(url, pipeline(table="Rates"), chunk([{"id": 1}])).loaded == 1
    assert values(url, "id", '"Rates"') == [(1,)]


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_a_view_is_no_target(url: str, mode: str) -> None:
    query(url, f"CREATE TABLE base (id INTEGER, {OWN})")
    query(url, "CREATE VIEW claims_acme AS SELECT * FROM base")
    with pytest.raises(TargetRefused, match="claims_acme is a view, no table"):
        deliver(url, pipeline(mode, **({"key": "id"} if mode == "merge" else {})), chunk([{"id": 1}]))
    assert query(url, "SELECT count(*) FROM base") == [(0,)]


@pytest.mark.parametrize(
    ("made", "what"),
    [
        ("SEQUENCE claims_acme", "claims_acme is a sequence, no table"),
        ("TYPE claims_acme AS (id integer)", "claims_acme is a type, no table"),
        ("TABLE other (id integer); CREATE INDEX claims_acme ON other (id)", "claims_acme is an index, no table"),
        ("TABLE claims_acme ()", "table claims_acme has no column"),
    ],
)
def test_what_is_no_table_of_postgresql_is_said_to_be_what_it_is(pg_url: str, made: str, what: str) -> None:
    for statement in f"CREATE {made}".split("; "):
        query(pg_url, statement)
    with pytest.raises(TargetRefused, match=what):
        deliver(pg_url, pipeline(), chunk([{"id": 1}]))


def test_a_schema_that_is_not_there_is_named_and_so_is_one_that_differs_in_case_only(pg_url: str) -> None:
    query(pg_url, "CREATE SCHEMA raw")
    with pytest.raises(TableMismatch, match='no schema Raw, but "raw"'):
        column_types(pipeline(table="Raw.claims"), url=pg_url)
    with pytest.raises(TargetRefused, match="no such schema: gone"):
        column_types(pipeline(table="gone.claims"), url=pg_url)


@pytest.mark.parametrize("mode", ["append", "merge", "replace"])
def test_an_identity_that_is_always_made_is_refused_by_name_in_every_mode(pg_url: str, mode: str) -> None:
    query(pg_url, f"CREATE TABLE claims_acme (id INTEGER, n INTEGER GENERATED ALWAYS AS IDENTITY, {OWN})")
    asked = pipeline(mode, **({"key": "id"} if mode == "merge" else {}))
    with pytest.raises(EtlError, match="column n: the database itself makes its values"):
        deliver(pg_url, asked, chunk([{"id": 1, "n": 5}]))
    query(pg_url, "ALTER TABLE claims_acme ALTER n SET GENERATED BY DEFAULT")
    deliver(pg_url, asked, chunk([{"id": 1, "n": 5}]), run="r2")


def test_a_column_that_the_database_makes_is_refused_by_name(url: str, scheme: str) -> None:
    made = "GENERATED ALWAYS AS (id * 2)" + (" STORED" if scheme == "postgresql" else "")
    query(url, f"CREATE TABLE claims_acme (id INTEGER, total INTEGER {made}, {OWN})")
    with pytest.raises(EtlError, match="total" if scheme != "duckdb" else "the database itself makes") as refused:
        deliver(url, pipeline(), chunk([{"id": 1, "total": 2}]))
    assert refused.value.cure
    assert deliver(url, pipeline(), chunk([{"id": 1}]), run="r2").loaded == 1
    assert values(url, "id, total") == [(1, 2)]


def test_names_that_every_table_has_are_refused_by_name(url: str, facts: TargetFacts) -> None:
    for name in facts.system:
        with pytest.raises(BadSource, match=f"column {name} has the name"):
            deliver(url, pipeline(), chunk([{name: 1}]))


def test_a_long_name_of_a_table_that_gets_a_key_is_taken(url: str) -> None:
    for end in "ab":
        made = pipeline("merge", key="id", table="é" * 30 + end)
        query(url, f'CREATE TABLE "{made.table}" (id INTEGER, {OWN})')
        assert deliver(url, made, chunk([{"id": 1}]), run=f"r{end}").loaded == 1


# --- types that text is cast to ---

CAST: dict[str, list[tuple[str, str, str]]] = {
    "postgresql": [
        ("uuid", "6F2C1F5E-3A7E-4C0E-9C8B-111111111111", "6f2c1f5e"),
        ("mood", "sad", "blue"),
        ("jsonb", '{"b": 1,  "a": [null]}', "{"),
        ("json", '{"b": 1,  "a": [null]}', "{"),
        ("xml", "<a>1</a>", "<a>"),
        ("inet", "10.0.0.1/24", "10.0.0.999"),
        ("cidr", "10.0.0.0/24", "10.0.0.1/24"),
        ("macaddr", "08:00:2B:01:02:03", "08:00"),
        ("int[]", "{1,2,NULL}", "{1,x}"),
        ("text[]", '{"a,b",c}', "{a"),
        ("time", "23:59:59.5", "25:00"),
        ("interval", "1 day 02:00:00", "one day"),
        ("bytea", "\\x00ff", "\\x0g"),
        ("int4range", "[1,5)", "[5,1)"),
        ("bit(3)", "101", "1012"),
        ("email", "a@b", "nobody"),
        ("moods", "sad", "blue"),
    ],
    "duckdb": [
        ("UUID", "6F2C1F5E-3A7E-4C0E-9C8B-111111111111", "6f2c1f5e"),
        ("mood", "sad", "blue"),
        ("JSON", '{"b": 1,  "a": [null]}', "{"),
        ("INTEGER[]", "[1, 2]", "[1, x]"),
        ("TIME", "23:59:59.5", "25:00"),
        ("INTERVAL", "1 day", "one day"),
    ],
    "sqlite": [],
}
SETUP = {
    "postgresql": "CREATE TYPE mood AS ENUM ('ok', 'sad'); CREATE DOMAIN email AS text CHECK (VALUE LIKE '%%@%%');"
    "CREATE DOMAIN moods AS mood",
    "duckdb": "CREATE TYPE mood AS ENUM ('ok', 'sad')",
}


def test_text_goes_into_columns_of_types_that_the_database_casts_it_to(url: str, scheme: str) -> None:
    if not CAST[scheme]:
        return
    query(url, SETUP[scheme])
    columns = {f"c{number}": kind for number, (kind, _, _) in enumerate(CAST[scheme])}
    listed = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    good = {name: value for name, (_, value, _) in zip(columns, CAST[scheme], strict=True)}
    for mode, parts in (("append", 1), ("merge", 1), ("merge", 2), ("replace", 2)):
        table = f"{mode}_{parts}"
        query(url, f"CREATE TABLE {table} (id TEXT, {listed}, {OWN})")
        made = pipeline(mode, table=table, **({"key": "id"} if mode == "merge" else {}))
        assert column_types(made, url=url) == dict.fromkeys(["id", *columns], "string")
        numbers = [partition(number + 1) for number in range(parts)]
        for run in ("r1", "r2"):
            for part in numbers:
                rows = [{"id": f"{part.number}", **good}, {"id": f"null {part.number}", **dict.fromkeys(good, None)}]
                content = "c" if mode == "append" else f"{run}{part.number}"
                counts: Any = deliver(
                    url, made, chunk(rows, types=dict.fromkeys(good, pa.string())), run=f"{run}{table}", of=part,
                    partitions=parts, content=content,
                )  # fmt: skip
            if parts > 1:
                counts = finished(url, made, numbers, run=f"{run}{table}")
        assert query(url, f"SELECT count(*) FROM {table}") == [(2 * parts,)]
        if mode == "merge":
            assert (counts.loaded, counts.unchanged) == (0, 2 * parts)
    for name, (_, _, bad) in zip(columns, CAST[scheme], strict=True):
        for mode in ("append", "merge"):
            made = pipeline(mode, table=f"{mode}_1", **({"key": "id"} if mode == "merge" else {}))
            with pytest.raises(EtlError) as refused:
                deliver(url, made, chunk([{"id": "x", name: bad}]), run=f"{name}{mode}", of=partition(file=name))
            assert bad not in f"{refused.value} {refused.value.cure}"
            assert scheme != "postgresql" or columns[name] == "email" or f"column {name}" in str(refused.value)


@pytest.mark.parametrize("kind", ["uuid", "mood", "inet", "int[]", "jsonb"])
def test_a_key_of_such_a_type_is_compared_as_the_database_does(pg_url: str, kind: str) -> None:
    query(pg_url, SETUP["postgresql"])
    value = next(value for name, value, _ in CAST["postgresql"] if name == kind)
    other = {"uuid": value.lower(), "jsonb": '{"a":[null],"b":1}'}.get(kind, value)
    query(pg_url, f"CREATE TABLE claims_acme (k {kind} PRIMARY KEY, n BIGINT, {OWN})")
    made = pipeline("merge", key="k")
    assert deliver(pg_url, made, chunk([{"k": value, "n": 1}, {"k": other, "n": 1}])).superseded == 1
    assert deliver(pg_url, made, chunk([{"k": other, "n": 1}]), run="r2", content="c2").unchanged == 1
    assert deliver(pg_url, made, chunk([{"k": other, "n": 2}]), run="r3", content="c3").loaded == 1
    assert values(pg_url, "n") == [(2,)]

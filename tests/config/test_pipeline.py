import math
import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from etl.config.models import Column, Load, Step
from etl.config.pipeline import Config, Pipeline, pipelines_of, resolve
from etl.config.values import dated_placeholders, deep_merge, duration, fill, placeholders
from etl.errors import ConfigError, UnknownName
from tests.helpers.project import Folder

TEXT = """
[settings]
modules = ["steps"]
[targets.db]
url = "sqlite:///w.db"
[targets.own]
url = "sqlite:///{client}.db"

[defaults]
timezone = "America/Chicago"
max_active = 2
pipelines = ["claims", "visits"]
params = { region = "all", year = 2024 }
override.claims = { retries = 7, extract = { encoding = "cp1252" } }
rename.claims = { Datum = "day" }

[pipelines.claims]
extract = { type = "csv", path = "in/{client}/{region}-*.csv", delimiter = "," }
transform = ["steps:one", { function = "steps:two", args = { on = 2024-01-31 } }]
load = { target = "db", table = "claims", mode = "merge", key = "id" }
columns.id = { from = "No" }
columns.amount = { type = "decimal", min = 0 }
columns.day = { type = "date", format = "%d.%m.%Y" }

[pipelines.visits]
extract = { type = "function", function = "steps:visits", args = { client_id = "{client}" }, split = "none" }
load = { target = "db", table = "visits_{client}" }

[pipelines.raw]
extract = { type = "csv", path = "raw/{sourc}*.csv" }
load = { target = "own", function = "steps:store" }

[clients.acme]

[clients.globex]
timezone = "Europe/Berlin"
pipelines = ["claims", "raw"]
params = { region = "north" }
override.claims = { extract = { delimiter = ";" }, columns = { amount = { decimal = "," } }, transform = ["steps:one"] }
rename.claims = { Betrag = "amount" }

[clients.initech.override.visits.extract]
type = "csv"
path = "visits.csv"
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Folder(tmp_path, TEXT).loaded()


def test_a_client_has_the_defaults_where_it_says_nothing(config: Config) -> None:
    found = resolve(config, "claims", "acme")
    assert (found.timezone, found.max_active) == ("America/Chicago", 2)
    assert (found.params, found.rename) == ({"region": "all", "year": 2024}, {"Datum": "day"})
    assert (found.retries, found.extract.encoding, found.extract.delimiter) == (7, "cp1252", ",")  # type: ignore[attr-defined]


def test_a_clients_own_value_wins_and_tables_are_merged(config: Config) -> None:
    found = resolve(config, "claims", "globex")
    assert (found.timezone, found.max_active) == ("Europe/Berlin", 2)
    assert found.params == {"region": "north", "year": 2024}
    assert found.rename == {"Datum": "day", "Betrag": "amount"}
    assert (found.retries, found.extract.encoding, found.extract.delimiter) == (7, "cp1252", ";")  # type: ignore[attr-defined]
    assert found.columns["amount"] == Column(type="decimal", min=0, decimal=",")
    assert list(found.columns) == ["id", "amount", "day"]
    assert found.transform == (Step(function="steps:one"),)  # a list is replaced whole


def test_params_of_the_run_win(config: Config) -> None:
    found = resolve(config, "claims", "globex", params={"region": "south", "month": "5"}, max_rejects=3)
    assert found.params == {"region": "south", "year": 2024, "month": "5"}
    assert found.max_rejects == 3
    assert resolve(config, "claims", "globex", max_rejects="2%").reject_limit(100) == 2
    assert resolve(config, "claims", "globex", max_rejects="12").max_rejects == 12
    assert resolve(config, "claims", "globex").params["region"] == "north"


def test_an_override_of_the_sources_type_replaces_the_source(config: Config) -> None:
    assert resolve(config, "visits", "initech").extract.model_dump(exclude_defaults=True) == {"path": "visits.csv"}
    assert resolve(config, "visits", "acme").extract.type == "function"


def test_a_single_text_stands_for_a_list_and_a_date_is_kept_as_text(config: Config) -> None:
    found = resolve(config, "claims", "acme")
    assert found.load.key == ("id",)
    assert found.columns["id"].from_ == ("No",)
    assert found.columns["day"].format == ("%d.%m.%Y",)
    assert found.transform == (Step(function="steps:one"), Step(function="steps:two", args={"on": "2024-01-31"}))


def test_whether_clients_share_a_table(config: Config) -> None:
    assert resolve(config, "claims", "acme").shared
    assert resolve(config, "claims", "acme").table == "claims"
    visits, raw = resolve(config, "visits", "acme"), resolve(config, "raw", "globex", params={"sourc": "a"})
    assert (visits.shared, visits.table) == (False, "visits_acme")
    assert (raw.shared, raw.table) == (
        False,
        "raw",
    )  # a load function needs no table; the ledger shows the pipeline's name
    env = visits.model_copy(update={"load": Load(target="db", table="v")})
    assert env.model_copy(update={"target": env.target.model_copy(update={"url": "${client}"})}).shared


@pytest.mark.parametrize(
    ("pipeline", "client", "said"),
    [
        ("clams", "acme", "no pipeline clams; did you mean claims?\n  known: claims, visits, raw"),
        ("claims", "acne", "no client acne; did you mean acme?\n  known: acme, globex, initech"),
        (
            "raw",
            "acme",
            "client acme does not have pipeline raw\n  add it to clients.acme.pipelines; it has claims, visits",
        ),
    ],
)
def test_a_name_that_is_not_known_is_reported_with_the_nearest(
    config: Config, pipeline: str, client: str, said: str
) -> None:
    with pytest.raises(UnknownName) as caught:
        resolve(config, pipeline, client)
    assert str(caught.value) == said


def test_the_pipelines_of_a_client(config: Config) -> None:
    assert pipelines_of(config, "globex") == ("claims", "raw")
    with pytest.raises(UnknownName, match="no client globx; did you mean globex"):
        pipelines_of(config, "globx")


def test_a_param_that_is_missing_or_misnamed_is_reported(config: Config) -> None:
    with pytest.raises(
        ConfigError, match=r"extract\.path: \{sourc\} is no parameter of client globex; did you mean source"
    ):
        resolve(config, "raw", "globex", params={"source": "a"})
    for name, said in (("client", "a name of rq-etl's own"), ("a-b", "is no name")):
        with pytest.raises(ConfigError, match=f"param {name}: is {said}|param {name}: {said}"):
            resolve(config, "claims", "acme", params={name: "x"})
    with pytest.raises(ConfigError, match="max_rejects: must be a number of rows"):
        resolve(config, "claims", "acme", max_rejects=-1)


@pytest.mark.parametrize(("pipeline", "client"), [("claims", "acme"), ("claims", "globex"), ("visits", "acme")])
def test_a_pipeline_survives_json(config: Config, pipeline: str, client: str) -> None:
    found = resolve(config, pipeline, client, params={"month": "5"})
    again = Pipeline.model_validate_json(found.model_dump_json())
    assert again == found
    assert again.fingerprint == found.fingerprint
    assert Pipeline.model_validate(found.model_dump(mode="json")) == found


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
COLUMNS = st.one_of(
    st.builds(lambda f, a: Column(from_=f, allowed=a), st.lists(st.text()).map(tuple), st.lists(st.text(), min_size=1)),
    st.builds(lambda low, comma: Column(type="number", min=low, decimal=comma), NUMBERS, st.sampled_from([".", ","])),
    st.builds(lambda low: Column(type="decimal", max=str(low)), st.decimals(allow_nan=False, allow_infinity=False)),
    st.builds(lambda low: Column.model_validate({"type": "date", "min": low}), st.dates()),
    st.builds(lambda low: Column.model_validate({"type": "timestamp", "allowed": [low]}), st.datetimes()),
)


@given(column=COLUMNS)
def test_any_column_survives_json(column: Column) -> None:
    assert Column.model_validate_json(column.model_dump_json()) == column
    assert "from_" not in column.model_dump_json()


def test_a_fingerprint_changes_with_what_shapes_rows_only(config: Config) -> None:
    found = resolve(config, "claims", "acme")
    assert len(found.fingerprint) == 16

    def changed(**update: Any) -> bool:
        return found.model_copy(update=update).fingerprint != found.fingerprint

    assert not changed(
        retries=1, timeout=5.0, retry_delays=(1.0,), max_active=9, max_rejects=4, staging="/x", root="/x"
    )
    assert changed(timezone="UTC")
    assert changed(rename={"a": "id"})
    assert changed(transform=())
    assert changed(params={})
    assert changed(columns=dict(reversed(found.columns.items())))  # the first column in order that fails is told
    assert changed(extract=resolve(config, "visits", "acme").extract)


@pytest.mark.parametrize(
    ("limit", "read", "most"),
    [(None, 10, None), (0, 10, 0), (7, 10, 7), ("5%", 1000, 50), ("5%", 19, 0), ("0.1 %", 1000, 1), ("100%", 7, 7)],
)
def test_the_limit_of_rejects(config: Config, limit: Any, read: int, most: int | None) -> None:
    assert resolve(config, "claims", "acme").model_copy(update={"max_rejects": limit}).reject_limit(read) == most


@given(
    value=st.integers(0, 36_525), unit=st.sampled_from([("ms", 0.001), ("s", 1), ("m", 60), ("h", 3600), ("d", 86400)])
)
def test_spans_of_time_are_read_in_seconds(value: int, unit: tuple[str, float]) -> None:
    assert math.isclose(duration(f"{value}{unit[0]}"), value * unit[1])
    assert duration(value) == value


@pytest.mark.parametrize("value", ["", "5", "m", "5 weeks", "-5s", "5m3s", -1, math.nan, True, None, []])
def test_what_is_no_span_of_time_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be a span of time"):
        duration(value)


def test_names_in_braces_are_filled() -> None:
    assert placeholders("in/{client}/${HOME}/{year}.csv") == ["client", "year"]
    assert dated_placeholders("in/{client}/{date:%Y}-{end}.csv") == [("client", None), ("date", "%Y"), ("end", None)]
    with pytest.raises(ValueError, match=r"how \{date\} is written, which only paths do"):
        placeholders("claims_{date:%Y}")
    assert fill("in/{client}/${client}/{year}.csv", {"client": "acme", "year": 2024}) == "in/acme/${client}/2024.csv"
    assert fill("{a}", {"a": "{b}", "b": "c"}) == "{b}"
    with pytest.raises(ConfigError, match=r"\{yaer\} has no value; did you mean year"):
        fill("{yaer}", {"year": 1})


@pytest.mark.parametrize("text", ["{", "}", "{a", "{{a}}", "{a.b}", "{a[0]}", "{}", "{a x}", "{a!r}"])
def test_braces_that_are_no_name_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not part of a"):
        placeholders(text)


TABLES = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
).filter(lambda value: isinstance(value, dict))


@given(base=TABLES, over=TABLES)
def test_a_merge_keeps_what_is_not_said_and_takes_what_is(base: Any, over: Any) -> None:
    merged = deep_merge(base, over)
    assert deep_merge(merged, over) == merged
    assert deep_merge(base, {}) == base
    assert deep_merge({}, over) == over
    for key in base.keys() | over.keys():
        if key not in over:
            assert merged[key] == base[key]
        elif not (isinstance(over[key], dict) and isinstance(base.get(key), dict)):
            assert merged[key] == over[key]


@pytest.mark.parametrize(
    ("kind", "value", "typed"),
    [
        ("string", "1", "1"),
        ("integer", 1, 1),
        ("number", 1, 1.0),
        ("decimal", 0.1, Decimal("0.1")),
        ("decimal", "0.10", Decimal("0.10")),
        ("date", "2024-01-31", date(2024, 1, 31)),
        ("timestamp", "2024-01-31", datetime(2024, 1, 31)),
    ],
)
def test_limits_have_the_columns_type(kind: Any, value: Any, typed: Any) -> None:
    found = Column(type=kind).typed(value)
    assert (found, type(found)) == (typed, type(typed))


def test_models_are_frozen_and_know_their_keys() -> None:
    with pytest.raises(ValidationError):
        Column().type = "date"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Column(typ="date")  # type: ignore[call-arg]


def test_reading_a_configuration_imports_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "etl.toml").write_text(TEXT)
    heavy = {"pandas", "numpy", "pyarrow", "sqlalchemy", "psycopg", "croniter"}
    code = f"import sys; from etl.config.read import load_config\n" \
           f"from etl.config.pipeline import resolve; from pathlib import Path\n" \
           f"resolve(load_config(Path({str(tmp_path / 'etl.toml')!r})), 'claims', 'acme')\n" \
           f"print(sorted({heavy} & set(sys.modules)))"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

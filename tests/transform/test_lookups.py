"""Lookups: reference tables that functions are given by name."""

from pathlib import Path

import pytest

from tests.helpers.project import Project, etl_toml

TOML = etl_toml(
    {
        "claims": {
            "extract": {"path": "inbox/*.csv"},
            "transform": ["steps:first", "steps:second"],
            "load": {"mode": "merge", "key": ["id"]},
            "retries": 0,
            "lookups": {"codes": {"type": "csv", "path": "ref/{client}.csv", "settle": 0}},
            "columns": {
                "id": "integer",
                "code": "string",
                "name": {"type": "string", "computed": True},
                "price": {"type": "number", "computed": True},
            },
        }
    }
)
STEPS = """
def first(df, codes):
    assert codes.price.dtype == "float64" and codes.code.dtype == "str", codes.dtypes
    found = codes.set_index("code")
    codes.loc[:, "price"] = 0
    return df.assign(name=df.code.map(found.name), price=df.code.map(found.price).astype(float))

def second(df, codes, client):
    assert (codes.price > 0).all()
    return df
"""


@pytest.fixture
def etl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a lookup."""
    monkeypatch.chdir(tmp_path)
    files = {
        "steps.py": STEPS,
        "ref/acme.csv": "code,name,price\n1,one,10\n2,two,20\n",
        "inbox/a.csv": "id,code\n1,1\n2,2\n3,\n",
        "inbox/b.csv": "id,code\n4,1\n",
    }
    return Project(tmp_path, TOML, files)


def test_functions_are_given_a_lookup_by_name(etl: Project) -> None:
    """Typed as the column of the name is; what one function changes the next does not see."""
    assert etl("validate").code == 0
    run = etl.run()
    assert run["state"] == "succeeded", run
    expected = [(1, "one", 10.0), (2, "two", 20.0), (3, None, None), (4, "one", 10.0)]
    assert etl.rows("SELECT id, name, price FROM claims ORDER BY id") == expected
    assert "one" in etl("plan claims --client acme --rows 2").out


def test_a_lookup_is_read_again_in_the_next_run(etl: Project) -> None:
    etl.run()
    etl.write("ref/acme.csv", "code,name,price\n1,uno,11\n")
    etl.run()
    assert etl.rows("SELECT name FROM claims WHERE id = 1") == [("uno",)]


def test_what_is_odd_about_a_lookup_is_a_warning_of_the_run_once(etl: Project) -> None:
    steps = "def first(df, codes):\n    return df.assign(name=None, price=None)\n\ndef second(df):\n    return df\n"
    etl.write("steps.py", steps)
    etl.write("ref/acme.csv", "code;name\n1;one\n")
    etl.config(TOML.replace("ref/{client}.csv", "ref/*.csv"))
    (etl.root / "ref/old.csv").symlink_to("gone.csv")
    run = etl.run()
    assert run["state"] == "succeeded", run
    warnings = run["warnings"]
    assert [warning for warning in warnings if warning.startswith("lookup codes: ")] == [
        "lookup codes: ref/old.csv: a link that leads nowhere, left out",
        'lookup codes: ref/acme.csv has one column with delimiter = ","; delimiter = ";" would give more',
    ]
    etl.config(TOML.replace("ref/{client}.csv", "none/*.csv").replace("settle = 0 }", 'settle = 0, missing = "warn" }'))
    etl.write("inbox/c.csv", "id,code\n5,1\n")
    assert "lookup codes: no file matches none/*.csv" in etl.run()["warnings"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no file matches ref/acme.csv"), ("code,name,price\n1,one\n", "lookup codes: ref/acme.csv, line 2")],
)
def test_a_lookup_that_cant_be_read_fails_the_run(etl: Project, content: str | None, said: str) -> None:
    (etl.root / "ref/acme.csv").unlink()
    if content:
        etl.write("ref/acme.csv", content)
    run = etl.run()
    assert run["state"] == "failed"
    assert said in run["failures"][0]["error"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("codes = {", "coeds = {", "asks for codes, which nothing gives it"),
        ("codes = {", "client = {", "lookups.client: is no name for a lookup"),
        ("settle = 0", "setle = 0", "unknown key pipelines.claims.lookups.codes.setle; did you mean settle?"),
        ("settle = 0", 'cursor = "code"', "lookups.codes.cursor: a lookup is read whole"),
        ("ref/{client}.csv", "ref/{clinet}.csv", "{clinet} is no parameter"),
    ],
)
def test_mistakes_in_lookups_are_reported(etl: Project, old: str, new: str, said: str) -> None:
    etl.config(TOML, (old, new))
    found = etl("validate")
    if "parameter" in said:
        found = etl("plan claims --client acme")
    assert found.code == 2
    assert said in found.err

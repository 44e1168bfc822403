from collections.abc import Callable
from pathlib import Path

import pytest

from etl.config.code import check_functions
from etl.config.read import load_config
from tests.helpers.project import Folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write etl.toml, demo_steps.py and clients/*.toml; return etl.toml."""

    def project(text: str, steps: str | None = None, **clients: str) -> Path:
        files = {f"clients/{name}.toml": client for name, client in clients.items()}
        if steps is not None:
            files["demo_steps.py"] = steps
        return Folder(tmp_path, text, files).path

    return project


STEPS = """
import pandas as pd
def clean(df): return df
def scale(df, factor, client, params, since=None): return df
def anything(df, **kwargs): return df
def source(client, start, page_size=10): yield from ()
def store(df, connection): pass
def store_for(df, connection, client, run, start=None): pass
def store_rate(df, connection, rate): pass
async def later(df): return df
def piecewise(df): yield df
def no_frame(): return None
def needy(df, rate): return df
number = 5
"""


def with_functions(transform: str, extract: str = "", load: str = "") -> str:
    return f"""
    settings.modules = ["demo_steps"]
    targets.db.url = "sqlite:///w.db"
    pipelines.claims.extract = {extract or '{ type = "csv", path = "x" }'}
    pipelines.claims.transform = {transform}
    pipelines.claims.load = {{ target = "db", table = "t"{load} }}
    """


def test_functions_that_fit_are_fine(write: Callable[..., Path]) -> None:
    path = write(
        with_functions(
            '["demo_steps:clean", { function = "demo_steps:scale", args = { factor = 2 } },'
            ' { function = "demo_steps:anything", args = { x = 1 } }]',
            '{ type = "function", function = "demo_steps:source", args = { page_size = 5 } }',
            ', function = "demo_steps:store"',
        ),
        STEPS,
    )
    assert check_functions(load_config(path)) == []


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        ('"demo_steps:claen"', "demo_steps:claen: demo_steps has no function claen"),
        ('"demo_steps:number"', "demo_steps:number: demo_steps has no function number"),
        ('"demo_steps:needy"', "demo_steps:needy asks for rate, which nothing gives it; give it in `args`"),
        ('{ function = "demo_steps:clean", args = { factr = 1 } }', "demo_steps:clean has no parameter factr"),
        ('"demo_steps:no_frame"', "demo_steps:no_frame takes 0 arguments, it is called with 1"),
        ('"demo_steps:later"', "demo_steps:later is async; write it with a plain def"),
        ('"demo_steps:piecewise"', "demo_steps:piecewise yields; return one DataFrame instead"),
    ],
)
def test_a_function_that_can_not_be_called_is_reported(write: Callable[..., Path], transform: str, said: str) -> None:
    path = write(with_functions(f'["demo_steps:clean", {transform}]'), STEPS)
    (told,) = check_functions(load_config(path))
    assert str(told).startswith(f"etl.toml: pipelines.claims.transform[1]: {said}")


def test_a_load_function_may_ask_for_what_a_run_knows_and_no_more(write: Callable[..., Path]) -> None:
    fine = with_functions("[]", load=', function = "demo_steps:store_for"')
    assert check_functions(load_config(write(fine, STEPS))) == []
    (told,) = check_functions(load_config(write(fine.replace("store_for", "store_rate"), STEPS)))
    assert "pipelines.claims.load.function: demo_steps:store_rate asks for rate, which nothing gives it" in str(told)
    lookup = '    pipelines.claims.lookups.rate = { type = "csv", path = "rates.csv" }\n'
    (told,) = check_functions(load_config(write(fine.replace("store_for", "store_rate") + lookup, STEPS)))
    assert "asks for rate" in str(told)  # lookups are read for the functions of transform and extract


def test_a_module_that_is_not_there_or_broken_is_reported(write: Callable[..., Path]) -> None:
    path = write(with_functions('["demo_steps:clean"]'))
    (told,) = check_functions(load_config(path))
    assert "there is no module demo_steps" in str(told)
    path.with_name("demo_steps.py").write_text("def clean(df:\n")
    (told,) = check_functions(load_config(path))
    assert "demo_steps can't be imported: SyntaxError" in str(told)


def test_a_function_of_an_override_is_reported_in_the_clients_own_file(write: Callable[..., Path]) -> None:
    acme = 'pipelines = ["claims"]\noverride.claims.transform = ["demo_steps:needy"]\n'
    path = write(with_functions("[]"), STEPS, acme=acme, globex=acme)
    (told,) = check_functions(load_config(path))
    assert str(told).startswith("clients/acme.toml: override.claims.transform[0]: demo_steps:needy asks for rate")

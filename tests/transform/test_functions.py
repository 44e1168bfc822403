"""User functions: found, called by name, blamed by line; rows they reject."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import etl
from etl.config.values import fill
from etl.context import Context
from etl.errors import ConfigError, FunctionFailed
from etl.functions import blame, call_by_name, load_function
from etl.transform.reject import collecting, reject

CONTEXT = Context(client="acme", run="r1", params={"region": "north"}, lookups={"codes": pd.DataFrame({"code": [1]})})


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def load(root: Path, name: str = "steps:clean") -> Any:
    return load_function(name, root=str(root), modules=[name.partition(":")[0]])


def test_a_function_is_found_in_the_folder_of_the_configuration(tmp_path: Path) -> None:
    write(tmp_path, "steps.py", "def clean(df):\n    return df + 1\n")
    assert load(tmp_path)(1) == 2
    assert sys.path.count(str(tmp_path)) == 1
    load(tmp_path)
    assert sys.path.count(str(tmp_path)) == 1


def test_a_module_in_a_package_is_found(tmp_path: Path) -> None:
    write(tmp_path, "company/__init__.py", "")
    write(tmp_path, "company/steps.py", "def clean(df):\n    return df\n")
    assert load(tmp_path, "company.steps:clean")(7) == 7


def test_a_module_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="os isn't listed"):
        load_function("os:system", root=str(tmp_path), modules=["steps"])


def test_a_changed_file_is_imported_again(tmp_path: Path) -> None:
    for factor in (2, 3):  # of the same length and within one second
        write(tmp_path, "steps.py", f"from helpers import K\n\ndef clean(df):\n    return df * {factor} * K\n")
        write(tmp_path, "helpers.py", "K = 1\n")
        assert load(tmp_path)(1) == factor
    write(tmp_path, "helpers.py", "K = 5\n")
    os.utime(tmp_path / "helpers.py", ns=(1, 1))
    assert load(tmp_path)(1) == 15


def test_an_unchanged_file_is_not_imported_again(tmp_path: Path) -> None:
    write(tmp_path, "steps.py", "def clean(df):\n    return df\n")
    assert load(tmp_path) is load(tmp_path)


def test_two_roots_have_modules_of_the_same_name(tmp_path: Path) -> None:
    for name in ("a", "b", "a"):
        write(tmp_path, f"{name}/steps.py", f"def clean(df):\n    return {name!r}\n")
        assert load(tmp_path / name)(None) == name


def test_folders_of_the_user_do_not_hide_ours(tmp_path: Path) -> None:
    for name in ("etl", "jobs"):
        write(tmp_path, f"{name}/__init__.py", "raise RuntimeError('hidden')\n")
    write(tmp_path, "steps.py", "import etl.errors, jobs\n\ndef clean(df):\n    return jobs.__file__\n")
    ours = Path(etl.__file__).parent.parent
    assert Path(load(tmp_path)(None)).is_relative_to(ours)
    with pytest.raises(ConfigError, match="name of a part of rq-etl"):
        load(tmp_path, "jobs:clean")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def other(df): ...\n", "no function clean"),
        ("clean = 3\n", "no function clean"),
        ("import surely_missing\n", "ModuleNotFoundError surely_missing in steps.py line 1"),
        ("x = 1\ndef clean(df:\n", r"SyntaxError .* in steps.py line 2"),
        ("\nraise ValueError('Jane Roe')\n", "ValueError in steps.py line 2$"),
        ("raise SystemExit(3)\n", "SystemExit in steps.py line 1"),
    ],
)
def test_what_cannot_be_imported_is_named_by_module_and_line(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, "steps.py", text)
    with pytest.raises(ConfigError, match=said) as caught:
        load(tmp_path)
    assert "Jane" not in str(caught.value)


def test_a_missing_module_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no module steps in"):
        load(tmp_path)


def test_parameters_are_filled_by_name() -> None:
    def function(df: int, client: str, region: str, *, codes: Any, params: Any, since: Any, factor: int = 2) -> Any:
        return df, client, region, len(codes), params["region"], since, factor

    expected = (1, "acme", "south", 1, "north", None, 2)
    assert call_by_name(function, [1], CONTEXT, {"region": "south"}) == expected


def test_args_win_over_the_run_and_reach_keyword_catchers() -> None:
    assert call_by_name(lambda df, **rest: rest, [1], CONTEXT, {"client": "x", "k": 1}) == {"client": "x", "k": 1}
    assert call_by_name(lambda df, client, /: client, [1], CONTEXT) == "acme"
    assert call_by_name(lambda client: client, [], CONTEXT) == "acme"


def test_a_parameter_that_nothing_fills_is_named() -> None:
    with pytest.raises(ConfigError, match="steps:clean asks for colour"):
        call_by_name(lambda df, colour: df, [1], CONTEXT, name="steps:clean")
    with pytest.raises(ConfigError, match="has no parameter colour"):
        call_by_name(lambda df: df, [1], CONTEXT, {"colour": 1}, name="steps:clean")
    with pytest.raises(ConfigError, match="takes 0 arguments"):
        call_by_name(lambda: 1, [1], CONTEXT, name="steps:clean")


def test_what_a_function_raises_is_reported_by_place_and_without_values(tmp_path: Path) -> None:
    text = "import helpers\n\ndef clean(df):\n    return helpers.parse(df)\n"
    write(tmp_path, "steps.py", text)
    write(tmp_path, "helpers.py", "def parse(value):\n    return int(value)\n")
    with pytest.raises(FunctionFailed) as caught:
        call_by_name(load(tmp_path), ["Jane Roe"], CONTEXT, name="steps:clean")
    assert caught.value.what == "steps:clean raised ValueError in helpers.py line 2, in parse"
    assert "Jane" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_code_that_a_library_makes_is_not_taken_for_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no file, so it seems to lie in the folder where the process is: that of etl.toml, as a rule."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "steps.py", "def clean(run):\n    run()\n")
    made: dict[str, Any] = {}
    exec(compile("def run():\n    raise ValueError\n", "<made by a library>", "exec"), made)
    with pytest.raises(FunctionFailed, match=r"ValueError in steps\.py line 2, in clean"), blame("steps:clean"):
        load(tmp_path)(made["run"])


def test_a_name_that_stands_in_the_users_code_is_reported(tmp_path: Path) -> None:
    write(tmp_path, "steps.py", "def clean(df, key):\n    df['amuont']\n\ndef other(df, key):\n    return df[key]\n")
    frame = pd.DataFrame({"amount": [1]})
    with pytest.raises(FunctionFailed, match=r"KeyError amuont in steps\.py line 2, in clean"):
        call_by_name(load(tmp_path), [frame], CONTEXT, {"key": 1}, name="steps:clean")
    with pytest.raises(FunctionFailed) as caught:
        call_by_name(load(tmp_path, "steps:other"), [frame], CONTEXT, {"key": "Jane"}, name="steps:other")
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionError(), True),
        (RuntimeError(), True),
        (MemoryError(), True),
        (ValueError(), False),
        (KeyError(), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    with pytest.raises(FunctionFailed) as caught, blame("steps:clean"):
        raise error
    assert caught.value.retryable is again


def test_exits_are_failures_and_errors_that_our_own_code_raises_pass() -> None:
    with pytest.raises(FunctionFailed, match="SystemExit"), blame("steps:clean"):
        sys.exit(0)
    with pytest.raises(ConfigError, match="is no text"), blame("steps:clean"):
        fill("{is no text}", {})
    with pytest.raises(FunctionFailed, match="raised ConfigError in") as caught, blame("steps:clean"):
        raise ConfigError("Jane Roe")
    assert "Jane Roe" not in str(caught.value)


def frame(*values: float | None, rows: list[int] | None = None) -> pd.DataFrame:
    index = pd.Index(rows or range(2, 2 + len(values)), name="_row")
    return pd.DataFrame({"x": pd.array(values, dtype="Float64")}, index=index)


@pytest.mark.parametrize(
    "bad",
    [
        lambda df: df.x < 0,
        frame(1, -2, None, -4).x < 0,
        (frame(1, -2, None, -4).x < 0).iloc[::-1],  # aligned by _row
        (frame(1, -2, None, -4).x < 0).dropna(),  # of some rows only
        [False, True, None, True],
        np.array([False, True, False, True]),
        pd.Series([False, True, pd.NA, True], dtype="boolean"),  # another index: by position
        pd.Series([False, True, np.nan, True], dtype=object),
        frame(-2, rows=[3]).index.append(frame(-4, rows=[5]).index),
        frame(1, -2, None, -4).query("x < 0"),
    ],
)
def test_bad_rows_are_given_in_many_ways_and_missing_is_not_bad(bad: Any) -> None:
    with collecting() as rejected:
        good = reject(frame(1, -2, None, -4), bad, reason="negative", column="x")
    assert good.index.tolist() == [2, 4]
    assert good.index.name == "_row"
    [entry] = rejected
    assert (entry.rows, entry.reason, entry.column) == ([3, 5], "negative", "x")


def test_rows_that_share_a_line_are_rejected_one_by_one() -> None:
    double = frame(1, -2, 3, rows=[2, 2, 3])
    with collecting() as rejected:
        assert reject(double, double.x < 0, reason="negative").x.tolist() == [1, 3]
    assert (rejected[0].rows, rejected[0].gone) == ([2], [])
    with pytest.raises(ValueError, match="share a _row"):
        reject(double, (double.x < 0).iloc[::-1], reason="negative")


def test_reject_outside_a_run_returns_the_good_rows() -> None:
    assert reject(frame(1, -2), [False, True], reason="negative").x.tolist() == [1]
    assert reject(frame(), [], reason="negative").empty


def test_reject_asks_for_what_it_needs() -> None:
    with pytest.raises(RuntimeError, match="set_index"):
        reject(pd.DataFrame({"x": [1]}), [True], reason="r")
    with pytest.raises(ValueError, match="3 values for 2 rows"):
        reject(frame(1, 2), [True] * 3, reason="r")

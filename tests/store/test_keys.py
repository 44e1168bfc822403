"""Every key and every script of ours is where the tables say, and the documents say the same."""

import importlib.util
import re
import runpy
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from redis import Redis

from jobs.process.maintenance import once_every
from jobs.store import keys, runs, scripts
from jobs.store.keys import KEYS
from jobs.store.transitions import NOTHING, TRANSITIONS, sources
from tests.helpers.processes import ROOT

STORE = ROOT / "jobs" / "store"
LUA = sorted(STORE.glob("*.lua"))
DOCUMENTS = ("redis.md", "state_machine.md")


def known() -> str:
    """Return a pattern of all keys in the table."""
    patterns = (re.escape(key.pattern).replace(r"\[", "(").replace(r"\]", ")?") for key in KEYS)
    return "|".join(re.sub(r"<\w+>", "[^:]+", pattern) for pattern in patterns)


def test_every_key_that_the_code_names_is_in_the_table() -> None:
    named = {value for name, value in vars(keys).items() if name.isupper() and str(value).startswith("etl:")}
    named |= {keys.run_key("r"), keys.stages_key("r"), keys.jobs_key("r"), keys.waiters_key("r"), keys.claim_key("r")}
    named |= {keys.holder_key("c", "p"), keys.holder_key("c", "p", "2026-01-01"), keys.held_key("c", "p")}
    named |= {keys.client_key("c"), keys.rate_key("c", "p"), keys.use_key(1), keys.once_key("cleanup")}
    assert {key for key in named if not re.fullmatch(known(), key)} == set()


@pytest.mark.parametrize("script", LUA, ids=lambda path: path.stem)
def test_a_script_spells_only_keys_of_the_table(script: Path) -> None:
    """A name in it may go on with what the script is given."""
    for name in re.findall(r"'(etl:[^']*)'", script.read_text()):
        assert (
            any(key.pattern == name or key.pattern.startswith(f"{name}<") for key in KEYS) or name == "etl:once:grace"
        )


def test_no_key_is_spelled_outside_the_table() -> None:
    files = [*(ROOT / "jobs").rglob("*.py"), *(ROOT / "etl").rglob("*.py"), ROOT / "cli.py"]
    spelled = [
        path for path in files if path != STORE / "keys.py" and re.search(r"""["']etl:[a-z]+""", path.read_text())
    ]
    assert spelled == []


def test_lua_is_in_its_own_files() -> None:
    assert [path for path in (ROOT / "jobs").rglob("*.py") if "redis.call(" in path.read_text()] == []


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.pattern)
def test_the_owner_of_a_key_is_there(key: keys.Key) -> None:
    is_script = key.owner.endswith(".lua")
    assert (STORE / key.owner).exists() if is_script else importlib.util.find_spec(key.owner)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_documents_are_made_from_the_tables(name: str) -> None:
    """Where this fails: python docs/tables.py."""
    text = (ROOT / "docs" / name).read_text()
    made = runpy.run_path(str(ROOT / "docs" / "tables.py"))["made"]
    assert made(text) == text
    assert "by docs/tables.py -->\n\n| " in text


def test_the_wheel_has_every_script(tmp_path: Path) -> None:
    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    names = {name for name in zipfile.ZipFile(built).namelist() if name.endswith(".lua")}
    assert names == {f"jobs/store/{path.name}" for path in LUA}
    used = {name for name, value in vars(scripts).items() if isinstance(value, scripts.Script)}
    assert {path.stem for path in LUA} == used | {"shared"}


def test_transitions_lead_from_states_to_states_and_every_ending_can_be_left_or_kept() -> None:
    assert {each.to for each in TRANSITIONS} == set(runs.STATES)
    assert {state for each in TRANSITIONS for state in each.sources} == {NOTHING, *runs.STATES} - {"succeeded"}
    assert sources("close") == ("held", "queued", "running")


def test_of_many_callers_one_does_what_is_done_once_in_a_while(connection: Redis) -> None:
    assert [once_every(connection, "look", 60) for _ in range(3)] == [True, False, False]
    assert once_every(connection, "another", 60)
    connection.delete(keys.once_key("look"))
    assert once_every(connection, "look", 0.5)
    assert 0 < int(connection.pttl(keys.once_key("look"))) <= 500

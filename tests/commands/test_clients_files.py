"""A client's file: its mistakes stop that client alone, and it says no more than clients are trusted with."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from redis import Redis

from etl.config.pipeline import needed_first, resolve
from etl.config.read import load_config
from etl.errors import ConfigError
from jobs import settings
from jobs.run import schedules
from jobs.store import keys
from tests.helpers import any_toml
from tests.helpers.examples import examples
from tests.helpers.project import CLAIMS, Project, etl_toml, toml

SCHEDULE = 'schedule = { claims = "0 2 * * *" }\n'
PIPELINES: dict[str, dict[str, Any]] = {
    "claims": {
        "extract": {"path": "inbox/{client}/claims-*.csv"},
        "transform": ["steps:same"],
        "lookups": {"codes": {"type": "csv", "path": "codes/{client}.csv", "settle": 0}},
        "columns": {"claim_id": "string", "amount": "decimal"},
    },
    "named": {"extract": {"path": "inbox/all/{client}-*.csv"}, "columns": {"claim_id": "string"}},
    "asked": {"extract": {"type": "sql", "url": "sqlite:///source.db", "table": "claims"}},
    "parted": {"extract": {"path": "inbox/{folder}/x-*.csv"}, "columns": {"claim_id": "string"}},
    "queried": {
        "extract": {"type": "sql", "url": "sqlite:///source.db", "query": "select * from claims where region = :region"}
    },
}
BAD: dict[str, str] = {
    "no TOML": "max_active = = 1",
    "no UTF-8": "\udcff",
    "a wrong value": 'weight = "heavy"',
    "an unknown key": "wieght = 1",
    "an unknown pipeline": 'pipelines = ["clams"]',
    "a wrong override": '[override.claims]\nextract = { encoding = "klingon" }',
    "a wrong schedule": 'schedule = { claims = "often" }',
    "a number of 5,000 digits": f"params = {{ x = {'9' * 5000} }}",
    "a function that is not there": '[override.claims]\ntransform = ["steps:gone"]',
}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    shop = Project(tmp_path, etl_toml(PIPELINES, []), {"steps.py": "def same(df, codes):\n    return df\n"})
    monkeypatch.chdir(tmp_path)
    for client in ("acme", "globex"):
        shop.write(f"clients/{client}.toml", SCHEDULE + 'pipelines = ["claims"]\n')
        shop.write(f"inbox/{client}/claims-1.csv", CLAIMS)
        shop.write(f"codes/{client}.csv", "code\n1\n")
    return shop


def spoil(shop: Project, text: str) -> None:
    shop.write("clients/acme.toml", text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_in_a_clients_file_stops_that_client_alone(shop: Project, mistake: str) -> None:
    spoil(shop, BAD[mistake])
    said = shop("run claims --all-clients --inline")
    assert said.code == 2
    assert "clients/acme.toml" in said.err
    assert shop.rows("select distinct _client from claims") == [("globex",)]
    assert shop("run claims --client globex --inline").code == 0
    refused = shop("run claims --client acme --inline")
    assert (refused.code, "clients/acme.toml" in refused.err) == (2, True)
    checked = shop("validate")
    assert (checked.code, "clients/acme.toml" in checked.err) == (2, True)
    assert "clients/acme.toml" in shop("doctor").out
    assert shop("status").code == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"weight = {'9' * 5000}", "has a number with more digits than can be read"),
        (f"weight = {10**30}", "weight: must be at most 1,000,000,000"),
        ('[override.claims]\ntimeout = "99999999d"', "override.claims.timeout: must be at most a hundred years"),
        (f'[override.claims]\ntimeout = "{"9" * 400}s"', "override.claims.timeout: must be at most a hundred years"),
        ("[override.claims]\ntimeout = 1e300", "override.claims.timeout: must be at most a hundred years"),
    ],
)
def test_a_number_that_no_counter_or_clock_holds_is_a_mistake(shop: Project, text: str, said: str) -> None:
    spoil(shop, text)
    (told,) = load_config(shop.path).broken["acme"]
    assert told.endswith(f"clients/acme.toml: {said}")


def test_where_no_client_is_left_all_clients_is_refused(shop: Project) -> None:
    for client in ("acme", "globex"):
        shop.write(f"clients/{client}.toml", "= 1")
    said = shop("run claims --all-clients --inline")
    assert said.code == 2
    assert "clients/acme.toml" in said.err
    assert "clients/globex.toml" in said.err


@pytest.mark.parametrize("what", ["a file", "a link to nothing"])
def test_a_folder_of_clients_that_can_not_be_read_stops_all(shop: Project, what: str) -> None:
    folder = shop.root / "clients"
    folder.rename(shop.root / "before")
    folder.write_text("") if what == "a file" else folder.symlink_to("gone")
    with pytest.raises(ConfigError, match=r"clients: can't be read: N"):
        load_config(shop.path)


def test_a_mistake_in_etl_toml_stops_all(shop: Project) -> None:
    shop.path.write_text(shop.path.read_text() + "\nx = 1\n")
    spoil(shop, "= 1")
    said = shop("run claims --client globex --inline")
    assert said.code == 2
    assert "unknown key" in said.err


def test_schedules_of_a_client_with_mistakes_stay(shop: Project, fake_redis: Redis) -> None:
    schedules.sync(settings.config(), fake_redis)
    entries = fake_redis.zrange(keys.ENTRIES, 0, -1)
    seen = schedules.seen(fake_redis, "acme", "claims")
    spoil(shop, "= 1")
    config = load_config(shop.path)
    actions = {line["client"]: line["action"] for line in schedules.sync(config, fake_redis)}
    assert actions == {"acme": "kept", "globex": "kept"}
    with pytest.raises(ConfigError, match=r"acme\.toml"):
        schedules.start_due(config, fake_redis, "acme", "claims", datetime.now(UTC))
    assert fake_redis.zrange(keys.ENTRIES, 0, -1) == entries
    assert schedules.seen(fake_redis, "acme", "claims") == seen
    (shop.root / "clients" / "acme.toml").unlink()
    actions = {line["client"]: line["action"] for line in schedules.sync(load_config(shop.path), fake_redis)}
    assert actions == {"acme": "removed", "globex": "kept"}


# --- trust_clients = false ---


def override(pipeline: str = "claims", **keys: Any) -> str:
    return f"[override.{pipeline}]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in keys.items())


FOREIGN: dict[str, str] = {
    "another client's files": override(extract={"path": "inbox/globex/claims-*.csv"}),
    "a folder above": override(extract={"path": "inbox/{client}/../globex/claims-*.csv"}),
    "any file": override(extract={"path": "/etc/passwd"}),
    "a home": override(extract={"path": "~/x.csv"}),
    "a sibling of the same beginning": override(extract={"path": "inbox/acme2/claims-*.csv"}),
    "all": override(extract={"path": "inbox/*/claims-*.csv"}),
    "other names": override("named", extract={"path": "inbox/all/globex-1.csv"}),
    "more names": override("named", extract={"path": "inbox/all/acme*.csv"}),
    "another database": override("asked", extract={"url": "sqlite:///other.db"}),
    "another table": override("asked", extract={"table": "secrets"}),
    "a query": override("asked", extract={"type": "sql", "url": "sqlite:///s.db", "query": "select 1"}),
    "a function as source": override(extract={"type": "function", "function": "steps:same"}),
    "its arguments": override(extract={"type": "function", "function": "steps:same", "args": {"a": 1}}),
    "functions": override(transform=["steps:same"]),
    "a load function": override(load={"function": "steps:same"}),
    "a target": override(load={"target": "warehouse"}),
    "a table of others": override(load={"table": "codes"}),
    "a lookup elsewhere": override(lookups={"codes": {"path": "codes/globex.csv"}}),
    "a new lookup": override(lookups={"more": {"type": "csv", "path": "codes/acme.csv"}}),
    "another's folder by a parameter": 'params = { folder = "globex" }',
    "another's rows by a parameter": "params = { region = 'north' }",
    "a parameter of its own path": "params = { part = '../globex' }\n"
    + override(extract={"path": "inbox/{client}/{part}.csv"}),
    "more jobs at once": "max_active = 5",
    "more turns": "weight = 2",
    "a longer hold of a worker": override(timeout="9999d"),
    "more tries": override(retries=100),
    "tries far apart": override(retry_delays=["9d"]),
    "a wait for files": override(extract={"settle": "9999d"}),
    "more calls": override(extract={"rate": "1000/s"}),
    "more partitions": override(extract={"rows": 1}),
    "the environment": 'params = { unit = "${HOME}" }',
    "the environment in a list": override(extract={"header": ["${HOME}"]}),
    "parameters of one pipeline": "pipelines = 'parted'\nparams = { folder = 'globex' }",
    "a URL": 'params = { place = "https://x.example" }',
}
OWN: dict[str, str] = {
    "limits": "max_active = 2\nweight = 1\ntimezone = 'Europe/Berlin'\nparams = { unit = 'north' }",
    "parameters of pipelines of others": "pipelines = ['claims']\nparams = { region = 'north' }",
    "how files are written": override(extract={"delimiter": ";", "encoding": "cp1252"}),
    "columns": override(columns={"amount": {"decimal": ",", "from": ["Betrag"]}}),
    "files of its own": override(extract={"path": "inbox/{client}/new/claims-*.csv"}),
    "its own by name": override(extract={"path": "inbox/acme/odd-*.csv"}),
    "its own names": override("named", extract={"path": "inbox/all/{client}-odd-*.csv"}),
    "its own lookup": override(lookups={"codes": {"path": "codes/acme.csv"}}),
    "how rows meet others": override(load={"mode": "replace"}),
    "renames": "[rename.claims]\nBetrag = 'amount'",
}


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("what", [*FOREIGN, *OWN])
def test_a_client_that_is_not_trusted_says_nothing_of_others(shop: Project, what: str, trusted: bool) -> None:
    shop.change(('staging = "staging"', f'staging = "staging"\ntrust_clients = {toml(trusted)}'))
    spoil(shop, (FOREIGN | OWN)[what])
    config = load_config(shop.path)
    refused = [line for line in config.broken.get("acme", ()) if "trust_clients" in line]
    assert bool(refused) == (what in FOREIGN and not trusted), config.broken
    assert all(line.startswith("clients/acme.toml: ") or "clients/acme.toml: " in line for line in refused)
    assert "globex" in config.clients
    if what in OWN:
        assert resolve(config, "claims", "acme")


@pytest.mark.parametrize("text", ["", "max_active = = 1", "wieght = 1", 'params = { x = "${HOME}" }'])
def test_a_file_of_the_name_of_a_client_in_etl_toml_stops_no_one(shop: Project, text: str) -> None:
    shop.config(etl_toml(PIPELINES, {"acme": {"pipelines": ["claims"]}}, trust_clients=False))
    spoil(shop, text)
    said = shop("run claims --all-clients --inline")
    assert (said.code, "clients/acme.toml" in said.err) == (2, True)
    assert shop.rows("select distinct _client from claims order by 1") == [("acme",), ("globex",)]
    assert shop("run claims --client acme --inline").code == 0
    for command in ("validate", "doctor"):
        said = shop(command)
        assert (said.code, "clients/acme.toml" in said.out + said.err) == (2, True)


@pytest.mark.parametrize("text", ["pipelines = [[1]]", "pipelines = [{}]", "[override.claims]\nlookups = [1]"])
def test_a_value_of_a_wrong_type_stops_that_client_alone_whoever_is_trusted(shop: Project, text: str) -> None:
    shop.config(etl_toml(PIPELINES, [], trust_clients=False))
    spoil(shop, text)
    config = load_config(shop.path)
    assert ([*config.clients], [*config.broken]) == (["globex"], ["acme"])


@hypothesis.settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_value_in_a_clients_file_stops_that_client_alone(shop: Project, data: st.DataObject) -> None:
    shop.config(etl_toml(PIPELINES, [], trust_clients=data.draw(st.booleans())))
    document = tomllib.loads(data.draw(st.sampled_from([*FOREIGN.values(), *OWN.values()])))
    place, value = data.draw(st.sampled_from(any_toml.places(document)[1:])), data.draw(any_toml.VALUES)
    node: Any = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    spoil(shop, "".join(f"{key} = {any_toml.toml(value)}\n" for key, value in document.items()))
    assert "globex" in load_config(shop.path).clients


@pytest.mark.parametrize("where", ["extract", "lookups"])
@pytest.mark.parametrize(
    "path", ["{folder}/sub/*.csv", "{folder}/sub/**", "{folder}/sub/claims-1.csv", "{folder}/claims-1.csv"]
)
def test_a_link_leads_a_client_that_is_not_trusted_to_no_files_of_others(shop: Project, where: str, path: str) -> None:
    shop.change(('staging = "staging"', 'staging = "staging"\ntrust_clients = false'))
    (shop.root / "inbox/acme/claims-1.csv").unlink()
    folder = "inbox/acme" if where == "extract" else "codes/acme"
    path = path.replace("{folder}", folder)
    link = shop.root / path if "/sub/" not in path else shop.root / folder / "sub"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(shop.root / "inbox/globex" / ("" if link.name == "sub" else "claims-1.csv"))
    spoil(shop, override(extract={"path": path}) if where == "extract" else override(lookups={"codes": {"path": path}}))
    shop.write("inbox/acme/claims-2.csv", CLAIMS)
    said = shop("run claims --client acme --inline")
    assert (said.code, "a link that leads out of" in said.out) == (1, True), said.out


def test_needs_of_a_client_are_checked_as_a_pipelines_are(shop: Project) -> None:
    for needs, what in (
        (["claims"], "leads back to itself; take one of the needs away"),
        (["clams"], "there is no pipeline clams; did you mean claims?"),
    ):
        spoil(shop, override(needs=needs))
        (told,) = load_config(shop.path).broken["acme"]
        assert told.endswith(f"clients/acme.toml: override.claims.needs: {what}")
    spoil(shop, override(needs=["named"]))
    assert needed_first(load_config(shop.path), "acme", ("claims", "named")) == ("named", "claims")


def test_clients_in_etl_toml_are_the_operators_own(shop: Project) -> None:
    (shop.root / "clients" / "acme.toml").unlink()
    clients = {"acme": {"override": {"claims": {"extract": {"path": "/data/acme.csv"}, "transform": ["steps:same"]}}}}
    shop.config(etl_toml(PIPELINES, clients, trust_clients=False))
    assert load_config(shop.path).broken == {}

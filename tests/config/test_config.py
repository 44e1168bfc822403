# ruff: noqa: E501 - in the table of mistakes a row is a line
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.config.pipeline import resolve
from etl.config.read import load_config
from etl.errors import ConfigError
from tests.helpers.any_toml import VALUES, places, toml
from tests.helpers.examples import examples
from tests.helpers.project import Folder

DESIGNED = """
[settings]
staging = "staging"                    # folder or s3://bucket/prefix
modules = ["demo_steps"]               # whose functions may be called; importable from etl.toml's folder

[targets.warehouse]
url = "sqlite:///warehouse.db"

[defaults]                             # any client key; a client's own value wins
timezone = "America/Chicago"
pipelines = ["claims"]

[pipelines.claims]
extract = { type = "csv", path = "inbox/{client}/claims-*.csv" }   # {client}, params, {date} {start} {end}
transform = ["demo_steps:clean", { function = "demo_steps:scale", args = { factor = 2 } }]   # may be []
load = { target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"], newest = "updated_at" }
retries = 3                            # with retry_delays = [5, 30, 120]
timeout = "10m"                        # of one stage
max_rejects = "5%"                     # or a number, over the run; makes the load atomic: above it nothing loads
new_columns = "add"                    # add | ignore | fail: what a column unknown to the target does

[pipelines.claims.columns]
claim_id     = { type = "string", required = true, unique = true, from = ["ClaimNo", "Claim No."] }
service_date = { type = "date", format = ["%Y-%m-%d", "%m/%d/%Y"] }     # default ISO only, never guessed
amount       = { type = "decimal", min = 0 }
status       = { type = "string", allowed = ["CLOSED", "OPEN"] }
margin       = { type = "number", computed = true }                      # made by a function

[clients.acme]                         # or clients/acme.toml, holding the same keys bare
max_active = 4
params = { region = "north" }          # {region} in paths, :region in SQL, params in functions
schedule = { claims = "0 2 * * *" }    # or { cron = "…", catchup = "none" | "last" | "all" }

[clients.acme.override.claims]         # deep-merged over the pipeline; all but load.table and load.key
extract = { delimiter = ";", encoding = "cp1252" }
columns = { amount = { decimal = "," } }
[clients.acme.rename.claims]
Betrag = "amount"
"""

SMALL = """
targets.db.url = "sqlite:///w.db"
[pipelines.claims]
extract = { type = "csv", path = "in/*.csv" }
load = { target = "db", table = "claims" }
[clients.acme]
pipelines = ["claims"]
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write etl.toml and clients/*.toml, and go there, so that mistakes name them by short paths."""
    monkeypatch.chdir(tmp_path)

    def project(text: str, **clients: str | bytes) -> Path:
        Folder(tmp_path, text, {f"clients/{name}.toml": client for name, client in clients.items()})
        (tmp_path / "clients").mkdir(exist_ok=True)
        return tmp_path

    return project


def mistakes(path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert caught.value.exit_code == 2
    assert str(caught.value).splitlines() == list(caught.value.mistakes)
    return list(caught.value.mistakes)


def test_the_designed_configuration_loads(write: Write) -> None:
    root = write(DESIGNED)
    config = load_config()
    assert (config.root, config.path, config.staging) == (root, root / "etl.toml", str(root / "staging"))
    assert config.settings.history == 90 * 86400
    assert config.clients["acme"].timezone == "America/Chicago"
    assert config.clients["acme"].schedule["claims"].catchup == "last"


def test_a_configuration_elsewhere_has_its_own_root(write: Write, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = write(DESIGNED.replace('"staging"', '"../staging"'))
    assert load_config(root / "etl.toml").root == root
    (root / "inner").mkdir()
    config = load_config(Path("inner/../etl.toml"))
    assert (config.root, config.path, config.staging) == (root, root / "etl.toml", str(root.parent / "staging"))
    missing = tmp_path_factory.mktemp("empty") / "etl.toml"
    with pytest.raises(
        ConfigError, match=r"there is no .*etl\.toml\n  make one with rq-etl init, or name it with --config"
    ):
        load_config(missing)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\nb = = 2\n", "line 2, column 5: invalid value"),
        ("[settings]\nx = [1,\n", "line 3, column 1: invalid initial character for a key part"),
        ("a = 1\na = 2\n", "line 2, column 6: cannot overwrite a value"),
        ('a = "ü\n', "line 1, column 7: illegal character '\\n'"),
    ],
)
def test_broken_toml_is_reported_with_file_line_and_column(write: Write, text: str, said: str) -> None:
    write(text)
    (told,) = mistakes()
    assert told.startswith("etl.toml: line ")
    assert told.split(": ")[1].split(", ")[0] == said.split(": ")[0].split(", ")[0]
    assert "column " in told


def test_every_broken_file_is_reported_at_once(write: Write) -> None:
    write("x = \n", globex="max_active = = 2\n", initech=b'a = 1\nb = "\xff"\n', okay='timezone = "UTC"\n')
    told = mistakes()
    assert len(told) == 3
    assert told[0].startswith("etl.toml: line 1, column 5: ")
    assert told[1] == "clients/globex.toml: line 1, column 14: invalid value"
    assert told[2] == "clients/initech.toml: line 2: is not UTF-8; save the file as UTF-8"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(write: Write) -> None:
    write(SMALL, globex=b'\xef\xbb\xbfpipelines = ["claims"]\r\nmax_active = 2\r\n')
    assert load_config().clients["globex"].max_active == 2


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # keys
        ("[pipelines.claims.columns]", "[pipelines.claims.colums]", "unknown key pipelines.claims.colums; did you mean columns?"),
        ("[targets.", "[target.", "unknown key target; did you mean targets?"),
        ("delimiter =", "delimter =", "unknown key clients.acme.override.claims.extract.delimter; did you mean delimiter?"),
        ("max_active", "max_actve", "unknown key clients.acme.max_actve; did you mean max_active?"),
        ("from =", "fromm =", "unknown key pipelines.claims.columns.claim_id.fromm; did you mean from?"),
        ("args =", "arg =", "unknown key pipelines.claims.transform[1].arg; did you mean args?"),
        ("newest =", "newst =", "unknown key pipelines.claims.load.newst; did you mean newest?"),
        ("staging =", "stagin =", "unknown key settings.stagin; did you mean staging?"),
        ("url =", "uri =", "unknown key targets.warehouse.uri; did you mean url?"),
        ("[defaults]", "[defaults]\nname = 'x'", "unknown key defaults.name; the name stands in the table's header"),
        # words and types
        ('"merge"', '"merg"', "pipelines.claims.load.mode: must be append or merge or replace; did you mean merge?"),
        ('"csv"', '"cvs"', "pipelines.claims.extract.type: must be csv or ndjson or function or sql; did you mean csv?"),
        ('type = "csv", ', "", 'pipelines.claims.extract: has no type; add type = "csv", type = "ndjson", type = "function" or type = "sql"'),
        ('"decimal", min', '"decimel", min', "pipelines.claims.columns.amount.type: must be string or integer or"),
        ("retries = 3", 'retries = "3"', "pipelines.claims.retries: must be a whole number"),
        ("retries = 3", "retries = -1", "pipelines.claims.retries: must be at least 0"),
        ("required = true", 'required = "yes"', "pipelines.claims.columns.claim_id.required: must be true or false"),
        ('"10m"', '"10 minutes"', "pipelines.claims.timeout: must be a span of time such as"),
        ('"10m"', "0", "pipelines.claims.timeout: must be above 0"),
        ("retries = 3", "retry_delays = []", "pipelines.claims.retry_delays: must have at least one value"),
        ("retries = 3", "retry_delays = [5, 'x']", "pipelines.claims.retry_delays[1]: must be a span of time"),
        ('"5%"', '"5"', "pipelines.claims.max_rejects: must be a number of rows, or a share of the rows read"),
        ('"5%"', '"101%"', "pipelines.claims.max_rejects: must be a number of rows, or a share of the rows read"),
        ("max_active = 4", "max_active = 0", "clients.acme.max_active: must be at least 1"),
        ('url = "sqlite:///warehouse.db"', "", "targets.warehouse.url: is missing"),
        ("[settings]", "settings = 5\n[settingz]", "settings: must be a table; write [settings]"),
        ("[targets.warehouse]\nurl =", "[targets]\nwarehouse =", "targets.warehouse: must be a table"),
        # names and references
        ("[clients.acme]", "[clients.Acme-1]", "clients.Acme-1: a name has small letters, digits and _ only; rename it"),
        ('target = "warehouse"', 'target = "warehous"', "pipelines.claims.load.target: there is no target warehous; did you mean warehouse?"),
        ('key = ["claim_id"]', 'key = ["claimid"]', "pipelines.claims.load.key: there is no column claimid; did you mean claim_id?"),
        ('key = ["claim_id"]', 'key = ["claim_id", "claim_id"]', "pipelines.claims.load.key: names a column twice"),
        (', key = ["claim_id"]', "", 'pipelines.claims.load.key: mode "merge" needs a key; add key = ["column"]'),
        ('newest = "updated_at"', 'by = ["status"]', 'pipelines.claims.load.by: goes with mode = "replace" only'),
        ('"demo_steps:clean"', '"demo_step:clean"', "pipelines.claims.transform[0]: module demo_step is not in settings.modules; did you mean demo_steps?"),
        ('"demo_steps:clean"', '"clean"', 'pipelines.claims.transform[0].function: must be "module:function"'),
        ('modules = ["demo_steps"]', 'modules = ["demo_steps", "etl.load"]', "settings.modules: etl.load has the name of a part of rq-etl"),
        ('pipelines = ["claims"]', 'pipelines = ["clams"]', "defaults.pipelines: there is no pipeline clams; did you mean claims?"),
        ('pipelines = ["claims"]', 'pipelines = ["claims", "claims"]', "defaults.pipelines: names claims twice"),
        # extract and targets
        ("{client}/", "{client/", "pipelines.claims.extract.path: has a { or } that is not part of a {name}"),
        ('"inbox/{client}/claims-*.csv"', '""', "pipelines.claims.extract.path: is empty"),
        ('"cp1252"', '"cp12522"', "clients.acme.override.claims.extract.encoding: is no text encoding Python knows"),
        ('delimiter = ";"', 'delimiter = ";;"', 'clients.acme.override.claims.extract.delimiter: must be one character, or "auto"'),
        ('delimiter = ";"', 'quote = ","', "clients.acme.override.claims.extract.quote: must be one character that is not the delimiter"),
        ('delimiter = ";"', 'header = ["a", "a"]', "clients.acme.override.claims.extract.header: names a column twice"),
        ('delimiter = ";"', "skip = -1", "clients.acme.override.claims.extract.skip: must be at least 0"),
        ('"staging"', '"gs://bucket"', "settings.staging: must be a folder or s3://bucket/prefix"),
        ("sqlite:///warehouse.db", "parquet:out", "targets.warehouse.url: must be sqlite:///file.db, sqlite:////absolute/file.db, postgresql://…"),
        ("sqlite:///warehouse.db", "sqlite:///:memory:", "targets.warehouse.url: must be sqlite:///file.db"),
        ("sqlite:///warehouse.db", "sqlite:///{region}.db", "targets.warehouse.url: may hold {client}, ${NAME} and no other {name}"),
        ('table = "claims"', 'table = "{region}"', "pipelines.claims.load.table: may hold {client} and no other {name}"),
        ('table = "claims"', 'table = "_etl_loads"', "pipelines.claims.load.table: must not begin with _etl_"),
        ('table = "claims"', 'table = "sqlite_x"', "pipelines.claims.load.table: must not begin with _etl_ or sqlite_"),
        ('table = "claims", ', "", "pipelines.claims.load.table: is missing; name the table"),
        # columns
        ('"%m/%d/%Y"', '"%m/%d"', 'pipelines.claims.columns.service_date.format: "%m/%d" does not read a whole date'),
        ('"%m/%d/%Y"', '"%Q"', 'pipelines.claims.columns.service_date.format: "%Q" does not read a whole date'),
        ("min = 0 }", "min = 0, format = '%Y' }", "pipelines.claims.columns.amount.format: is for date and timestamp columns"),
        ("min = 0 }", "min = 1, max = 0.5 }", "pipelines.claims.columns.amount.min: is above max"),
        ("min = 0 }", "min = 'x' }", "pipelines.claims.columns.amount.min: must be a number in a decimal column"),
        ("min = 0 }", "min = true }", "pipelines.claims.columns.amount.min: must be a number, text or a date"),
        ("min = 0 }", "min = nan }", "pipelines.claims.columns.amount.min: must be a finite number"),
        ("min = 0 }", "pattern = 'x' }", "pipelines.claims.columns.amount.pattern: is for string columns"),
        ("unique = true", "pattern = '('", "pipelines.claims.columns.claim_id.pattern: is no regular expression: missing )"),
        ("unique = true", "min = 3", "pipelines.claims.columns.claim_id.min: is not for string columns"),
        ("unique = true", "decimal = ','", "pipelines.claims.columns.claim_id.decimal: is for number and decimal columns"),
        ('["CLOSED", "OPEN"]', "[1]", "pipelines.claims.columns.status.allowed: must be text in a string column"),
        ('["CLOSED", "OPEN"]', "[]", "pipelines.claims.columns.status.allowed: must be a list of values"),
        ("computed = true", "computed = true, from = 'M'", "pipelines.claims.columns.margin.from: a computed column comes from a function"),
        ('"Claim No."', '" AMOUNT"', 'header "amount" goes to claim_id too; let it go to one column'),
        ("margin   ", "_run", "pipelines.claims.columns._run: is a name that rq-etl keeps for itself"),
        ('"CLOSED", "OPEN"] }', '"x"] }\nStatus = {}', 'pipelines.claims.columns.Status: header "Status" goes to status too'),
        ('transform = ["demo_steps:clean", { function = "demo_steps:scale", args = { factor = 2 } }]', "transform = []",
         "pipelines.claims.columns.margin.computed: no function of transform makes it"),
        # clients
        ("America/Chicago", "America/Chicgo", "defaults.timezone: is no time zone; did you mean America/Chicago?"),
        ("America/Chicago", "../etc/passwd", "defaults.timezone: is no time zone"),
        ("region =", "client =", "clients.acme.params.client: is a name of rq-etl's own"),
        ("region =", '"a b" =', 'clients.acme.params."a b": is no name; use letters, digits and _'),
        ('"north"', "inf", "clients.acme.params: must be a finite number"),
        ('"0 2 * * *"', '"0 25 * * *"', "clients.acme.schedule.claims.cron: is no cron line"),
        ('"0 2 * * *"', '"0 2 * * * *"', "clients.acme.schedule.claims.cron: is no cron line"),
        ('"0 2 * * *"', '"0 2 30 2 *"', "clients.acme.schedule.claims.cron: is no cron line"),
        ('"0 2 * * *"', '{ cron = "0 2 * * *", catchup = "al" }', "clients.acme.schedule.claims.catchup: must be none or last or all; did you mean all?"),
        ("schedule = { claims", "schedule = { clams", "clients.acme.schedule.clams: there is no pipeline clams; did you mean claims?"),
        ("override.claims]", "override.clams]", "clients.acme.override.clams: there is no pipeline clams; did you mean claims?"),
        ("rename.claims]", "rename.clams]", "clients.acme.rename.clams: there is no pipeline clams; did you mean claims?"),
        ('columns = { amount = { decimal = "," } }', 'load = { table = "x" }', "clients.acme.override.claims.load.table: can't be overridden"),
        ('columns = { amount = { decimal = "," } }', 'load = { key = ["status"] }', "clients.acme.override.claims.load.key: can't be overridden"),
        ('"," }', '";" }', "clients.acme.override.claims.columns.amount.decimal: must be . or ,"),
        ('Betrag = "amount"', 'Betrag = "margin"', "clients.acme.rename.claims.Betrag: column margin is made by a function"),
        ('Betrag = "amount"', 'Betrag = "_row"', "clients.acme.rename.claims.Betrag: must be a column's name"),
        ('Betrag = "amount"', 'Betrag = "amount"\n"betrag " = "status"', 'clients.acme.rename.claims."betrag ": is the same header'),
        ("max_active = 4", 'max_active = 4\npipelines = []', "clients.acme.override.claims: the client does not have pipeline claims"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_key_and_cure(write: Write, old: str, new: str, said: str) -> None:
    assert old in DESIGNED
    write(DESIGNED.replace(old, new, 1))
    told = mistakes()
    assert any(line.startswith("etl.toml: ") and said in line for line in told), told
    assert not any(".csv." in line for line in told), told  # the kind of a source is no key


def test_all_mistakes_are_reported_at_once_and_each_once(write: Write) -> None:
    text = DESIGNED
    for old, new in (
        ("[settings]", "[setings]\n[settings]"),
        ("America/Chicago", "Mars"),
        ("delimiter =", "delimter ="),
        ('type = "csv"', 'type = "csv", encodin = "x", quote = "ab"'),
        ('mode = "merge", key = ["claim_id"]', 'mode = "merge"'),
        ('type = "decimal", min = 0', 'type = "decimal", min = "x", requird = true'),
        ("max_active = 4", "max_active = 0"),
    ):
        text = text.replace(old, new, 1)
    write(text, globex="weight = 0\noverride.claims.timeout = 'x'\n", Bad="")
    assert mistakes() == [
        "clients/Bad.toml: a client's name has small letters, digits and _ only; rename the file",
        "etl.toml: unknown key setings; did you mean settings?",
        "etl.toml: unknown key pipelines.claims.extract.encodin; did you mean encoding?",
        'etl.toml: pipelines.claims.load.key: mode "merge" needs a key; add key = ["column"]',
        "etl.toml: unknown key pipelines.claims.columns.amount.requird; did you mean required?",
        'etl.toml: pipelines.claims.extract.quote: must be one character that is not the delimiter, or "" for none',
        "etl.toml: pipelines.claims.columns.amount.min: must be a number in a decimal column",
        "etl.toml: defaults.timezone: is no time zone; use a name such as America/Chicago",
        "etl.toml: clients.acme.max_active: must be at least 1",
        "etl.toml: unknown key clients.acme.override.claims.extract.delimter; did you mean delimiter?",
        "clients/globex.toml: weight: must be at least 1",
        'clients/globex.toml: override.claims.timeout: must be a span of time such as "500ms", "2s", "10m", "26h" or'
        ' "1d", or a number of seconds',
    ]


def test_a_mistake_inside_of_a_source_is_reported_once(write: Write) -> None:
    write(DESIGNED.replace('type = "csv", path', 'type = "csv", delimiter = ";;", path'))
    assert mistakes() == ['etl.toml: pipelines.claims.extract.delimiter: must be one character, or "auto"']


def test_a_mistake_in_defaults_is_reported_once_however_many_clients(write: Write) -> None:
    clients = {f"c{number}": "" for number in range(20)}
    write(SMALL + "[defaults]\npipelines = ['claims']\noverride.claims.retries = -1\ntimezone = 'Mars'\n", **clients)
    told = mistakes()
    assert [line.split(": ")[1] for line in told] == ["defaults.timezone", "defaults.override.claims.retries"]


def test_a_client_may_stand_in_one_place_only(write: Write) -> None:
    write(SMALL, acme="pipelines = ['claims']")
    config = load_config()
    assert config.broken == {"acme": ("clients/acme.toml: client acme is in etl.toml too; keep one of the two",)}
    assert "acme" not in config.clients


def test_a_password_in_a_url_is_never_quoted(write: Write) -> None:
    write(SMALL.replace("sqlite:///w.db", "mysql://me:s3cret@host/db{x}"))
    assert len(told := mistakes()) == 2
    assert "s3cret" not in "".join(told)


@pytest.mark.parametrize("url", ["sqlite:///a/{client}.db", "sqlite:////a.db", "postgresql://u@h/d", "postgres://h/d",
                                 "${DB}", "postgresql://u:${PASSWORD}@h/d"])  # fmt: skip
def test_a_url_is_kept_as_it_is_written(write: Write, url: str) -> None:
    write(SMALL.replace("sqlite:///w.db", url))
    assert load_config().targets["db"].url == url


@pytest.mark.parametrize("hiding", ["jobs/__init__.py", "etl.py"])
def test_a_module_of_the_users_that_hides_ours_is_reported(write: Write, hiding: str) -> None:
    root = write(SMALL)
    (root / "jobs").mkdir()  # a plain folder hides nothing
    load_config()
    (root / hiding).touch()
    assert mistakes() == [f"etl.toml: {hiding} hides a part of rq-etl; rename it or move it elsewhere"]


def test_by_may_name_the_file_and_newest_need_not_be_declared(write: Write) -> None:
    write(
        SMALL.replace('table = "claims"', 'table = "claims", mode = "replace", by = ["_file"], newest = "x"')
        + "[pipelines.claims.columns]\na = {}\n"
    )
    assert load_config().pipelines["claims"].load.by == ("_file",)


@settings(
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_value_anywhere_is_read_or_reported(write: Write, data: st.DataObject) -> None:
    document = tomllib.loads(DESIGNED)
    document["defaults"]["override"] = {"claims": {"retries": 2}}
    document["defaults"]["rename"] = {"claims": {"a": "amount"}}
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)[1:]))
        node: Any = document
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = data.draw(VALUES)
    write("\n".join(f"{key} = {toml(value)}" for key, value in document.items()))
    try:
        lines: tuple[str, ...] = ()
        load_config()
    except ConfigError as error:
        lines = error.mistakes
    assert all(line.startswith("etl.toml: ") and "\n" not in line for line in lines)


def test_resolve_can_be_had_beside_load_config(write: Write) -> None:
    write(SMALL)
    assert resolve(load_config(), "claims", "acme").table == "claims"


def test_a_clients_file_that_no_one_can_read_is_a_mistake_of_that_client(tmp_path: Path) -> None:
    """A FIFO would be waited for, and lists deep inside each other end the parser."""
    folder = Folder(tmp_path, DESIGNED, {"clients/big.toml": "params = { a = " + "[" * 2000})
    os.mkfifo(tmp_path / "clients" / "fifo.toml")
    broken = folder.loaded().broken
    assert {name: [text.partition(": ")[2] for text in found] for name, found in broken.items()} == {
        "big": ["has lists or tables inside each other, deeper than can be read"],
        "fifo": ["is no plain file"],
    }

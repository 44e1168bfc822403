# ruff: noqa: E501 - in the table of mistakes a row is a line
"""The tables `delivery`, `expect` and `alerts` of etl.toml: what they may say, and each mistake with its cure."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, time
from pathlib import Path
from typing import Any

import pytest

from etl.config.pipeline import resolve
from etl.config.read import load_config
from etl.errors import ConfigError
from jobs.views.doctor import exposure
from tests.helpers.project import Folder

TOML = """
[alerts]
to = ["${ALERT_URL}"]
on = ["failed", "missing"]
heartbeat = "https://ping.example.com/x"
[targets]
db.url = "sqlite:///w.db"
[defaults]
timezone = "America/Chicago"
[pipelines.claims]
extract = { type = "csv", path = "in/{client}/*.csv" }
load = { target = "db", table = "claims" }
columns = { service_date = { type = "date" }, amount = { type = "decimal" } }
expect = { change = "50%", period = "service_date" }
[pipelines.claims.delivery]
due = 06:30:00
days = "business"
calendar = "US-TX"
closed = [2026-12-24]
grace = "45m"
[pipelines.calls]
extract = { type = "sql", url = "sqlite:///s.db", table = "calls" }
load = { target = "db", table = "calls" }
[clients.acme]
pipelines = ["claims"]
[clients.north]
"""

Read = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.chdir(tmp_path)

    def written(*changes: tuple[str, str], **clients: str) -> None:
        text = TOML
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        Folder(tmp_path, text, {f"clients/{name}.toml": client for name, client in clients.items()})

    return written


def mistakes() -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config()
    return list(caught.value.mistakes)


def test_the_tables_are_read_with_times_and_dates_of_toml(write: Any) -> None:
    write()
    pipeline = resolve(load_config(), "claims", "acme")
    assert pipeline.delivery is not None
    table = pipeline.delivery.timetable(pipeline.timezone)
    assert (table.clock, table.zone, table.grace) == (time(6, 30), "America/Chicago", 2700.0)
    assert (table.days.days, table.days.calendar, table.days.closed) == ("business", "US-TX", (date(2026, 12, 24),))
    again = type(pipeline).model_validate_json(pipeline.model_dump_json(by_alias=True))
    assert again.delivery == pipeline.delivery


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ('" Last  BUSINESS "', "last business"),
        ('["2026-12-05", 2026-11-05, "2026-12-05"]', (date(2026, 11, 5), date(2026, 12, 5))),
        ("2026-12-05", (date(2026, 12, 5),)),
        ('"2026-12-05"', (date(2026, 12, 5),)),
    ],
)
def test_days_are_words_or_dates_however_they_are_written(write: Any, days: str, expected: Any) -> None:
    write(('"business"', days), ("due = 06:30:00", 'due = "6:05"'))
    delivery = load_config().pipelines["claims"].delivery
    assert delivery is not None
    assert delivery.timetable("UTC").days.days == expected
    assert delivery.timetable("UTC").clock == time(6, 5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        # delivery: each key
        ("due = 06:30:00", 'due = "25:00"', "pipelines.claims.delivery.due: must be a time of day in the client's time zone, such as"),
        ("due = 06:30:00", "due = 630", "pipelines.claims.delivery.due: must be a time of day"),
        ("due = 06:30:00", 'deadline = "06:30"', "unknown key pipelines.claims.delivery.deadline; did you mean due?"),
        ("due = 06:30:00\n", "", "pipelines.claims.delivery.due: is missing"),
        ('"business"', '"weekdays"', "pipelines.claims.delivery.days: must be \"daily\", \"business\", weekdays such as \"mon-fri\", \"1st\", \"last business\" or a list of dates; did you mean mon-fri?"),
        ('"business"', '"working days"', "did you mean business?"),
        ('"business"', '"end of month"', "did you mean last?"),
        ('"business"', '"busines"', "did you mean business?"),
        ('"business"', "[]", "pipelines.claims.delivery.days: must be words"),
        ('"business"', '["2026-13-05"]', "pipelines.claims.delivery.days: must be a date such as 2026-12-05"),
        ('"business"', "[2026-12-05T06:00:00]", "pipelines.claims.delivery.days: must be a date such as 2026-12-05"),
        ('"business"', '["9999-12-31"]', "pipelines.claims.delivery.days: must be a date such as 2026-12-05"),
        ('"US-TX"', '"US-TXX"', "pipelines.claims.delivery.calendar: is no calendar; did you mean US-TX?"),
        ('"US-TX"', '"us-tx"', "did you mean US-TX?"),
        ('"US-TX"', '"Germany"', "did you mean DE?"),
        ('"US-TX"', '"united states"', "did you mean US?"),
        ('"US-TX"', '"DE-BAY"', "did you mean DE-BY?"),
        ('"US-TX"', '"HolidayBase"', "is no calendar"),
        ("calendar =", "holidays =", "unknown key pipelines.claims.delivery.holidays; did you mean calendar?"),
        ("[2026-12-24]", '["Christmas"]', "pipelines.claims.delivery.closed: must be a date such as 2026-12-05"),
        ("closed = [2026-12-24]", 'if_closed = "following"', "pipelines.claims.delivery.if_closed: must be skip or next or previous; did you mean next?"),
        ('grace = "45m"', 'tolerance = "45m"', "unknown key pipelines.claims.delivery.tolerance; did you mean grace?"),
        ('grace = "45m"', 'grace = "soon"', "pipelines.claims.delivery.grace: must be a span of time"),
        ('grace = "45m"', "files = 0", "pipelines.claims.delivery.files: must be at least 1"),
        ('grace = "45m"', 'files = 3\ncomplete = "*.done"', "pipelines.claims.delivery.complete: goes without files"),
        ('grace = "45m"', 'complete = "done/*"', "pipelines.claims.delivery.complete: is the name of a file"),
        ('grace = "45m"', 'run = "on_arrival"', "pipelines.claims.delivery.run: must be on arrival or when due or no; did you mean on arrival?"),
        ('grace = "45m"', 'poll = "10ms"', "pipelines.claims.delivery.poll: must be at least 1"),
        # delivery: with what is beside it
        ('table = "calls" }', 'table = "calls" }\ndelivery = { due = "06:30", run = "on arrival" }', 'pipelines.calls.delivery.run: looks for files, and a source of type "sql" has none; write run = "when due"'),
        ('table = "calls" }', 'table = "calls" }\ndelivery = { due = "06:30", files = 2 }', 'pipelines.calls.delivery.files: is for files, and a source of type "sql" has none; drop it'),
        ('table = "calls" }', 'table = "calls" }\ndelivery = { due = "06:30", complete = "*.done" }', "pipelines.calls.delivery.complete: is for files"),
        # expect
        ('"50%"', "50", 'pipelines.claims.expect.change: must be a share of the usual rows such as "50%"'),
        ('"50%"', '"0%"', "pipelines.claims.expect.change: must be a share of the usual rows"),
        ('"50%"', '"500%"', "pipelines.claims.expect.change: must be a share of the usual rows"),
        ('change = "50%"', 'deviation = "50%"', "unknown key pipelines.claims.expect.deviation; did you mean change?"),
        ('"service_date" }', '"service_dat" }', "pipelines.claims.expect.period: there is no column service_dat; did you mean service_date?"),
        ('"service_date" }', '"amount" }', 'pipelines.claims.expect.period: column amount is a decimal, which has no day; declare columns.amount = { type = "date" }'),
        # alerts
        ('["failed", "missing"]', '["failure"]', "alerts.on[0]: must be failed or late or missing or odd or rejects or stuck or no worker or no scheduler or recovered; did you mean failed?"),
        ('"missing"]', '"no_worker"]', "alerts.on[1]: must be failed or late"),
        ("to = [", "recipients = [", "unknown key alerts.recipients; did you mean to?"),
        ('"${ALERT_URL}"', '"${ALERT-URL}"', "alerts.to[0]: names a value of the environment as ${NAME}"),
        ('"${ALERT_URL}"', '"$ALERT_URL"', "alerts.to[0]: names a value of the environment as ${NAME}"),
        ('"${ALERT_URL}"', '"ops@example.com"', "alerts.to[0]: must be an address such as"),
        ('"https://ping.example.com/x"', '"mailto://x@example.com"', "alerts.heartbeat: is asked by HTTP each minute"),
        ("[defaults]", '[defaults]\nalerts.of = ["failed"]', "unknown key defaults.alerts.of"),
        ("[clients.north]", '[clients.north]\nalerts.on = ["lost"]', "clients.north.alerts.on[0]: must be failed or late"),
        ("[clients.north]", '[clients.north]\noverride.claims.delivery.days = "weekly"', "clients.north.override.claims.delivery.days: must be"),
        ("[clients.north]", "[clients.north]\noverride.claims.delivery.fils = 2", "unknown key clients.north.override.claims.delivery.fils; did you mean files?"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_key_and_cure(write: Any, old: str, new: str, said: str) -> None:
    write((old, new))
    found = mistakes()
    assert any(said in line for line in found), found
    assert len(found) == 1 or "deadline" in new, found


def test_a_period_needs_a_delivery_to_be_compared_with(write: Any) -> None:
    begin, end = TOML.index("[pipelines.claims.delivery]"), TOML.index("[pipelines.calls]")
    write((TOML[begin:end], ""))
    cure = 'is compared with the days of the pipeline\'s delivery; add delivery = { due = "06:30" }'
    assert mistakes() == [f"etl.toml: pipelines.claims.expect.period: {cure}"]


def test_all_mistakes_are_reported_at_once(write: Any) -> None:
    write(
        ('"business"', '"weekdays"'),
        ('"US-TX"', '"US-TXX"'),
        ('"50%"', "50"),
        ('"service_date" }', '"service_dat" }'),
        ('"missing"]', '"missed"]'),
        ('table = "calls" }', 'table = "calls" }\ndelivery = { due = "06:30", run = "on arrival", files = 1 }'),
    )
    keys = [line.split(": ")[1] for line in mistakes()]
    assert sorted(keys) == [
        "alerts.on[1]",
        "pipelines.calls.delivery.files",
        "pipelines.calls.delivery.run",
        "pipelines.claims.delivery.calendar",
        "pipelines.claims.delivery.days",
        "pipelines.claims.expect.change",
        "pipelines.claims.expect.period",
    ]


def test_a_delivery_starts_nothing_that_needs_a_window(write: Any) -> None:
    write(("in/{client}/*.csv", "in/{client}/{start}.csv"), ('grace = "45m"', 'run = "when due"'))
    what = "starts runs that have no window, which {start} in the path needs"
    cure = 'put {date} into it, or write run = "no"'
    assert mistakes() == [f"etl.toml: pipelines.claims.delivery.run: {what}; {cure}"]


def test_a_replace_is_not_started_on_a_part_of_a_delivery(write: Any) -> None:
    write(('table = "claims" }', 'table = "claims", mode = "replace" }'), ('grace = "45m"', 'run = "on arrival"'))
    what = 'run = "on arrival" may start on a part of the delivery, and mode "replace" would drop the rest'
    cure = 'say when it is complete: files = 3, or complete = "*.done"'
    assert mistakes() == [f"etl.toml: pipelines.claims.delivery.run: {what}; {cure}"]


@pytest.mark.parametrize("keys", ["files = 3", 'complete = "*.done"'])
def test_a_replace_may_start_by_itself_once_it_is_known_to_be_complete(write: Any, keys: str) -> None:
    write(
        ('table = "claims" }', 'table = "claims", mode = "replace" }'), ('grace = "45m"', f'run = "on arrival"\n{keys}')
    )
    load_config()


@pytest.mark.parametrize(
    ("load", "run"), [('mode = "replace", by = ["_file"]', "on arrival"), ('mode = "replace"', "no"), ('mode = "append"', "when due")]
)  # fmt: skip
def test_what_drops_no_other_rows_need_not_wait_for_the_rest(write: Any, load: str, run: str) -> None:
    write(('table = "claims" }', f'table = "claims", {load} }}'), ('grace = "45m"', f'run = "{run}"'))
    load_config()


def test_an_override_is_laid_over_a_delivery_key_by_key(write: Any) -> None:
    write(
        ("[clients.north]", "[clients.north]\noverride.claims.delivery = { due = 07:00:00, calendar = 'DE' }"),
        ("[defaults]", "[defaults]\nalerts.to = ['mailto://all@example.com']"),
        ("[clients.acme]", "[clients.acme]\nalerts = { on = ['late'] }"),
        ("[pipelines.calls]", "[pipelines.calls.alerts]\non = 'failed'\n[pipelines.calls]"),
    )
    config = load_config()
    delivery = resolve(config, "claims", "north").delivery
    assert delivery is not None
    assert (delivery.due, delivery.calendar, delivery.days, delivery.grace) == ("07:00:00", "DE", "business", 2700.0)
    assert config.clients["acme"].alerts is not None
    assert (config.clients["acme"].alerts.to, config.clients["acme"].alerts.on) == (
        ("mailto://all@example.com",),
        ("late",),
    )
    assert config.pipelines["calls"].alerts is not None
    assert config.pipelines["calls"].alerts.on == ("failed",)


def test_what_a_delivery_and_a_schedule_would_both_start_is_a_mistake(write: Any) -> None:
    start, schedule = ('grace = "45m"', 'run = "on arrival"'), 'schedule = { claims = "0 8 * * *" }'
    write(start, ("[clients.acme]", f"[clients.acme]\n{schedule}"))
    cure = 'drop the schedule, or say delivery.run = "no"'
    said = f'schedule.claims: its delivery starts it already (run = "on arrival"); {cure}'
    assert mistakes() == [f"etl.toml: clients.acme.{said}"]
    write(start, ("[defaults]", f"[defaults]\n{schedule}"))
    assert mistakes() == [f"etl.toml: defaults.{said}"]
    write(
        ("[defaults]", f"[defaults]\n{schedule}"),
        ("[clients.north]", "[clients.north]\noverride.claims.delivery.run = 'when due'"),
    )
    where = "etl.toml: clients.north.override.claims.delivery.run"
    assert mistakes() == [f'{where}: its schedule starts it already; drop the schedule, or say run = "no"']
    write(start, ("[clients.acme]", f"[clients.acme]\n{schedule}\noverride.claims.delivery.run = 'no'"))
    load_config()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("override.claims.delivery.run = 'when due'", "override.claims.delivery.run: says when workers begin"),
        ("override.claims.delivery.poll = '1s'", "override.claims.delivery.poll: says how often files are looked for"),
        ("override.claims.alerts.on = []", "override.claims.alerts: says who is informed of what"),
        ("alerts.to = ['mailto:x']", "alerts.to[0]: must be an address"),
        ("alerts.to = ['mailto://x@example.com']", "alerts.to[0]: names a URL"),
        ("alerts.on = ['late']", "alerts: says who is informed of what"),
        ("alerts.heartbeat = '${X}'", "alerts.heartbeat: reads the environment"),
    ],
)
def test_a_client_that_is_not_trusted_starts_nothing_and_sends_nowhere(write: Any, text: str, said: str) -> None:
    write(("[targets]", "[settings]\ntrust_clients = false\n[targets]"), globex=f"pipelines = ['claims']\n{text}\n")
    broken = load_config().broken["globex"]
    assert any(f"clients/globex.toml: {said}" in line for line in broken), broken
    write(globex=f"pipelines = ['claims']\n{text}\n")
    assert all("may not" not in line for line in load_config().broken.get("globex", ()))


def test_a_client_that_is_not_trusted_says_when_its_deliveries_come(write: Any) -> None:
    own = (
        "override.claims.delivery = { due = '05:00', days = 'daily', grace = '2h', files = 2, closed = ['2026-12-31'] }"
    )
    write(("[targets]", "[settings]\ntrust_clients = false\n[targets]"), globex=f"pipelines = ['claims']\n{own}\n")
    config = load_config()
    assert config.broken == {}
    assert config.variants["globex", "claims"].delivery is not None


@pytest.mark.parametrize(
    ("address", "is_secret"),
    [
        ("mailtos://etl:hunter2@mail.example.com", True),
        ("mailtos://etl:${MAIL_PASSWORD}@mail.example.com", False),
        ("mailto://ops@example.com", False),
        ("https://hooks.example.com/etl", False),
        ("https://hooks.example.com/etl?token=abc", True),
        ("slack://AAA/BBB/CCC", True),
        ("slack://${SLACK}", False),
        ("${ALERT_URL}", False),
    ],
)
def test_a_secret_in_an_address_is_warned_of_and_never_shown(write: Any, address: str, is_secret: bool) -> None:
    write(("${ALERT_URL}", address), ("[clients.north]", f"[clients.north]\nalerts.to = '{address}'"))
    found = list(exposure.addresses(load_config()))
    keys = ["alerts.to[0]", "clients.north.alerts.to[0]"] if is_secret else []
    assert [what for what, _ in found] == [f"{key}: its password or token stands in etl.toml" for key in keys]
    assert not any(part in str(found) for part in ("hunter2", "abc", "AAA"))


def test_a_configuration_without_a_calendar_does_not_load_the_holidays(write: Any) -> None:
    write(('calendar = "US-TX"', ""))
    code = "from etl.config.read import load_config; load_config(); import sys; print('holidays' in sys.modules)"
    home = str(Path(__file__).parents[2])
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": home}
    )
    assert ran.stdout.strip() == "False"

"""Whoever writes all of Redis and delivers files into one client's inbox runs no code and moves no other client's rows.

The attacker is acme. What it must not reach: globex's rows, files outside staging, functions that the pipeline doesn't
name. `tests/run/test_trust.py` has the attacks by names; these are those that name what there is.
"""

import json
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from etl.errors import EtlError
from jobs import settings
from jobs.queue import FairQueue
from jobs.run.retry import retry_run
from jobs.run.stage import CHANGED
from jobs.run.submit import submit_run
from jobs.session import Session
from jobs.store import keys, runs
from jobs.views import rejects
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

pytestmark = pytest.mark.slow

PATH = "inbox/{client}/{part}*.csv"
CLAIMS: dict[str, Any] = {
    "extract": {"path": PATH},
    "transform": ["steps:same", {"function": "steps:scaled", "args": {"factor": 1}}],
    "load": {"mode": "merge", "key": ["claim_id"]},
    "retries": 0,
    "lookups": {"codes": {"type": "csv", "path": "codes.csv", "settle": 0}},
    "columns": {"claim_id": "string", "amount": {"type": "integer", "min": 0}},
}
CONFIG = etl_toml(
    {"claims": CLAIMS, "orders": {"extract": {"path": "inbox/{client}/orders.csv"}}},
    {name: {"params": {"part": "claims"}} for name in ("acme", "globex")},
)
STEPS = """
import pathlib

def same(df, codes):
    return df

def scaled(df, factor):
    return df.assign(amount=df.amount * factor)

def ran(*_):
    pathlib.Path(__file__).with_name("ran").touch()
"""
FILES = {
    "steps.py": STEPS,
    "codes.csv": "code\n1\n",
    "inbox/acme/claims.csv": "claim_id,amount\nA1,1\nA2,-5\n",
    "inbox/acme/orders.csv": "order_id\nOA\n",
    "inbox/globex/claims.csv": "claim_id,amount\nG1,7\n",
    "inbox/globex/orders.csv": "order_id\nOG\n",
    "secret.csv": "claim_id,amount\nsecret,9\n",
}


class Shop(QueuedProject):
    """Two clients of one table; globex' rows are loaded, and acme attacks."""

    def __init__(self, root: Path, connection: Redis) -> None:
        super().__init__(root, connection, CONFIG, FILES)
        for pipeline in ("claims", "orders"):
            self.submit("globex", pipeline)
        self.work()
        self.others = self.globex()
        assert self.others == {"claims": [("G1", 7)], "orders": [("OG",)]}

    def globex(self) -> dict[str, list[tuple[Any, ...]]]:
        """Return the other client's rows."""
        wanted = {"claims": "claim_id, amount", "orders": "order_id"}
        return {
            table: self.rows(f"select {columns} from {table} where _client = 'globex' order by 1")
            for table, columns in wanted.items()
        }

    def spec(self, run: str) -> Path:
        """Return the file of one of acme's runs' spec."""
        return self.root / "staging" / "acme" / run / "run.json"

    def call(self, function: str, *args: Any, client: str = "acme", id: str | None = None) -> None:
        """Enqueue a job as whoever writes to Redis can."""
        FairQueue(f"etl-{client}", connection=self.connection).enqueue_call(function, args=args, job_id=id)

    def forge(self, run: str, **changes: str) -> None:
        """Change a run's record."""
        self.connection.hset(keys.run_key(run), mapping=dict[Any, Any](changes))

    def unharmed(self) -> None:
        """Look whether the attack has failed."""
        assert not (self.root / "ran").exists()
        assert self.globex() == self.others
        assert "secret" not in str(self.rows("select * from claims"))
        assert (self.root / "secret.csv").read_text() == FILES["secret.csv"]


@pytest.fixture
def shop(tmp_path: Path, fake_redis: Redis) -> Shop:
    return Shop(tmp_path / "shop", fake_redis)


# --- specs ---


Change = Callable[[dict[str, Any]], object]


def piece(spec: dict[str, Any], **changes: Any) -> None:
    spec["plan"]["partitions"][0]["pieces"][0].update(changes)


def fixed(spec: dict[str, Any], path: str, **load: Any) -> None:
    """Pretend that the run is one of fixed rejects."""
    spec["pipeline"]["extract"].update(path=path)
    spec["pipeline"]["load"].update(mode="append", **load)
    spec["pipeline"].update(given=["extract", "load"])
    piece(spec, path=path)


def inbox(spec: dict[str, Any]) -> str:
    return str(Path(spec["plan"]["partitions"][0]["pieces"][0]["path"]).parent)


def linked(spec: dict[str, Any], leads: str, path: str) -> None:
    """Deliver a link, and name it as the file that is read."""
    link = Path(inbox(spec), "claims-9.csv")
    link.symlink_to(leads)
    piece(spec, file="inbox/acme/claims-9.csv", path=f"{inbox(spec)}/{path}")


SPECS: dict[str, Change] = {
    "another table": lambda spec: spec["pipeline"]["load"].update(table="orders"),
    "another mode": lambda spec: spec["pipeline"]["load"].update(mode="replace", key=[]),
    "another key": lambda spec: spec["pipeline"]["load"].update(key=["amount"]),
    "a load function": lambda spec: spec["pipeline"]["load"].update(function="steps:ran"),
    "another step": lambda spec: spec["pipeline"].update(transform=["steps:ran"]),
    "other arguments": lambda spec: spec["pipeline"]["transform"][1]["args"].update(factor=1000),
    "another path": lambda spec: spec["pipeline"]["extract"].update(path="secret.csv"),
    "another client's path": lambda spec: spec["pipeline"]["extract"].update(path="inbox/globex/claims.csv"),
    "a function as source": lambda spec: spec["pipeline"].update(extract={"type": "function", "function": "steps:ran"}),
    "a database as source": lambda spec: spec["pipeline"].update(
        extract={"type": "sql", "url": "sqlite:///warehouse.db", "table": "claims"}
    ),
    "another lookup": lambda spec: spec["pipeline"]["lookups"]["codes"].update(path="secret.csv"),
    "one more lookup": lambda spec: spec["pipeline"]["lookups"].update(
        more={"type": "function", "function": "steps:ran"}
    ),
    "another pipeline": lambda spec: spec["pipeline"].update(name="orders"),
    "another client": lambda spec: spec["pipeline"].update(client="globex"),
    "any file": lambda spec: piece(spec, path="/etc/passwd"),
    "a file of the project": lambda spec: piece(spec, path=inbox(spec) + "/../../secret.csv"),
    "another client's file": lambda spec: piece(spec, path=inbox(spec) + "/../globex/claims.csv"),
    "a link to another client's file": lambda spec: linked(spec, "../globex/claims.csv", "../globex/claims.csv"),
    "a link that does not lead there": lambda spec: linked(spec, "claims.csv", "../globex/claims.csv"),
    "fixed rows that are none": lambda spec: fixed(spec, inbox(spec) + "/../../secret.csv"),
    "fixed rows of another": lambda spec: fixed(spec, str(Path(spec["pipeline"]["staging"], "globex/x/y.csv"))),
    "fixed rows for another table": lambda spec: fixed(
        spec, str(Path(spec["pipeline"]["staging"], "acme/x/y.csv")), table="orders"
    ),
}


@pytest.mark.parametrize("attack", SPECS)
def test_a_spec_reaches_what_the_workers_configuration_does_and_nothing_else(shop: Shop, attack: str) -> None:
    run = shop.submit("acme")
    spec = json.loads(shop.spec(run).read_text())
    SPECS[attack](spec)
    shop.spec(run).write_text(json.dumps(spec))
    shop.work()
    assert (shop.record(run)["state"], shop.record(run)["error"]) == ("failed", CHANGED)
    shop.unharmed()
    assert shop.rows("select count(*) from claims where _client = 'acme'") == [(0,)]


@pytest.mark.parametrize("attack", SPECS)
def test_so_does_the_spec_of_a_run_that_is_retried(shop: Shop, attack: str) -> None:
    run = shop.submit("acme")
    runs.close(shop.connection, run, "failed", error="x", exit=1)
    spec = json.loads(shop.spec(run).read_text())
    SPECS[attack](spec)
    shop.spec(run).write_text(json.dumps(spec))
    with suppress(EtlError):
        retry_run(settings.config(), shop.connection, run)
    shop.work()
    shop.unharmed()


def test_what_a_spec_may_say_is_what_a_submission_says(shop: Shop) -> None:
    """Else the attacks would fail whatever they say."""
    run = shop.submit("acme")
    shop.work()
    assert shop.record(run)["state"] == "succeeded"
    assert shop.rows("select claim_id, amount from claims where _client = 'acme'") == [("A1", 1)]


# --- records and jobs ---


def record_of(shop: Shop, run: str) -> dict[str, str]:
    return dict(runs.read(shop.connection, run) or {})


RECORDS: dict[str, dict[str, str]] = {
    "client": {"client": "globex"},
    "pipeline": {"pipeline": "orders"},
    "params": {"params": '{"part": "../globex/claims"}'},
    "attempt": {"attempt": "1e9"},
    "moments": {"start": "x", "created": "x", "started": "x"},
}


@pytest.mark.parametrize("attack", RECORDS)
def test_a_forged_record_moves_no_other_clients_rows(shop: Shop, attack: str) -> None:
    run = shop.submit("acme")
    shop.forge(run, **RECORDS[attack])
    shop.work()
    shop.unharmed()
    assert shop.rows("select count(*) from orders where _client = 'acme'") == [(0,)]


@pytest.mark.parametrize("attack", RECORDS)
def test_nor_does_the_retry_of_a_forged_record(shop: Shop, attack: str) -> None:
    run = shop.submit("acme")
    runs.close(shop.connection, run, "failed", error="x", exit=1)
    shop.forge(run, **RECORDS[attack])
    with suppress(EtlError, ValueError):
        retry_run(settings.config(), shop.connection, run)
    shop.work()
    shop.unharmed()


def test_a_run_that_has_ended_loads_nothing_when_its_jobs_are_made_again(shop: Shop) -> None:
    run = shop.submit("globex")
    shop.work()
    shop.write("inbox/globex/claims.csv", "claim_id,amount\nG1,8\n")  # what its next run is to load
    shop.forge(run, state="running")
    for stage in ("extract", "transform", "load"):
        shop.call(f"jobs.stages.{stage}", run, "1", id=f"{run}-1-{stage}-1", client="globex")
    shop.call("jobs.stages.finish", run, id=f"{run}-0-finish-1", client="globex")
    shop.work()
    shop.unharmed()


@pytest.mark.parametrize("function", ["steps.pathlib", "steps.pathlib.Path.touch", "steps.__loader__", "os.system"])
def test_a_job_calls_functions_of_the_modules_and_none_that_they_import(shop: Shop, function: str) -> None:
    shop.call(function, str(shop.root / "ran"))
    shop.work()
    shop.unharmed()


# --- held runs ---


def held(shop: Shop, run: str, client: str, pipeline: str = "claims", **params: str) -> None:
    """Write a held run into Redis alone."""
    options = json.dumps(dict.fromkeys(("start", "end", "due", "max_rejects")) | {"full_refresh": True})
    about = runs.about(client, pipeline, params, None, None)
    shop.forge(run, **about, options=options, after="[]", needs="[]", state="held")
    shop.call("jobs.stages.start", run, client=client)


@pytest.mark.parametrize("params", [{"part": "claims"}, {"part": "/../../acme/claims"}, {}])
def test_a_held_run_that_stands_in_redis_alone_is_not_started(shop: Shop, params: dict[str, str]) -> None:
    shop.write("inbox/globex/claims.csv", "claim_id,amount\nG1,8\n")
    held(shop, "abcdefghjk", "globex", **params)
    shop.work()
    assert shop.record("abcdefghjk")["state"] == "failed"
    assert "is not in staging" in shop.record("abcdefghjk")["error"]
    shop.unharmed()
    with pytest.raises(EtlError, match="has no staging left"):
        retry_run(settings.config(), shop.connection, "abcdefghjk")


def test_a_held_run_does_what_was_submitted_whatever_redis_says(shop: Shop) -> None:
    first = shop.submit("acme")
    second = submit_run(shop.connection, shop.pipeline("claims", "acme"), queue=True)
    assert shop.record(second)["state"] == "held"
    shop.forge(second, params='{"part": "nothing"}', options='{"full_refresh": true, "max_rejects": 0}')
    shop.work()
    assert [shop.record(run)["state"] for run in (first, second)] == ["succeeded", "succeeded"]
    assert not (shop.spec(second).parent / "held.json").exists()


def test_a_held_run_of_another_pipeline_or_client_is_not_started(shop: Shop) -> None:
    for change in ({"pipeline": "orders"}, {"client": "globex"}):
        shop.submit("acme")
        second = submit_run(shop.connection, shop.pipeline("claims", "acme"), queue=True)
        shop.forge(second, **change)
        shop.work()
        assert shop.record(second)["state"] == "failed"
    shop.unharmed()
    assert shop.rows("select count(*) from orders where _client = 'acme'") == [(0,)]


def test_a_run_that_was_held_and_has_ended_is_not_started_again(shop: Shop) -> None:
    shop.submit("globex")
    run = submit_run(shop.connection, shop.pipeline("claims", "globex"), queue=True)
    shop.work()
    assert shop.record(run)["state"] == "succeeded"
    shop.write("inbox/globex/claims.csv", "claim_id,amount\nG1,8\n")
    shop.forge(run, state="held")
    shop.call("jobs.stages.start", run, client="globex")
    shop.work()
    shop.unharmed()


def test_a_planned_run_is_not_made_a_held_one(shop: Shop) -> None:
    run = shop.submit("globex")
    runs.close(shop.connection, run, "failed", error="x", exit=1)
    shop.connection.hdel(keys.run_key(run), "partitions")
    shop.forge(run, params='{"part": "other"}', after="[]", needs="[]")
    with pytest.raises(EtlError, match="has no staging left"):
        retry_run(settings.config(), shop.connection, run)


# --- what people do with what Redis says ---


def test_fixed_rejects_are_loaded_for_the_client_whose_they_are(shop: Shop) -> None:
    run = shop.submit("acme")
    shop.work()
    file = shop.root / "fixed.csv"
    with closing(Session(shop.path, shop.connection)) as session:
        rejects.export(session, run, file)
        file.write_text(file.read_text().replace("-5", "5"))
        shop.forge(run, client="globex")
        with pytest.raises(EtlError, match="has no staging left"):
            rejects.load(session, run, file)
        shop.forge(run, client="acme", pipeline="orders")
        with pytest.raises(EtlError, match="has no staging left"):
            rejects.load(session, run, file)
        shop.forge(run, client="acme", pipeline="claims", params='{"part": "other"}')
        rejects.load(session, run, file)
        shop.work()
    shop.unharmed()
    assert shop.rows("select claim_id, amount from claims where _client = 'acme' order by 1") == [("A1", 1), ("A2", 5)]


# --- deliveries ---


@pytest.mark.parametrize("column", ["_client", "_run", "_file", "_CLIENT"])
def test_a_file_does_not_say_whose_rows_it_has(shop: Shop, column: str) -> None:
    shop.write("inbox/acme/claims.csv", f"claim_id,amount,{column}\nA1,1,globex\nG1,9,globex\n")
    run = shop.submit("acme")
    shop.work()
    assert shop.record(run)["state"] == "failed"
    shop.unharmed()

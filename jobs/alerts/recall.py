"""What Redis has lost by a flush, asked of the targets: how each client's pipeline ended last, and when it was good."""

from contextlib import suppress
from typing import Any, cast

from redis import Redis

from etl.config.pipeline import Config, Pair, pairs_of
from etl.errors import EtlError
from jobs.alerts.ended import ALL, RECALL, SOME
from jobs.store import forms, keys, leftover
from jobs.store.run_json import seconds_of
from jobs.views.remembered import remembered

AGAIN, SILENT = 600, 60  # seconds until pipelines without any run are asked for again; where a target is silent


def recall(config: Config, connection: Redis) -> None:
    """Ask the targets for those clients' pipelines of which Redis knows no end, where that was not done lately."""
    pairs = _unknown(config, connection)
    if not pairs or connection.exists(keys.once_key(RECALL)):
        return
    silent: list[EtlError] = []
    found = [run for run in remembered(config, pairs, silent.append, latest=True) if not run["start"]]
    latest: dict[str, dict[str, Any]] = {}
    for run in sorted(found, key=lambda run: seconds_of(run["finished"]), reverse=True):
        name = f"{run['client']}/{run['pipeline']}"
        latest.setdefault(name, run)
        if run["state"] == "succeeded":
            connection.hsetnx(keys.SUCCEEDED, name, repr(seconds_of(run["finished"])))
    for name, run in latest.items():
        if run["state"] != "succeeded":
            with suppress(EtlError):  # staging can't be read
                leftover.restore(connection, config.staging, run)
        connection.hsetnx(keys.LAST, name, f"{run['run']} {run['state']}")
    connection.set(keys.once_key(RECALL), SOME if silent else ALL, ex=SILENT if silent else AGAIN)


def _unknown(config: Config, connection: Redis) -> list[Pair]:
    pipe = connection.pipeline(transaction=False)
    pipe.hgetall(keys.LAST)
    pipe.hgetall(keys.SUCCEEDED)
    last, succeeded = (
        forms.fit(form, cast(dict[Any, Any], answer))
        for form, answer in zip(("last", "moments"), pipe.execute(), strict=True)
    )
    known = {name for name, text in last.items() if name in succeeded or text.endswith(" succeeded")}
    return [pair for pair in pairs_of(config) if "/".join(pair) not in known]

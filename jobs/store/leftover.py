"""Runs that no Redis knows, as their staging knows them: those of `--inline` whose process has ended."""

import glob
import json
from collections.abc import Iterator, Mapping
from typing import Any

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.config.values import NAME
from etl.errors import EtlError
from etl.staging import MARKER, Staging
from etl.staging.place import filesystem
from jobs import settings
from jobs.store import runs
from jobs.store.keys import INDEX, run_key, stages_key
from jobs.store.run_json import StageRecord, run_json, seconds_of
from jobs.store.transitions import sources

ENDED = "ended.json"
STOPPED = "its process was stopped before it had ended"
UNKNOWN = "how it ended is not known: its process was killed, or its Redis has forgotten it"
_MOMENTS = {"created": "submitted", "started": "started", "ended": "finished"}


def keep(connection: Redis, url: str) -> None:
    """Write into staging how the runs of a Redis that is about to end have ended, those that succeeded aside.

    Args:
        url: The staging folder of `etl.toml`.
    """
    for run in list(runs.search(connection)):
        if run["state"] not in runs.ENDED and runs.close(connection, run["run"], "failed", error=STOPPED, exit=1):
            [run] = runs.snapshot(connection, [run["run"]])
        staging = Staging(url, run["client"], run["run"])
        if run["state"] in sources("reopen") and staging.names():
            stages = runs.stage_records(connection, run["run"])
            records = {f"{number}:{stage}": _fields(record) for (number, stage), record in stages.items()}
            staging.write_json(ENDED, {"run": run, "stages": records})


def find(url: str, text: str) -> list[dict[str, Any]]:
    """Return the runs whose id begins so, in the public JSON shape, as their staging knows them."""
    if not NAME.fullmatch(text):
        return []
    return [run for run in map(_read, _folders(url, f"*/{text}*")) if run]


def ended(url: str, client: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the runs of `--inline` that did not succeed, in the public JSON shape."""
    yield from filter(None, map(_read, _folders(url, f"{client or '*'}/*", ENDED)))


def stages(url: str, client: str, run: str) -> dict[tuple[int, str], StageRecord]:
    """Return what every stage of a run of `--inline` said last, by partition and stage."""
    found = Staging(url, client, run).read_json(ENDED) or {"stages": {}}
    named = {tuple(key.split(":")): StageRecord(**record) for key, record in found["stages"].items()}
    return {(int(number), stage): record for (number, stage), record in named.items()}


def restore(connection: Redis, url: str, run: Mapping[str, Any]) -> None:
    """Write a run that Redis doesn't know into it, as it ended; nothing where Redis knows it.

    Args:
        run: In the public JSON shape.

    Raises:
        EtlError: It has not failed, so that there is nothing to do again.
    """
    if runs.read(connection, run["run"]) is not None:
        return
    if run["state"] not in sources("reopen"):
        raise EtlError(runs.not_retried(run["run"], run["state"]))
    id, staging = run["run"], Staging(url, run["client"], run["run"])
    spec = staging.read_json("run.json")
    fields: dict[Any, Any] = runs.about(run["client"], run["pipeline"], run["params"], run["start"], run["end"])
    fields |= {name: run[name] or "" for name in ("state", "error", "exit")}
    fields |= {name: repr(seconds_of(run[field])) for name, field in _MOMENTS.items() if run[field]}
    fields |= {name: json.dumps(run[name]) for name in ("rows", "failures", "warnings")}
    fields |= {"done": json.dumps(run["partitions"]), "attempt": run["attempt"], "after": "[]", "needs": "[]"}
    if spec:
        fields |= {"partitions": len(spec["plan"]["partitions"]), "attempt": max(run["attempt"], spec["attempt"])}
    records = stages(url, run["client"], id)

    def write(pipe: RedisPipeline) -> None:
        is_known = pipe.exists(run_key(id))
        pipe.multi()
        if is_known:
            return
        pipe.hset(run_key(id), mapping=fields)
        pipe.expire(run_key(id), int(settings.history()))
        for (number, stage), record in records.items():
            pipe.hset(stages_key(id), f"{number}:{stage}", json.dumps(_fields(record)))
        pipe.expire(stages_key(id), runs.STAGES_KEPT)
        pipe.zadd(INDEX, {id: seconds_of(run["submitted"])}, nx=True)

    connection.transaction(write, run_key(id))


def forget(staging: Staging) -> None:
    """Remove what `keep` has written of a run that goes on."""
    staging.remove_files([ENDED])


def _fields(record: StageRecord) -> dict[str, Any]:
    """Return what is known of a stage; with its process it has stopped running."""
    known = {name: value for name, value in vars(record).items() if value is not None and name != "by"}
    return {**known, "state": "waiting" if record.state == "running" else record.state}


def _folders(url: str, pattern: str, file: str = "") -> list[Staging]:
    """Return the runs' folders that a pattern matches; where a file is named, those that have it."""
    fs, root, local = filesystem(url)
    wanted = "/".join(filter(None, (glob.escape(root), pattern, file)))
    found = glob.glob(wanted) if local else fs.glob(wanted)  # not fsspec's own, which looks at every file
    named = [path.rstrip("/").removesuffix(f"/{file}" if file else "").split("/")[-2:] for path in found]
    return [Staging(url, client, run) for client, run in named if NAME.fullmatch(client) and NAME.fullmatch(run)]


def _read(staging: Staging) -> dict[str, Any] | None:
    """Return a run as its staging knows it, or None where that is not of a run that can be done again."""
    if found := staging.read_json(ENDED):
        return dict(found["run"])
    spec, names = staging.read_json("run.json"), staging.names()
    if spec is None or ("rejects.json" in names and not any(map(MARKER.fullmatch, names))):  # it has succeeded
        return None
    given = spec["pipeline"]
    return run_json(
        staging.run,
        pipeline=given["name"],
        client=given["client"],
        params=given["params"],
        start=spec["start"],
        end=spec["end"],
        attempt=spec["attempt"],
        state="failed",
        error=UNKNOWN,
        exit=1,
        submitted=seconds_of(spec["today"]),
        partitions={"total": len(spec["plan"]["partitions"])},
    )

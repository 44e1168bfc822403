"""Retrying a run: what is done again, and what has changed since."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.config.models import CsvExtract
from etl.config.pipeline import Config, Pipeline, resolve
from etl.context import MOMENTS
from etl.errors import BadSource, EtlError, SourceMissing
from etl.partition import Partition, Plan
from etl.sources import plan
from etl.staging import STAGES, Marker, Staging
from jobs.run import claims
from jobs.run.graph import enqueue_graph, write_spec
from jobs.run.held import how_it_ended, is_of, needed_runs, promote, wait_fields
from jobs.store import keys, runs, waiting
from jobs.store.transitions import sources

if TYPE_CHECKING:
    from etl.config.pipeline import Pipeline


def reread(
    staging: Staging,
    pipeline: Pipeline,
    planned: Plan,
    moments: Sequence[datetime | None],
    *,
    resumes: bool,
) -> tuple[Plan, set[int]]:
    """Return the plan with files as they are now that were mended since, and whose partitions are to be made anew.

    Only whole files, and none that is loaded. Nothing is changed.

    Args:
        moments: The window's start and end, and the moment that `{date}` means.
        resumes: Whether rows that got further than out of the file stand, as nothing was wrong with them.
    """
    further = ("transform", "load") if resumes else ()
    stuck = {
        partition.number
        for partition in planned.partitions
        if not _is_final(staging, partition) and not any(staging.marker(stage, partition.number) for stage in further)
    }
    if not stuck or not isinstance(pipeline.extract, CsvExtract):
        return planned, set()
    try:
        now = plan(pipeline, start=moments[0], end=moments[1], today=moments[2])
    except (SourceMissing, BadSource):
        return planned, set()
    files = {piece.file: piece for partition in now.partitions for piece in partition.pieces if piece.is_whole}
    partitions, stale = [], set()
    for partition in planned.partitions:
        pieces = tuple(files.get(piece.file, piece) if piece.is_whole else piece for piece in partition.pieces)
        if partition.number in stuck and pieces != partition.pieces:
            stale.add(partition.number)
            partition = partition.model_copy(update={"pieces": pieces})
        partitions.append(partition)
    return planned.model_copy(update={"partitions": tuple(partitions)}), stale


def missing(
    staging: Staging, partitions: Sequence[Partition], stale: Collection[int], *, anew: bool
) -> list[Partition]:
    """Return the partitions that are not loaded.

    Args:
        stale: Numbers of partitions that are made anew whatever they published.
        anew: Whether all are that are not finally loaded, as the configuration has changed.
    """
    return [
        partition
        for partition in partitions
        if not _is_final(staging, partition)
        and (anew or partition.number in stale or not staging.marker("load", partition.number))
    ]


def withdraw(staging: Staging, numbers: Iterable[int], check: Callable[[], None]) -> None:
    """Take back what partitions have published.

    Args:
        check: Called before each; raises where this process may not change the run any more.
    """
    for number in numbers:
        check()
        for stage in STAGES:
            staging.withdraw(stage, number)


def _is_final(staging: Staging, partition: Partition) -> bool:
    loaded: Marker | None = staging.marker("load", partition.number)
    return loaded is not None and bool(loaded.counts.get("final"))


def changes_between(old: Pipeline, new: Pipeline) -> list[str]:
    """Return in sentences what is configured otherwise than when the run was submitted."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    skipped = ("fingerprint", "root", "staging", "modules")
    return [
        f"{key} has changed since the run was submitted"
        for key in after
        if key not in skipped and before.get(key) != after[key]
    ]


def retry_run(config: Config, connection: Redis, run: str) -> tuple[str, list[str]]:
    """Enqueue what is missing of a run that failed or was canceled, with today's config and code.

    Returns:
        The run's id, and what has changed since it was submitted, in sentences.

    Raises:
        EtlError: The run has not ended, has succeeded, or its staging is gone.
    """
    record = runs.read(connection, run)
    if record is None:
        raise EtlError(f"run {run} is not known to Redis any more", "run its pipeline again")
    if record["state"] not in sources("reopen"):
        raise EtlError(runs.not_retried(run, record["state"]))
    if "partitions" not in record:  # it was held, and has never been planned
        params, most = json.loads(record["params"]), json.loads(record["options"])["max_rejects"]
        resolved = resolve(config, record["pipeline"], record["client"], params=params, max_rejects=most)
        again(connection, resolved, run, record)
        return run, []
    place = keys.holder_key(record["client"], record["pipeline"], record.get("start"))
    try:
        with claims.claimed(connection, run, record, record["client"], record["pipeline"], place) as claim:
            return run, _resume(config, connection, run, record, claim)
    except claims.Changed:
        now = runs.read(connection, run) or {}
        if now.get("ended") == record.get("ended"):
            raise
        raise EtlError(runs.not_retried(run, now.get("state", "forgotten"))) from None


def _resume(config: Config, connection: Redis, run: str, record: Mapping[str, str], claim: claims.Claim) -> list[str]:
    """Plan and enqueue what is missing of a run; returns what has changed since it was submitted."""
    staging = Staging(config.staging, record["client"], run)
    spec = staging.read_json("run.json")
    if spec is None:
        raise EtlError(f"run {run} has no staging left", "run its pipeline again")
    old = Pipeline.model_validate(spec["pipeline"])
    planned, stale = Plan.model_validate(spec["plan"]), set[int]()
    resolved = resolve(config, old.name, old.client, params=old.params)
    resolved = resolved.model_copy(update={key: getattr(old, key) for key in (*old.given, "given")})
    start, end, today = (datetime.fromisoformat(spec[key]) if spec.get(key) else None for key in MOMENTS)
    if not planned.partitions:  # no file was there, or none that could be read
        planned = plan(resolved, start=start, end=end, today=today)
    else:
        # Where the rows are not to blame, they stand: the file may be the next night's by now.
        resumes = record["state"] == "canceled" or record.get("exit") == "3"
        planned, stale = reread(staging, resolved, planned, (start, end, today), resumes=resumes)
    anew = old.fingerprint != resolved.fingerprint
    redone = missing(staging, planned.partitions, stale, anew=anew)
    # Until here nothing has changed. A retry that dies from here on leaves less published, and the next one
    # makes that again: the spec, by which it knows, is written after all that it has made stale is withdrawn.
    withdraw(staging, [p.number for p in redone if anew or p.number in stale], claim.check)
    claim.check()
    attempt = int(record["attempt"]) + 1
    full_refresh = spec.get("full_refresh", False)
    write_spec(staging, resolved, planned, (start, end, today), attempt, full_refresh=full_refresh)
    fields = [f"{p.number}:{stage}" for p in redone for stage in STAGES] + ["0:finish"]

    def write(pipe: RedisPipeline) -> None:
        runs.reopen(pipe, run, record, attempt, len(planned.partitions), fields)

    window = record.get("start")
    enqueue_graph(connection, resolved, run, attempt, redone, write, was=record["state"], window=window, claim=claim)
    return changes_between(old, resolved)


def again(connection: Redis, pipeline: "Pipeline", run: str, record: Mapping[str, str]) -> None:
    """Hold a run once more that ended before it was planned, as what it waited for did not succeed.

    Args:
        pipeline: Resolved for the client, as of today.
        record: The run's hash.

    Raises:
        EtlError: What it needs has still not succeeded.
    """
    needs, failed = needed_runs(connection, pipeline)
    if failed:
        raise EtlError(f"run {run} {failed}", "retry that first")
    own = [other for other in json.loads(record["after"]) if is_of(connection, other, pipeline)]
    needs += [other for other in json.loads(record["needs"]) if other in own]
    for other in needs:
        found = runs.read(connection, other)
        if found and found["state"] in ("failed", "canceled"):
            raise EtlError(f"run {run} needs run {other}, which {how_it_ended(found['state'])}", "retry that first")
    waiting.hold(connection, run, wait_fields([*own, *needs], needs), was=record)
    promote(connection, [run])

"""Retrying a run: what is done again, and what has changed since."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from redis import Redis
from redis.client import Pipeline as RedisPipeline

from etl.config.pipeline import Config, Pipeline, resolve
from etl.errors import BadSource, EtlError, SourceMissing
from etl.partition import Partition, Plan
from etl.staging import STAGES, Marker, Staging
from jobs.run import claims
from jobs.run.graph import Spec, enqueue_graph, plan_of, read_request, read_spec, write_spec
from jobs.run.held import hold, how_it_ended, needed_runs, promote, wait_fields
from jobs.store import keys, leftover, over, runs
from jobs.store.transitions import sources


@dataclass(frozen=True)
class Redo:
    """What a retry does again.

    Args:
        plan: The run's, with the pieces of files that have been fixed since.
        partitions: Those of which stages are missing or no longer valid.
        withdrawn: Numbers of those whose published stages no longer count.
        changes: What is configured otherwise than at submission, in sentences.
    """

    plan: Plan
    partitions: Sequence[Partition]
    withdrawn: Sequence[int]
    changes: Sequence[str]


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
        _hold_again(config, connection, run, record)
        return run, []
    holder = keys.holder_key(record["client"], record["pipeline"], record.get("start"))
    try:
        with claims.claimed(connection, run, record, record["client"], record["pipeline"], holder) as claim:
            return run, list(_resume(config, connection, run, record, claim).changes)
    except claims.Changed:
        now = runs.read(connection, run) or {}
        if now.get("ended") == record.get("ended"):
            raise
        raise EtlError(runs.not_retried(run, now.get("state", "forgotten"))) from None


def _resume(config: Config, connection: Redis, run: str, record: Mapping[str, str], claim: claims.Claim) -> Redo:
    """Enqueue what is missing of a run that has been planned."""
    staging = Staging(config.staging, record["client"], run)
    spec = read_spec(staging)
    if spec is None:
        raise EtlError(f"run {run} has no staging left", "run its pipeline again")
    old = spec.pipeline
    if (old.client, old.name) != (record["client"], record["pipeline"]):
        raise EtlError(f"run {run} is not of {record['client']}/{record['pipeline']}", "run that pipeline again")
    pipeline = resolve(config, old.name, old.client, params=old.params)
    pipeline = pipeline.model_copy(update={key: getattr(old, key) for key in (*old.given, "given")})
    _refuse_older(connection, run, record, pipeline)
    today = replace(spec, pipeline=pipeline)
    # Where the rows are not to blame, they stay: the file may be the next night's by now.
    rows_are_fine = record["state"] == "canceled" or record.get("exit") == "3"
    redo = to_redo(staging, spec, today, rows_are_fine=rows_are_fine)
    # Until here nothing has changed. A retry that dies from here on leaves less published, and the next one
    # makes that again: the spec, by which it knows, is written after all that is no longer valid is withdrawn.
    for number in redo.withdrawn:
        claim.check()
        for stage in STAGES:
            staging.withdraw(stage, number)
    claim.check()
    attempt = max(int(record["attempt"]), over.latest(staging) or 0) + 1
    today = replace(today, plan=redo.plan)
    write_spec(staging, today, attempt)
    fields = [f"{p.number}:{stage}" for p in redo.partitions for stage in STAGES] + ["0:finish"]

    def write(pipe: RedisPipeline) -> None:
        runs.reopen(pipe, run, record, attempt, len(redo.plan.partitions), fields)

    enqueue_graph(connection, run, today, attempt, redo.partitions, write, was=record["state"], claim=claim)
    leftover.forget(staging)
    return redo


def _refuse_older(connection: Redis, run: str, record: Mapping[str, str], pipeline: Pipeline) -> None:
    """Refuse to replace a whole table by rows that are older than those of a later run.

    Raises:
        EtlError: A run that was submitted later has replaced the table.
    """
    if pipeline.load.mode != "replace" or pipeline.load.by:
        return
    client, name, since = pipeline.client, pipeline.name, float(record["created"])
    for later in runs.search(connection, client=client, pipeline=name, state="succeeded", since=since):
        if later["run"] != run and later["rows"]["loaded"] + later["rows"]["unchanged"]:
            raise EtlError(
                f"run {later['run']} has replaced {pipeline.table} since run {run} was submitted: "
                "a retry would put older rows back",
                "run the pipeline again, if the table should have what its source has now",
            )


def to_redo(staging: Staging, before: Spec, today: Spec, *, rows_are_fine: bool) -> Redo:
    """Say what of a run is done again, and change nothing.

    What is loaded for good never is. Of the others, those are whose load is missing; and from their source on,
    those whose file was fixed before a row of it was transformed, and all of them where the configuration has
    changed. A run that had no partition, as no file was there or could be read, is planned anew.

    Args:
        before, today: The run's spec as it was submitted, and with the pipeline as it is configured now.
        rows_are_fine: Whether the run ended for another reason than its rows, so that what was read of them is valid.
    """
    if before.plan.partitions:
        planned, fixed = _fixed_files(staging, today, rows_are_fine)
    else:
        planned, fixed = plan_of(today), set()
    anew = before.pipeline.fingerprint != today.pipeline.fingerprint
    open_ = [partition for partition in planned.partitions if not _is_final(staging, partition)]
    redone = [p for p in open_ if anew or p.number in fixed or not staging.marker("load", p.number)]
    withdrawn = [p.number for p in redone if anew or p.number in fixed]
    return Redo(planned, redone, withdrawn, _changes(before.pipeline, today.pipeline))


def _fixed_files(staging: Staging, spec: Spec, rows_are_fine: bool) -> tuple[Plan, set[int]]:
    """Return the plan with whole files as they are now, and the numbers of the partitions whose files are others."""
    further = ("transform", "load") if rows_are_fine else ()
    stuck = {
        partition.number
        for partition in spec.plan.partitions
        if not _is_final(staging, partition) and not any(staging.marker(stage, partition.number) for stage in further)
    }
    if not stuck or not spec.pipeline.extract.FACTS.files:
        return spec.plan, set()
    try:
        now = plan_of(spec)
    except (SourceMissing, BadSource):
        return spec.plan, set()
    files = {piece.file: piece for partition in now.partitions for piece in partition.pieces if piece.is_whole}
    partitions, fixed = [], set()
    for partition in spec.plan.partitions:
        pieces = tuple(files.get(piece.file, piece) if piece.is_whole else piece for piece in partition.pieces)
        if partition.number in stuck and pieces != partition.pieces:
            fixed.add(partition.number)
            partition = partition.model_copy(update={"pieces": pieces})
        partitions.append(partition)
    return spec.plan.model_copy(update={"partitions": tuple(_ranked(partitions) if fixed else partitions)}), fixed


def _ranked(partitions: Sequence[Partition]) -> list[Partition]:
    """Rank partitions by their files as they are now: one that was fixed is the newest, and its rows win a merge."""

    def age(partition: Partition) -> tuple[float, str, int]:
        piece = partition.pieces[0]
        return piece.modified, piece.file, piece.start

    ranks = {partition.number: rank for rank, partition in enumerate(sorted(partitions, key=age))}
    return [partition.model_copy(update={"order": ranks[partition.number]}) for partition in partitions]


def _is_final(staging: Staging, partition: Partition) -> bool:
    loaded: Marker | None = staging.marker("load", partition.number)
    return loaded is not None and bool(loaded.counts.get("final"))


def _changes(old: Pipeline, new: Pipeline) -> list[str]:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    skipped = ("fingerprint", "root", "staging", "modules")
    return [
        f"{key} has changed since the run was submitted"
        for key in after
        if key not in skipped and before.get(key) != after[key]
    ]


def _hold_again(config: Config, connection: Redis, run: str, record: Mapping[str, str]) -> None:
    """Hold a run once more that ended before it was planned, as what it waited for did not succeed.

    Raises:
        EtlError: What it needs has still not succeeded.
    """
    request = read_request(Staging(config.staging, record["client"], run), record)
    if request is None:
        raise EtlError(f"run {run} has no staging left", "run its pipeline again")
    pipeline = request.resolved(config)
    _refuse_older(connection, run, record, pipeline)
    needs, failed = needed_runs(connection, pipeline)
    if failed:
        raise EtlError(f"run {run} {failed}", "retry that first")
    whose, others = (pipeline.client, pipeline.name), runs.read_many(connection, json.loads(record["after"]))
    own = [id for id, other in others.items() if (other["client"], other["pipeline"]) == whose]
    needs += [other for other in json.loads(record["needs"]) if other in own]
    for other in needs:
        found = runs.read(connection, other)
        if found and found["state"] in ("failed", "canceled"):
            raise EtlError(f"run {run} needs run {other}, which {how_it_ended(found['state'])}", "retry that first")
    over.forget(Staging(config.staging, record["client"], run))
    hold(connection, run, wait_fields([*own, *needs], needs), was=record)
    promote(connection, [run])

"""What is done with one partition: its source is read, its rows are transformed, and loaded into the target.

Each of the three returns what it is to publish; `jobs.run.stage` publishes it, last.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pyarrow as pa
from redis import Redis

from etl import load as target
from etl import sources
from etl.config import code
from etl.config.pipeline import Pipeline
from etl.errors import EtlError, TableMismatch
from etl.load import known
from etl.partition import Chunk
from etl.prefetch import prefetch
from etl.sources import extract as read_source
from etl.staging import Marker
from etl.transform import Transformer
from etl.transform.lookups import lookups_of
from etl.types.infer import candidates, decide, merge_candidates, named_candidates
from etl.types.newer import Narrowed, Reached
from jobs.run import finish
from jobs.run.balance import ByFile, Tally
from jobs.run.rate_limit import RateLimit
from jobs.run.stage import StageContext


def extract(work: StageContext, connection: Redis) -> Marker:
    """Read a partition of the source into staging, unless all of it is known to be loaded."""
    if not work.full_refresh and known.may_skip(work.pipeline, work.partition, len(work.plan.partitions)):
        pieces = [piece for partition in work.plan.partitions for piece in partition.pieces]
        there = None
        with suppress(EtlError):  # a target that can't be asked now may be there when the rows are to be loaded
            which = work.pipeline, work.run, work.attempt, work.partition
            there = known.rows_there(*which, pieces, lambda: _shaped(work))
        if there is not None:
            rows, content = there
            counts = {"read": rows, "out": rows, "rejected": 0, "skipped": rows}
            return Marker(counts=counts, content=content)
    return _read(work, connection)


def _shaped(work: StageContext) -> dict[str, str]:
    """Return what shapes rows beside their source and the configuration, by the ledger's names for it."""
    lookups = work.pipeline.lookups if work.pipeline.transform or work.pipeline.extract.FACTS.own_code else {}
    content = lookups_of(work.pipeline, work.context, sources.read_all).content if lookups else ""
    return {"code": code.fingerprint(work.pipeline), "lookups": content}


def _read(work: StageContext, connection: Redis) -> Marker:
    rows_out = rejected = 0
    types: list[dict[str, list[str]]] = []
    warnings: list[str] = []
    by_file = ByFile(work.partition)
    infer = not work.pipeline.columns
    context = work.context
    if rate := work.pipeline.extract.rate:
        context = replace(context, pace=RateLimit(connection, work.pipeline.client, work.pipeline.name, rate))
    with (
        work.staging.writer("extract", work.number) as rows,
        work.staging.writer("extract", work.number, "rejects") as rejects,
    ):
        narrow = Narrowed(work.pipeline, work.span, work.partition.pieces[0].file)
        content = ""

        def read() -> Iterator[Chunk]:
            nonlocal content
            content = yield from read_source(work.pipeline, work.partition, context, work.span)

        # A function of the user's own stays in this thread, where a debugger and its libraries expect it.
        for chunk in read() if work.pipeline.extract.FACTS.own_code else prefetch(read()):
            newer = narrow(chunk.rows)
            rows.write(newer)
            rows_out += newer.num_rows
            warnings += chunk.warnings
            by_file.read(chunk.rows, chunk.rejects)
            if chunk.rejects.num_rows:
                rejects.write(chunk.rejects)
                rejected += chunk.rejects.num_rows
            if infer:
                types.append(candidates(newer.drop_columns(["_row"]), work.pipeline.extract))
    # Rows that are held back count as not read: another run reads them.
    counts = {"read": rows_out + rejected + narrow.unchanged, "out": rows_out, "rejected": rejected}
    if narrow.unchanged:
        counts["unchanged"] = narrow.unchanged
    if narrow.future:
        counts["future"] = narrow.future
    return Marker(
        counts=counts,
        data=tuple(rows.names),
        rejects=tuple(rejects.names),
        content=content,
        types=merge_candidates(types) if infer else None,
        warnings=(*warnings, *narrow.warnings),
        files=by_file.counts,
    )


def transform(work: StageContext, connection: Redis) -> Marker:
    """Cast, check and reshape a partition's rows in staging."""
    source = work.input("extract")
    if skipped := source.counts.get("skipped"):
        counts = dict.fromkeys(("in", "out"), skipped) | dict.fromkeys(("rejected", "dropped", "added"), 0)
        return Marker(counts=counts, shaped=_shaped(work))
    files = [piece.file for piece in work.partition.pieces]
    transformer = Transformer(work.pipeline, work.context, files, _types(work))
    reached = Reached(work.pipeline, work.span, files[0] if files else work.pipeline.name)
    counts = dict.fromkeys(("in", "out", "rejected", "dropped", "added"), 0)
    warnings: list[str] = []
    by_file = ByFile(work.partition)
    with (
        work.staging.writer("transform", work.number) as rows,
        work.staging.writer("transform", work.number, "rejects") as rejects,
    ):
        for chunk in _pieces(work.pipeline, prefetch(work.staging.chunks(source.data))):
            result = transformer.apply(chunk)
            reached(chunk, result.refused)
            rows.write(result.rows)
            by_file.rejected(result.rejects)
            if result.rejects.num_rows:
                rejects.write(result.rejects)
            counts["in"] += chunk.num_rows
            counts["out"] += result.rows.num_rows
            counts["rejected"] += result.rejects.num_rows
            counts["dropped"] += result.dropped
            counts["added"] += result.added
            warnings += [warning for warning in result.warnings if warning not in warnings]
    return Marker(
        counts=counts,
        data=tuple(rows.names),
        rejects=tuple(rejects.names),
        warnings=tuple(warnings),
        shaped=_shaped(work),
        files=by_file.counts,
        cursor=work.read_to(reached.latest),
    )


def _pieces(pipeline: Pipeline, chunks: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Give functions any piece, or all rows of the partition at once where they asked for a file or the run."""
    if pipeline.extract.split == "rows" or not pipeline.transform:
        return chunks
    tables = list(chunks)
    return iter([pa.concat_tables(tables, promote_options="permissive")] if tables else [])


def _types(work: StageContext) -> dict[str, str] | None:
    """Return the types that fit every partition of a run without columns, the same for each of them."""
    if work.pipeline.columns:
        return None
    found: dict[str, str] | None = work.staging.read_json("types.json")
    if found is None:
        _decide_types(work)
        found = work.staging.read_json("types.json")
    return found


def _decide_types(work: StageContext) -> None:
    markers = [work.staging.marker("extract", p.number) for p in work.plan.partitions]
    found = [marker.types for marker in markers if marker is not None and marker.types is not None]
    existing = target.column_types(work.pipeline)
    fitting = named_candidates(found, work.pipeline, existing)
    work.staging.write_json("types.json", decide(fitting, existing))


def load(work: StageContext, connection: Redis) -> Marker:
    """Load a partition's rows into the target, with its ledger row in the same transaction."""
    try:
        return _deliver(work)
    except TableMismatch:
        if work.pipeline.columns:
            raise
    # Since the types were inferred, another client's load may have made the table, with types of its own rows.
    _decide_types(work)
    work.staging.withdraw("transform", work.number)
    work.staging.publish("transform", work.number, transform(work, connection))
    return _deliver(work)


def _deliver(work: StageContext) -> Marker:
    source, rows = work.input("extract"), work.input("transform")
    delivery = target.Delivery(
        pipeline=work.pipeline,
        run=work.run,
        partition=work.partition,
        content=source.content,
        partitions=len(work.plan.partitions),
        attempt=work.attempt,
        read=source.counts["read"],
        skipped=source.counts.get("skipped", 0),
        all_rejected=Tally({work.number: {"extract": source, "transform": rows}}).all_rejected,
        again=work.full_refresh,
        context=work.context,
        **rows.shaped,
    )

    def loaded(answer: target.LoadCounts) -> Marker:
        kinds = {kind: getattr(answer, kind) for kind in ("loaded", "unchanged", "superseded")}
        counts = {"in": rows.counts["out"], **kinds, "final": int(answer.final)}
        return Marker(counts=counts, warnings=tuple(answer.warnings))

    def ended(answer: target.LoadCounts) -> target.Record:
        """Say how a run of one partition ends, as far as its load knows; `finish` says so where it ends otherwise."""
        stages = {"extract": source, "transform": rows, "load": loaded(answer)}
        return finish.history_record(work, finish.ending(Tally({work.number: stages}), []))

    mine = Tally({work.number: {"extract": source, "transform": rows}})
    answer = target.load(
        delivery,
        work.staging.chunks(rows.data),
        read=source.counts["read"],
        rejected=source.counts["rejected"] + rows.counts["rejected"],
        record=ended,
        move=work.move(mine.latest, mine.future),
    )
    return loaded(answer)

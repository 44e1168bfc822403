"""Guards: whether a delivery has as many rows, as fresh ones and as few rejects as the pipeline allows."""

import time
from collections.abc import Sequence

from etl.config.pipeline import Pipeline
from etl.errors import AllRejected, TooManyRejects, UnexpectedDelivery
from etl.partition import Partition


def unmet(pipeline: Pipeline, partitions: Sequence[Partition], read: int, now: float | None = None) -> list[str]:
    """Return a sentence for each expectation that a run's delivery doesn't meet.

    Args:
        partitions: All of the run's.
        read: Rows read.
        now: Seconds since the epoch; None means now.
    """
    expect = pipeline.expect
    if expect is None:
        return []
    found = []
    if expect.rows is not None and not expect.rows[0] <= read <= expect.rows[1]:
        delivered = "1 row was" if read == 1 else f"{read:,} rows were"
        found.append(f"{delivered} delivered, {expect.rows[0]:,} to {expect.rows[1]:,} were expected")
    modified = [piece.modified for partition in partitions for piece in partition.pieces if piece.modified]
    if expect.fresh is not None:
        age = (time.time() if now is None else now) - max(modified, default=0.0)
        if not partitions:
            found.append(f"nothing was delivered, something not older than {_span(expect.fresh)} was expected")
        elif modified and age > expect.fresh:
            found.append(f"the newest file is {_span(age)} old, at most {_span(expect.fresh)} was expected")
    return found


def check(pipeline: Pipeline, partitions: Sequence[Partition], read: int) -> None:
    """Refuse a delivery that isn't as expected, where the pipeline says `otherwise = "fail"`.

    Raises:
        UnexpectedDelivery: With what was expected.
    """
    wrong = unmet(pipeline, partitions, read) if pipeline.expect and pipeline.expect.otherwise == "fail" else []
    if wrong:
        raise UnexpectedDelivery("; ".join(wrong), "nothing was loaded; if it is right, change `expect` and retry")


def check_rejects(pipeline: Pipeline, rejected: int, read: int) -> None:
    """Refuse a delivery of which more rows were rejected than `max_rejects` allows.

    Raises:
        TooManyRejects: There are.
    """
    limit = pipeline.reject_limit(read)
    if limit is not None and rejected > limit:
        raise TooManyRejects(
            f"{rejected:,} of {read:,} rows were rejected, max_rejects allows {limit:,}: nothing was loaded",
            "look at them (rq-etl rejects), fix the source, or allow more with --max-rejects",
        )


def check_all_rejected(pipeline: Pipeline, all_rejected: bool, read: int) -> None:
    """Refuse a delivery of which every row was rejected, unless the pipeline says `all_rejected = "warn"`.

    Raises:
        AllRejected: It is one.
    """
    if all_rejected and pipeline.all_rejected == "fail":
        what = "the only row was rejected" if read == 1 else f"all {read:,} rows were rejected"
        cure = 'look at them (rq-etl rejects) and fix the source or the pipeline; all_rejected = "warn" lets it pass'
        raise AllRejected(f"{what}: nothing was loaded", cure)


def _span(seconds: float) -> str:
    hours = seconds / 3600
    return (
        f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours" if hours >= 1 else f"{seconds / 60:.0f} min"
    )


def overtaken(pipeline: Pipeline, rows: int) -> list[str]:
    """Return a warning where a replace left out rows, as a later run had replaced the same meanwhile."""
    if pipeline.load.mode != "replace" or not rows:
        return []
    what = f"{rows:,} rows are" if rows > 1 else "1 row is"
    return [f"{what} not loaded: a later run has replaced the same in {pipeline.table} since this run read its source"]

"""What a retry does again: files that were mended, partitions that are not loaded; and what has changed since."""

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime

from etl.errors import BadSource, SourceMissing
from etl.pipeline import CsvExtract, Pipeline
from etl.plan import Partition, Plan, plan
from etl.staging import STAGES, Marker, Staging


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


def changes(old: Pipeline, new: Pipeline) -> list[str]:
    """Return in sentences what is configured otherwise than when the run was submitted."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    skipped = ("fingerprint", "root", "staging", "modules")
    return [
        f"{key} has changed since the run was submitted"
        for key in after
        if key not in skipped and before.get(key) != after[key]
    ]

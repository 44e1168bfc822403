"""Which files of a client's pipeline are there, whatever the dates in their names: what deliveries are made of."""

import glob
import os
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import NamedTuple

from etl.calendar.names import HOLE, PLAIN, Moment, Names, found_in
from etl.config.pipeline import Pipeline
from etl.config.values import MOMENTS, dated_placeholders
from etl.errors import SourceMissing
from etl.sources.files import FileConfig, filled, fixed_part, named_values
from etl.sources.listing import listed


class Arrival(NamedTuple):
    """A file that is there, or a marker that says a delivery is complete.

    Args:
        name, path, size, modified: See `etl.sources.listing.File`.
        day: The date that its name says, if its path has one.
        is_settled: Whether it has been as it is for as long as `settle` asks, by its time of modification.
        is_marker: Whether it is a marker.
    """

    name: str
    path: str
    size: int
    modified: float
    day: date | None
    is_settled: bool
    is_marker: bool = False


class FolderAway(SourceMissing):
    """The folder of a source isn't there, or can't be looked at."""

    is_there = False  # it is, and can't be read


def present(pipeline: Pipeline, now: float, complete: str | None = None) -> list[Arrival]:
    """Return the files that a pipeline's path names for any date, and markers; their contents are not looked at.

    Args:
        now: In seconds since the epoch.
        complete: A glob of markers, in the folder of the files.

    Raises:
        FolderAway: Their folder isn't there, or can't be read.
        ConfigError: A parameter has a value that leads elsewhere.
    """
    config = pipeline.extract
    assert isinstance(config, FileConfig)
    names = _names(pipeline, config)
    near = datetime.fromtimestamp(now, UTC).date()
    found: list[Arrival] = []
    if complete:
        beside = os.path.join(os.path.dirname(names.pattern), complete)
        markers = Names(beside, names.moments[: beside.count(HOLE)])
        forms = [moment.form or PLAIN for moment in names.moments if moment.name == names.telling]
        for marker in _found(pipeline, config, markers, now, near, is_marker=True):
            day = marker.day or found_in(os.path.basename(marker.name), forms, near)
            found.append(marker._replace(day=day))
    known = {arrival.name for arrival in found}
    found += (file for file in _found(pipeline, config, names, now, near) if file.name not in known)
    return found


def _names(pipeline: Pipeline, config: FileConfig) -> Names:
    """Return the names that a pipeline's path stands for."""
    placed = [(name, form) for name, form in dated_placeholders(config.path) if name in MOMENTS]
    holes = {name if form is None else f"{name}:{form}": HOLE for name, form in placed}
    pattern = filled(config.path, {**named_values(pipeline), **holes})
    whole = os.path.normpath(os.path.join(glob.escape(pipeline.root), pattern))
    return Names(whole, tuple(Moment(*each) for each in placed))


def _found(
    pipeline: Pipeline, config: FileConfig, names: Names, now: float, near: date, *, is_marker: bool = False
) -> Iterable[Arrival]:
    fixed = fixed_part(pipeline, config, names.glob)
    files, _ = listed(pipeline.root, names.glob, fixed)
    if not files:
        _refuse_absent(os.path.join(pipeline.root, fixed))
    for file in files:
        day = names.day(os.path.join(pipeline.root, file.name), near)
        if day is not None or names.telling is None:  # else what stands in place of the date is none
            is_settled = not config.settle or now - file.modified >= config.settle
            yield Arrival(file.name, file.path, file.size, file.modified, day, is_settled, is_marker)


def _refuse_absent(folder: str) -> None:
    """Raise FolderAway where a folder can't be looked at: a glob says only that nothing is in it."""
    try:
        os.stat(folder) if os.path.isfile(folder) else os.scandir(folder).close()
    except OSError as exc:
        error = FolderAway(
            f"{folder} can't be looked at: {exc.strerror or type(exc).__name__}", "make it so, or correct extract.path"
        )
        error.is_there = not isinstance(exc, FileNotFoundError)
        raise error from None

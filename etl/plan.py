"""From a source to the partitions of a run. Cheap: files are only listed, but for large CSV files, which are cut."""

import glob
import os
import re
import time
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict

from etl.errors import BadSource, ConfigError, SourceMissing
from etl.pipeline import CsvExtract, Pipeline, SqlExtract
from etl.values import fill, placeholders

_ESCAPED = re.compile(r"\[([*?[])\]")  # as glob.escape writes them

ROW_BITS = 40  # `_row` = piece index << ROW_BITS | physical line


class Piece(BaseModel):
    """One file, or a range of its bytes; of an SQL source, a range of its keys.

    Args:
        file: Its name as users see it: relative to etl.toml's folder where it lies inside, or "module:name".
        path: Where to open it.
        start, end: Range in bytes; `end` None means to the end. A range from 0 holds the header.
        line: Physical line number of the byte `start`; the file's first line is 1.
        size: Bytes in the range.
        modified: Modification time of the file, seconds since the epoch.
        version: sha256 of the whole file where planning had to read it, else "". Of an SQL source, the run's window.
        keys: Of an SQL source, the range of keys, from the first up to but without the second; None is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    path: str
    start: int = 0
    end: int | None = None
    line: int = 1
    size: int = 0
    modified: float = 0.0
    version: str = ""
    keys: tuple[int | None, int | None] = (None, None)

    @property
    def is_whole(self) -> bool:
        """Whether it is a file from its beginning to its end."""
        return self.start == 0 and self.end is None


class Partition(BaseModel):
    """One independent slice of a run's input.

    Args:
        number: 1 for the first partition of the run.
        pieces: What it is read from; more than one with `split = "none"`.
        order: Rank from 0 by modification time, name, then place in the file: later rows win a merge.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    pieces: tuple[Piece, ...]
    order: int

    @property
    def size(self) -> int:
        """Bytes to read."""
        return sum(piece.size for piece in self.pieces)


class Plan(BaseModel):
    """What a run will read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partitions: tuple[Partition, ...] = ()
    warnings: tuple[str, ...] = ()


class _File(NamedTuple):
    modified: float  # the first two fields are the order in which files are loaded
    name: str
    path: str
    size: int


def plan(
    pipeline: Pipeline,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    today: datetime | None = None,
    partition_bytes: int = 32 << 20,
) -> Plan:
    """Return the partitions of a run.

    Args:
        start, end: The run's window.
        today: The moment that `{date}` means where there is no window; None means now.
        partition_bytes: A CSV file of 1.5 times as many bytes is cut into partitions of about this size.

    Raises:
        SourceMissing: No file matches, and `missing` is "fail".
        BadSource: A database can't be reached or asked for its keys.
        ConfigError: The path needs a window, or a parameter has a value that leads elsewhere.
    """
    config = pipeline.extract
    if isinstance(config, SqlExtract):
        from etl.extract.sql import plan_sql

        return Plan(partitions=plan_sql(pipeline, config, start, end))
    if not isinstance(config, CsvExtract):
        piece = Piece(file=config.function, path=config.function)
        return Plan(partitions=(Partition(number=1, pieces=(piece,), order=0),))

    pattern = _pattern(pipeline, config, start, end, today)
    files, growing = _settled(_list(pipeline.root, pattern), config.settle)
    warnings = [f"{file.name} is still growing: left out of this run" for file in sorted(growing)]
    if not files and not growing:
        shown = _unescaped(pattern)
        if config.missing == "fail":
            raise SourceMissing(f"no file matches {shown}{_nearest(pipeline.root, pattern)}", 'or set missing = "ok"')
        return Plan(warnings=(f"no file matches {shown}",) if config.missing == "warn" else ())

    pieces = []
    for file in sorted(files):
        large = config.split == "rows" and file.size > 1.5 * partition_bytes
        cut = _cut(file, config, partition_bytes) if large else None
        pieces.append(cut or [Piece(file=file.name, path=file.path, size=file.size, modified=file.modified)])
    if config.split == "none" and pieces:
        parts = [tuple(piece for cut in pieces for piece in cut)]
    else:
        parts = [(piece,) for cut in pieces for piece in cut]
    partitions = (Partition(number=order + 1, pieces=part, order=order) for order, part in enumerate(parts))
    return Plan(partitions=tuple(partitions), warnings=tuple(warnings))


def _pattern(
    pipeline: Pipeline,
    config: CsvExtract,
    start: datetime | None,
    end: datetime | None,
    today: datetime | None = None,
) -> str:
    zone = ZoneInfo(pipeline.timezone)
    values = {name: str(value) for name, value in {**pipeline.params, "client": pipeline.client}.items()}
    values["date"] = f"{start or today or datetime.now(zone):%Y-%m-%d}"
    for name, moment in (("start", start), ("end", end)):
        if moment is not None:
            local = moment.astimezone(zone) if moment.tzinfo else moment
            values[name] = f"{local:%Y-%m-%d}" if local.time() == datetime.min.time() else f"{local:%Y-%m-%dT%H%M%S}"
            if name == "start":
                values["date"] = f"{local:%Y-%m-%d}"
    for name in placeholders(config.path):
        if name in ("start", "end") and name not in values:
            raise ConfigError(f"{config.path} needs a window: {{{name}}} has no value", "give --start and --end")
        value = values.get(name, "")
        if "/" in value or "\0" in value or value in ("..", "."):
            cure = "give it a value without /, such as the name of a folder or file"
            raise ConfigError(f"{config.path}: the value of {{{name}}} leads to another folder", cure)
    # Filled as text, never as a pattern: a parameter "*" stands for itself.
    return fill(os.path.expanduser(config.path), {name: glob.escape(value) for name, value in values.items()})


def _list(root: str, pattern: str) -> list[_File]:
    files = []
    for match in glob.iglob(pattern, root_dir=root, recursive=True):
        path = os.path.join(root, match)
        try:
            stat = os.stat(path)
        except OSError:
            continue  # gone since it was listed
        if not os.path.isdir(path):
            name = os.path.relpath(path, root)
            name = os.fsencode(path if name.startswith("..") else name).decode(errors="backslashreplace")
            files.append(_File(stat.st_mtime, name, path, stat.st_size))
    return files


def _settled(files: Iterable[_File], settle: float) -> tuple[list[_File], list[_File]]:
    """Wait until no file changes any more; return the files as they are then, and those that never stopped."""
    ready: list[_File] = []
    waiting: list[tuple[_File, float]] = []  # and since when it has been as it is
    now = time.time()
    deadline = time.monotonic() + 10 * settle
    for file in files:
        if now - file.modified >= settle:
            ready.append(file)
        else:
            waiting.append((file, min(file.modified, now)))
    while waiting and time.monotonic() < deadline:
        time.sleep(max(0.0, min(settle / 4, *(since + settle - now for _, since in waiting))))
        now = time.time()
        still = []
        for file, since in waiting:
            try:
                stat = os.stat(file.path)
            except OSError:
                continue  # taken away: it may have been a temporary name
            if (stat.st_mtime, stat.st_size) != (file.modified, file.size):
                file, since = file._replace(modified=stat.st_mtime, size=stat.st_size), now
            if now - since >= settle:
                ready.append(file)
            else:
                still.append((file, since))
        waiting = still
    return ready, [file for file, _ in waiting]


def _cut(file: _File, config: CsvExtract, size: int) -> list[Piece] | None:
    """Cut a file into pieces; None if it must be read from its beginning to its end."""
    from etl.extract.feed import Feed, ascii_compatible
    from etl.extract.head import read_head

    whole = Piece(file=file.name, path=file.path, size=file.size, modified=file.modified)
    try:
        with closing(Feed(whole, config.encoding)) as feed:
            head = read_head(feed, config)
    except (BadSource, SourceMissing):
        return None  # extract says what is wrong
    if feed.compressed or not ascii_compatible(feed.encoding) or not (head.delimiter + config.quote).isascii():
        return None

    from etl import split

    try:
        ranges, version = split.cut(file.path, head.begin, head.delimiter.encode(), config.quote.encode(), size)
    except (split.Unsplittable, OSError):
        return None
    ends = [start for start, _ in ranges[1:]] + [None]
    return [
        whole.model_copy(
            update={
                "start": start,
                "end": end,
                "line": lines + 1,
                "size": (file.size if end is None else end) - start,
                "version": version,
            }
        )
        for (start, lines), end in zip(ranges, ends, strict=True)
    ]


def _unescaped(pattern: str) -> str:
    return _ESCAPED.sub(r"\1", pattern)


def _nearest(root: str, pattern: str) -> str:
    """Return what the nearest folder holds that exists on the way to the pattern's files."""
    folder = root if not os.path.isabs(pattern) else os.sep
    for part in pattern.strip(os.sep).split(os.sep)[:-1]:
        deeper = os.path.join(folder, _unescaped(part))
        if glob.has_magic(_ESCAPED.sub("", part)) or not os.path.isdir(deeper):
            break
        folder = deeper
    try:
        with os.scandir(folder) as entries:
            held = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries)
    except OSError:
        return ""
    name = os.path.relpath(folder, root)
    name = folder if name.startswith("..") else "etl.toml's folder" if name == "." else f"{name}/"
    if not held:
        return f"; {name} is empty"
    return f"; {name} holds {', '.join(held[:5])}" + (f" and {len(held) - 5} more" if len(held) > 5 else "")

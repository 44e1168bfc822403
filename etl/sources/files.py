"""Files of a source, whatever is in them: which there are, whether they still grow, how they are cut and read."""

import glob
import hashlib
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, ClassVar, Literal, Protocol
from zoneinfo import ZoneInfo

from etl.config.base import Problem
from etl.config.columns import named, refuse_other_columns
from etl.config.kinds import SourceConfig, SourceFacts
from etl.config.pipeline import Pipeline
from etl.config.trust import fixed_folder
from etl.config.values import MOMENTS, Seconds, dated_placeholders, fill, header_key
from etl.context import Context
from etl.errors import BadSource, ConfigError, SourceMissing
from etl.partition import ROW_BITS, Chunk, Partition, Piece, Plan
from etl.sources.feed import Feed, Uncuttable
from etl.sources.formats.encodings import ascii_compatible, is_usable
from etl.sources.listing import File, listed, timed

_ESCAPED = re.compile(r"\[([*?[])\]")  # as glob.escape writes them
Cut = tuple[list[tuple[int, int]], str]  # where each range starts and how many lines are before it; the file's sha256


class FileConfig(SourceConfig):
    """Rows come from files."""

    FACTS: ClassVar = SourceFacts(files=True, typed=False, own_code=False, repeatable=True, windows="path", text=True)

    path: str
    encoding: str = "utf-8"
    settle: Seconds = 2.0
    missing: Literal["fail", "warn", "ok"] = "fail"

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        yield from super().problems()
        try:
            if not self.path.strip():
                yield ("path",), 'is empty; name files, such as "inbox/{client}/claims-*.csv"'
            if "\0" in self.path:
                yield ("path",), "has a NUL, which no file's name has; take it out"
            dated_placeholders(self.path)
        except ValueError as error:
            yield ("path",), str(error)
        if not is_usable(self.encoding):
            yield ("encoding",), 'is no text encoding Python knows; use "utf-8", "cp1252", "latin-1" and so on'

    def names(self) -> Iterable[tuple[str, str, str]]:
        """The names in the path."""
        return [("path", name, f"{{{name}}}") for name, _ in dated_placeholders(self.path)]

    def not_windowed(self) -> tuple[str, str] | None:
        """Why every window would read the same files, or None."""
        if set(MOMENTS) & {name for name, _ in dated_placeholders(self.path)}:
            return None
        return ".path names no window: every window would load the same files", "put {date}, {start} or {end} into it"


class Format(Protocol):
    """What a kind of file gives, beside its `Config`; the rest is the same for all of them."""

    def head(self, piece: Piece, pipeline: Pipeline, config: Any) -> Any:
        """Return what a piece's file says of its columns before its rows, with their `names`; else None.

        Without, every chunk may have columns and types of its own, and they are joined when all have been read.
        """

    def cut(self, feed: Feed, pipeline: Pipeline, config: Any, size: int) -> Cut:
        """Return ranges of a file of about `size` bytes that can be read each by itself; else raise Uncuttable."""

    def chunks(self, feed: Feed, pipeline: Pipeline, config: Any, head: Any) -> Iterator[Chunk]:
        """Yield a piece's rows, each `_row` its line in the file, and the rejects."""


def plan(
    format: Format,
    pipeline: Pipeline,
    config: FileConfig,
    moments: tuple[datetime | None, datetime | None, datetime | None],
    partition_bytes: int,
) -> Plan:
    """Return the partitions of a run: the files that its path names, large ones cut."""
    pattern = _path_pattern(pipeline, config, *moments)
    found, warnings = listed(pipeline.root, pattern, fixed_part(pipeline, config, pattern))
    files, growing = _settled(found, config.settle)
    if not files and not growing:
        shown = _unescaped(pattern)
        if config.missing == "fail":
            what = "; ".join([f"no file matches {shown}{_nearby(pipeline.root, pattern)}", *warnings])
            raise SourceMissing(what, 'or set missing = "ok"')
        return Plan(warnings=(*([f"no file matches {shown}"] if config.missing == "warn" else ()), *warnings))

    warnings += [f"{file.name} is still growing: left out of this run" for file in sorted(growing)]
    files, ahead = timed(files)
    warnings += ahead
    pieces = [piece for file in files for piece in _pieces(file, format, pipeline, config, partition_bytes)]
    parts = [tuple(pieces)] if config.split == "none" and pieces else [(piece,) for piece in pieces]
    partitions = (Partition(number=order + 1, pieces=part, order=order) for order, part in enumerate(parts))
    return Plan(partitions=tuple(partitions), warnings=tuple(warnings))


def read(
    format: Format, pipeline: Pipeline, config: FileConfig, partition: Partition, context: Context
) -> Generator[Chunk, None, str]:
    """Yield the chunks of a partition of files; return the sha256 of the bytes read.

    Files read together are joined by column name; a column that a file lacks is null in its rows.
    """
    from etl.sources.join import Spelling, aligned, as_in_source, widened

    digest = hashlib.sha256()
    heads = []
    spelling = Spelling(pipeline)
    for piece in partition.pieces:
        context.pace()
        heads.append(format.head(piece, pipeline, config))

    def chunks() -> Iterator[Chunk]:
        for index, (piece, head) in enumerate(zip(partition.pieces, heads, strict=True)):
            base, most = index << ROW_BITS, pipeline.max_unpacked
            with closing(Feed(piece, config.encoding, digest, base=base, most=most)) as feed:
                found = format.chunks(feed, pipeline, config, head)
                found = as_in_source(found, piece, base) if piece.lines else found
                yield from found if len(heads) == 1 else spelling.chunks(found, piece.file)

    known = [(head.names, piece.file) for head, piece in zip(heads, partition.pieces, strict=True) if head is not None]
    for names, file in known if len(heads) > 1 else ():  # of one, whoever transforms it says so
        refuse_other_columns(named(filter(None, names), pipeline), pipeline, file)
    if len(heads) > 1:
        known = [(spelling.names(names, file), file) for names, file in known]
    names = [name for some, _ in known for name in some]
    warnings = _lacking(known, pipeline) if len(known) > 1 and pipeline.load.mode == "merge" else ()
    for chunk in aligned(chunks(), names) if known else widened(chunks(), pipeline):
        yield chunk._replace(warnings=(*warnings, *chunk.warnings))
        warnings = ()
    return digest.hexdigest()


def _lacking(known: Sequence[tuple[Sequence[str], str]], pipeline: Pipeline) -> tuple[str, ...]:
    """Return a warning for each of some files that are merged together and lacks columns that others have.

    They are counted, not named: of a file without a header, its first row would be named.
    """
    every = [name for names, _ in known for name in names]
    undeclared = {header_key(header) for header, name in named(every, pipeline).items() if name not in pipeline.columns}
    found = []
    for names, file in known:
        if absent := len(undeclared - set(map(header_key, names)) - {""}):
            which = "a column" if absent == 1 else f"{absent:,} columns"
            what = f"{file} lacks {which} of other files that are read with it: its rows empty what the table has there"
            found.append(f'{what}; split = "rows" keeps it')
    return tuple(found)


def _path_pattern(
    pipeline: Pipeline,
    config: FileConfig,
    start: datetime | None,
    end: datetime | None,
    today: datetime | None = None,
) -> str:
    zone = ZoneInfo(pipeline.timezone)
    values = named_values(pipeline)
    given = {"date": start or today or datetime.now(zone), "start": start, "end": end}
    moments = {name: moment.astimezone(zone) if moment.tzinfo else moment for name, moment in given.items() if moment}
    for name, form in dated_placeholders(config.path):
        moment = moments.get(name)
        if name in ("start", "end") and moment is None:
            raise ConfigError(f"{config.path} needs a window: {{{name}}} has no value", "give --start and --end")
        if form is not None:
            values[f"{name}:{form}"] = moments[name].strftime(form)
        elif moment is not None:
            has_time = name != "date" and moment.time() != datetime.min.time()
            values[name] = f"{moment:%Y-%m-%dT%H%M%S}" if has_time else f"{moment:%Y-%m-%d}"
    return filled(config.path, values)


def named_values(pipeline: Pipeline) -> dict[str, str]:
    """Return what the names in a path stand for that are no moments."""
    return {name: str(value) for name, value in {**pipeline.params, "client": pipeline.client}.items()}


def filled(path: str, values: Mapping[str, str]) -> str:
    """Return a path with a value for each name, which is text and never a pattern: a parameter "*" stands for itself.

    Raises:
        ConfigError: A value leads to another folder.
    """
    for name, _ in dated_placeholders(path):
        value = "" if name in MOMENTS else values.get(name, "")
        if "/" in value or "\0" in value or value in ("..", "."):
            cure = "give it a value without /, such as the name of a folder or file"
            raise ConfigError(f"{path}: the value of {{{name}}} leads to another folder", cure)
    return fill(os.path.expanduser(path), {name: glob.escape(value) for name, value in values.items()})


def fixed_part(pipeline: Pipeline, config: FileConfig, pattern: str) -> str:
    """Return the part of a filled pattern that the operator chose: all, or the folders before the first wildcard."""
    if (own := pipeline.inside.get("extract")) is not None:  # the part that may be a link is the operator's
        return fixed_folder(own, pipeline.client)
    if not dated_placeholders(config.path) and not glob.has_magic(_ESCAPED.sub("", pattern)):
        return _unescaped(pattern)
    parts = pattern.split(os.sep)[:-1]
    chosen = next((at for at, part in enumerate(parts) if glob.has_magic(_ESCAPED.sub("", part))), len(parts))
    return _unescaped(os.sep.join(parts[:chosen]) or (os.sep if os.path.isabs(pattern) else ""))


def _settled(files: Iterable[File], settle: float) -> tuple[list[File], list[File]]:
    """Wait until no file changes any more; return the files as they are then, and those that never stopped."""
    ready: list[File] = []
    waiting: list[tuple[File, float]] = []  # and since when it has been as it is
    now = time.time()
    deadline = time.monotonic() + 10 * settle
    for file in files:
        if now - min(file.modified, now) >= settle:
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


def _pieces(file: File, format: Format, pipeline: Pipeline, config: FileConfig, size: int) -> list[Piece]:
    """Return a file's pieces: itself, unless it is large and can be cut."""
    whole = Piece(file=file.name, path=file.path, size=file.size, modified=file.modified)
    if config.split != "rows" or file.size <= 1.5 * size:
        return [whole]
    try:
        with closing(Feed(whole, config.encoding)) as feed:
            if feed.compressed or not ascii_compatible(feed.encoding):
                return [whole]
            ranges, version = format.cut(feed, pipeline, config, size)
    except (BadSource, SourceMissing, Uncuttable, OSError):
        return [whole]  # reading it says what is wrong
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


def _nearby(root: str, pattern: str) -> str:
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

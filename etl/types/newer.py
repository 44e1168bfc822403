"""Which rows a run with a cursor takes, and how far it has come: rows older than the cursor, and rows of the future."""

import re
import time
from collections.abc import Collection
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.columns import ROW, match
from etl.config.pipeline import Pipeline
from etl.config.spellings import Spellings, spelled
from etl.errors import BadSource, ConfigError, MissingColumn
from etl.types.casts import cast
from etl.types.cursor import Cursor, Span, back, bound, cursor_of, is_readable, is_strict, later, placed
from etl.types.normalize import without_nothing
from etl.types.ordered import common_form, is_comparable
from etl.types.spelling import plain
from etl.types.times import INSTANT, localize, read_timestamps
from etl.types.words import natural_word, word_of


class Narrowed:
    """Leaves out the rows of a partition that are loaded already, and of an append those whose time has not come.

    Attributes:
        unchanged: Rows left out because they are loaded.
        future: Rows that were later than the clock when they were read.
    """

    def __init__(self, pipeline: Pipeline, span: Span, file: str) -> None:
        self.pipeline, self.file, self.span = pipeline, file, span
        self.since = back(span.since, pipeline.extract.overlap) if span.since else None
        self.unchanged = self.future = 0
        self._form: str | None = None  # of an undeclared cursor's texts, "" where they are no texts

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the rows of a chunk that are to be loaded.

        Raises:
            MissingColumn: There is no column of the cursor's name.
            BadSource: Its values have no order in time, or are missing where rows are appended.
        """
        found = _values(self.pipeline, rows, self.file)
        if found is None:
            return rows
        values, empty = found
        if empty and is_strict(self.pipeline):
            name = self.pipeline.extract.cursor
            raise BadSource(
                f"{self.file}: cursor column {name} is empty in {empty:,} rows: an append can't place them",
                'fill it in the source, or use mode = "merge" with a key',
            )
        self._check_order(rows, values)
        if self.since is not None and len(values):
            rows, values = self._newer(rows, values)
        if self.span.now is None:
            return rows
        self.future += pc.sum(_after(values, max(self.span.now, time.time()), self.pipeline)).as_py() or 0
        if not is_strict(self.pipeline):
            return rows
        return rows.filter(pc.invert(_after(values, self.span.now, self.pipeline)))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the cursor."""
        name, found = self.pipeline.extract.cursor, []
        if self.future:
            rows, its, it = (
                ("1 row is", "its", "it") if self.future == 1 else (f"{self.future:,} rows are", "their", "them")
            )
            held = f"held back until {its} time has come"
            so = held if is_strict(self.pipeline) else f"the cursor stays before {it}"
            found.append(f"{self.file}: {rows} in the future by cursor column {name}: {so}")
        if self.span.since and self.span.now and is_future(self.span.since, self.span.now, self.pipeline.timezone):
            found.append(STANDS.format(f"{self.pipeline.client}/{self.pipeline.name}", name))
        return tuple(found)

    def _check_order(self, rows: pa.Table, values: pa.ChunkedArray) -> None:
        """Refuse a cursor that nobody declared where its values have no order: text, and text beside numbers."""
        if self.span.now is None or len(values) == values.null_count:
            return
        if cursor_header(self.pipeline, rows.column_names, self.file)[1] in self.pipeline.columns:
            return
        form = common_form(values) if natural_word(values.type) == "string" else ""
        if form is None or self._form not in (None, form):
            raise unordered(self.pipeline, self.file)
        self._form = form
        if form and self.since is not None and not is_comparable(self.since.value, form):
            raise incomparable(self.pipeline, "text of its column's form")

    def _newer(self, rows: pa.Table, values: pa.ChunkedArray) -> tuple[pa.Table, pa.ChunkedArray]:
        assert self.since is not None
        strict, zone = is_strict(self.pipeline), ZoneInfo(self.pipeline.timezone)
        try:
            value = bound(self.since, natural_word(values.type), zone, strict=strict)
            has_zone = word_of(values.type) == "timestamp" and values.type.tz
            least = pa.scalar(placed(value, zone) if has_zone else value, values.type)
        except (ValueError, ArithmeticError, pa.ArrowInvalid, pa.ArrowTypeError):
            raise incomparable(self.pipeline, natural_word(values.type)) from None
        kept = (pc.greater if strict else pc.greater_equal)(values, least)
        kept = pc.fill_null(kept, True)
        self.unchanged += len(values) - pc.sum(kept).as_py()
        return rows.filter(kept), values.filter(kept)


def unordered(pipeline: Pipeline, where: str) -> BadSource:
    """Return the error for a cursor's column that nobody declared, and whose values have no order in time."""
    name = pipeline.extract.cursor
    return BadSource(
        f"{where}: cursor column {name} holds text that is not declared, and is not dates or times of one form alone: "
        "newer rows would never come",
        f'declare columns.{name}: as what it is compared, such as type = "timestamp"; "string" is by code points',
    )


def incomparable(pipeline: Pipeline, word: str) -> ConfigError:
    """Return the error for a cursor that can't be compared with its column."""
    return ConfigError(
        f"the cursor of {pipeline.name} is no {word}, as its column is now",
        f"set it: rq-etl cursor set {pipeline.name} --client {pipeline.client} VALUE, or clear it",
    )


STANDS = (
    "the cursor of {} (column {}) stands in the future: rows before it are not read; "
    "set it back with rq-etl cursor set, or clear it"
)


class Reached:
    """How far the rows of a partition reach that nothing rejected and that are not of the future.

    Attributes:
        latest: The latest value of the cursor's column, or None.
    """

    def __init__(self, pipeline: Pipeline, span: Span, file: str) -> None:
        self.pipeline, self.span, self.file = pipeline, span, file
        self.latest: Cursor | None = None

    def __call__(self, rows: pa.Table, rejected: Collection[int]) -> None:
        """Take in a chunk.

        Args:
            rows: As they were read.
            rejected: Their `_row`s of which a check or a function made rejects.
        """
        if self.span.now is None:
            return
        if rejected:
            rows = rows.filter(pc.invert(pc.is_in(rows[ROW], value_set=pa.array(list(rejected), pa.int64()))))
        found = _values(self.pipeline, rows, self.file)
        if found is None:
            return
        kept = pc.invert(_after(found[0], self.span.now, self.pipeline))
        values = found[0].filter(kept)
        if len(values) == values.null_count:
            return
        greatest = pc.max(values)
        cursor = cursor_of(greatest.as_py())
        if cursor.kind in ("date", "timestamp") and _is_text(self.pipeline, rows):
            # The database compares texts: it is given one that it wrote itself.
            text = plain(rows[cursor_header(self.pipeline, rows.column_names, self.file)[0]]).filter(kept)
            its = Cursor(cursor.kind, text[pc.index(values, greatest).as_py()].as_py().strip())
            cursor = its if is_readable(its) else cursor
        self.latest = later(self.latest, cursor, self.pipeline.timezone)


def is_future(cursor: Cursor, now: float, zone: str) -> bool:
    """Whether a cursor of dates or times, text of them too, stands after a moment.

    Args:
        now: In seconds since the epoch.
        zone: Time zone of dates, and of times that name none.
    """
    if cursor.kind not in ("date", "timestamp", "string") or not re.match(r"\d{4}-\d\d-\d\d", cursor.value):
        return False
    try:
        moment = datetime.fromisoformat(cursor.value)
        return bool(placed(moment, ZoneInfo(zone)).timestamp() > now)
    except (ValueError, OverflowError):
        return False


def _after(values: pa.ChunkedArray, now: float, pipeline: Pipeline) -> pa.ChunkedArray:
    """Say which values are later than a moment; none of what is no date or time."""
    word = word_of(values.type)
    if word == "string":  # text of a database that keeps times as text
        values, word = read_timestamps(values, (), pipeline.timezone), "timestamp"
    if word not in ("date", "timestamp"):
        return pa.chunked_array([pa.nulls(len(values), pa.bool_()).fill_null(False)])
    if word == "date" or values.type.tz is None:
        values = localize(values.cast(pa.timestamp("us"), safe=False), pipeline.timezone, days=word == "date")
    moment = pa.scalar(datetime.fromtimestamp(now, UTC), INSTANT)
    return pc.fill_null(pc.greater(values.cast(INSTANT, safe=False), moment), False)


def cursor_header(pipeline: Pipeline, there: Collection[str], where: str) -> tuple[str, str]:
    """Return the cursor's column in the source, and what the pipeline calls it.

    Args:
        there: The source's columns.
        where: The source, for errors.

    Raises:
        MissingColumn: It has none of that name.
    """
    name = pipeline.extract.cursor or ""
    names = match(there, pipeline, where)
    headers = {column: header for header, column in reversed(names.items())}
    header = name if name in names else headers.get(name)
    if header is None:
        raise MissingColumn(f"{where}: no column {name}, which is the cursor", f"it has {', '.join(list(names)[:20])}")
    return header, names[header]


def _is_text(pipeline: Pipeline, rows: pa.Table) -> bool:
    """Whether a database gives the cursor's column as text."""
    header, _ = cursor_header(pipeline, rows.column_names, "")
    return pipeline.extract.FACTS.windows == "query" and word_of(plain(rows[header]).type) == "string"


def _values(pipeline: Pipeline, rows: pa.Table, file: str) -> tuple[pa.ChunkedArray, int] | None:
    """Return the cursor's column, null where a value is not of its type, and how many are empty; None without one."""
    name = pipeline.extract.cursor
    if name is None or not rows.num_columns or (not rows.num_rows and name not in rows.column_names):
        return None
    header, known = cursor_header(pipeline, rows.column_names, file)
    column = pipeline.columns.get(known)
    its = spelled(column, column.type, pipeline.extract) if column else None
    values = _filled(plain(rows[header]), its or pipeline.extract)
    empty = values.null_count
    # A database compares values of its own type; text, which has none, gets the type that the pipeline declares.
    if its and (pipeline.extract.FACTS.windows != "query" or word_of(values.type) == "string"):
        values = cast(values, its, pipeline.timezone)[0]
    if word_of(values.type) == "boolean":
        raise BadSource(f"{file}: cursor column {name} is a boolean", "name a column that says what is newer")
    return values, empty


def _filled(values: pa.ChunkedArray, spellings: Spellings) -> pa.ChunkedArray:
    """Return values, null where text is blank or stands for nothing: such a row has no place, whatever its type."""
    values = without_nothing(values, spellings)
    if values.type != pa.string():
        return values
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(values), ""), pa.scalar(None, pa.string()), values)

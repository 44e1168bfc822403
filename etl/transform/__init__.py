"""Raw rows to rows for the target, and rejects: columns, checks, the user's functions; no file is opened."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from etl import rejects as etl_rejects
from etl.config.columns import ROW, match, missing, points
from etl.config.models import Column
from etl.config.pipeline import Pipeline
from etl.config.spellings import spelled
from etl.context import Context
from etl.errors import BadSource, ConfigError
from etl.partition import ROW_BITS
from etl.transform.checks import Checker, Unique
from etl.transform.steps import from_frame, load_steps, run_steps, to_frame, undeclared
from etl.types.casts import Failures, cast, only_missing
from etl.types.infer import take
from etl.types.limits import Limits
from etl.types.normalize import without_nothing
from etl.types.spelling import as_text, plain
from etl.types.words import arrow_of, word_of

Rows = npt.NDArray[np.int64]
_LINE = (1 << ROW_BITS) - 1


@dataclass(frozen=True)
class Transformed:
    """What became of the rows of one chunk: rows in + added = rejected + dropped + rows out.

    Args:
        rows: Declared columns in their order, then the others, then `_row`; types as in `etl.types.words`.
        rejects: In the schema of `etl.rejects`, one for each rejected row of the source.
        dropped: Rows that functions left out without rejecting them.
        added: Rows that functions made.
        warnings: What the user should know; each is given once in a partition.
        refused: `_row` of the rejected rows.
    """

    rows: pa.Table
    rejects: pa.Table
    dropped: int = 0
    added: int = 0
    warnings: list[str] = field(default_factory=list)
    refused: frozenset[int] = frozenset()


@dataclass(frozen=True)
class _Reject:
    row: int
    column: str | None
    reason: str
    value: str | None = None
    made: bool = False  # the value is a function's, not the source's


class Transformer:
    """Transforms the chunks of one partition; what must hold across them, it remembers.

    Args:
        files: Names of the partition's files by the piece's index.
        types: For a pipeline without columns, the types of its columns by their name (see `etl.infer`).
        limits: What the table's columns keep: rows that would change there are rejects.

    Raises:
        ConfigError: A function can't be imported.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        context: Context,
        files: Sequence[str],
        types: dict[str, str] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._context = context
        self._files = files or [pipeline.name]
        self._types = types or {}
        self._steps = load_steps(pipeline)
        self._warned: set[str] = set()
        computed = {name: column for name, column in pipeline.columns.items() if column.computed}
        given = {name: column for name, column in pipeline.columns.items() if not column.computed}
        kept = limits or Limits()
        # What functions are given may be more than the table keeps: what counts is what they return.
        before, behind = (Limits(), kept) if self._steps else (kept, Limits())
        self._checks = _Checks(given, [*pipeline.columns], pipeline.timezone, before)
        self._computed_checks = _Checks(computed, [*pipeline.columns], pipeline.timezone, behind)
        if computed and not self._steps:
            name = next(iter(computed))
            raise ConfigError(
                f"pipelines.{pipeline.name}.columns.{name} is computed, but no function makes it",
                "add it to `transform`",
            )

    def apply(self, raw: pa.Table) -> Transformed:
        """Return what becomes of one chunk.

        Functions are called only where there are rows for them.

        Args:
            raw: The source's columns and `_row`.

        Raises:
            BadSource, MissingColumn: The columns aren't those of the pipeline.
            FunctionFailed: A function raised, or returned what it must not.
        """
        file = self._file(int(raw[ROW][0].as_py()) if raw.num_rows else 0)
        names = match(raw.column_names, self._pipeline, file, self._types)
        rows, failures = self._cast(raw, names, file)
        rows, found = self._checks.split(rows, failures)
        dropped = added = 0
        if self._steps and rows.num_rows:
            given = rows[ROW].to_numpy()
            rows, others = self._call(rows)
            before = {reject.row for reject in found}
            others = [other for other in others if other.row not in before]
            dropped, added = _balance(
                given, np.array([*rows[ROW].to_pylist(), *(other.row for other in others)], dtype=np.int64)
            )
            found += others
        elif self._steps:
            rows = self._with_computed(rows)
        if self._lacks_newest(rows):
            rows = rows.add_column(rows.num_columns - 1, str(self._pipeline.load.newest), pa.nulls(rows.num_rows))
        table = self._rejects(raw, names, found)
        refused = frozenset(reject.row for reject in found)
        return Transformed(rows, table, dropped, added, self._warnings(names, file, rows), refused)

    def _cast(self, raw: pa.Table, names: dict[str, str], file: str) -> tuple[pa.Table, dict[str, Failures]]:
        columns, extract, zone = self._pipeline.columns, self._pipeline.extract, self._pipeline.timezone
        headers = {name: header for header, name in names.items()}
        made: dict[str, pa.ChunkedArray] = {}
        failures: dict[str, Failures] = {}
        for name, column in columns.items():
            if column.computed:
                continue
            if name not in headers:
                made[name] = pa.chunked_array([pa.nulls(raw.num_rows, arrow_of(column.type))])
                continue
            made[name], failed = cast(raw[headers[name]], spelled(column, column.type, extract), zone)
            if failed:
                failures[name] = failed
        for header, name in names.items():
            if name in made:
                continue
            if name not in self._types:
                made[name], failed = undeclared(without_nothing(plain(raw[header]), extract), zone)
                if failed:
                    failures[name] = failed
                if raw[header].type == pa.null():  # SQLite knows no type without a value
                    made[name] = raw[header]
                continue
            values = without_nothing(plain(raw[header]), extract)
            made[name], failed = take(values, self._types[name], zone, extract)
            if failed and (values.type != pa.string() or only_missing(failed, zone)):
                failures[name] = failed
            elif failed:
                what = f"{self._shown(header, names)} was taken for {self._types[name]}"
                raise BadSource(
                    f"{file}: {what}, but holds something else now",
                    "the file changed meanwhile: run it again, or declare the column",
                )
        made[ROW] = raw[ROW]
        return pa.table(made), failures

    def _text(self, name: str, values: pa.ChunkedArray, mark: str) -> pa.ChunkedArray:
        """Return a source's values as text: floats of a decimal column as the decimals that they would have been."""
        column, text = self._pipeline.columns.get(name), as_text(values, mark)
        if column is None or column.type != "decimal" or word_of(values.type) != "number":
            return text
        return pc.coalesce(as_text(cast(values, column, self._pipeline.timezone)[0], mark), text)

    def _shown(self, header: str, names: Mapping[str, str]) -> str:
        """Return a column for an error: by its name where etl.toml has it, else by its place."""
        known = {*self._pipeline.rename.values(), *self._pipeline.load.key}
        return f"column {header}" if names[header] in known else f"column {[*names].index(header) + 1}"

    def _call(self, rows: pa.Table) -> tuple[pa.Table, list[_Reject]]:
        """Run the functions, and cast and check again what they return."""
        columns = self._pipeline.columns
        frame, rejected = run_steps(to_frame(rows), self._steps, self._context, columns)
        made, failures, spelled = from_frame(frame, columns, self._pipeline.timezone)
        made, found = self._computed_checks.split(made, failures, spelled)
        by_functions = [_Reject(row, entry.column, entry.reason) for entry in rejected for row in entry.rows]
        first: dict[int, _Reject] = {}
        for reject in [*by_functions, *found]:  # a row of the source is rejected once, whatever functions made of it
            first.setdefault(reject.row, reject)
        return made, list(first.values())

    def _with_computed(self, rows: pa.Table) -> pa.Table:
        """Return no rows, with the columns that functions would have made."""
        empty = {name: pa.nulls(0, arrow_of(column.type)) for name, column in self._pipeline.columns.items()}
        others = {name: rows[name] for name in rows.column_names if name not in empty}
        return pa.table({**empty, **others})

    def _rejects(self, raw: pa.Table, names: dict[str, str], found: list[_Reject]) -> pa.Table:
        if not found:
            return etl_rejects.SCHEMA.empty_table()
        found = sorted(found, key=lambda reject: reject.row)
        places = pc.index_in(pa.array([reject.row for reject in found], pa.int64()), value_set=raw[ROW])
        marks = points(names, self._pipeline)
        some = {header: plain(raw[header].take(places)) for header in names}
        texts = {header: self._text(names[header], some[header], marks.get(header, ".")).to_pylist() for header in some}
        headers = {name: header for header, name in names.items()}
        known = pc.is_valid(places).to_pylist()  # functions may reject rows of their own making
        raws = zip(*texts.values(), strict=True) if texts else iter([()] * len(found))

        def value(reject: _Reject, place: int) -> str | None:
            source = headers.get(reject.column or "")
            return reject.value if reject.made or source is None else texts[source][place]

        return pa.table(
            {
                "file": [self._file(reject.row if here else 0) for reject, here in zip(found, known, strict=True)],
                "row": [reject.row & _LINE if here else None for reject, here in zip(found, known, strict=True)],
                "column": [reject.column for reject in found],
                "value": [value(reject, place) for place, reject in enumerate(found)],
                "reason": [reject.reason for reject in found],
                "raw": [
                    etl_rejects.raw_json(list(texts), row) if here else None
                    for row, here in zip(raws, known, strict=True)
                ],
            },
            schema=etl_rejects.SCHEMA,
        )

    def _lacks_newest(self, rows: pa.Table) -> bool:
        newest = self._pipeline.load.newest
        return newest is not None and newest not in rows.column_names

    def _warnings(self, names: dict[str, str], file: str, rows: pa.Table) -> list[str]:
        absent = missing(names, self._pipeline.columns) if names else []
        found = [f"{file} has no column {name}: loaded as empty" for name in absent]
        newest = self._pipeline.load.newest
        if newest not in self._pipeline.columns and newest in rows.column_names and rows[newest].type == pa.null():
            found.append(f"{file} has no column {newest}, which says what is newest: its rows count as the oldest")
        new = [warning for warning in found if warning not in self._warned]
        self._warned.update(new)
        return new

    def _file(self, row: int) -> str:
        piece = row >> ROW_BITS
        return self._files[piece] if 0 <= piece < len(self._files) else self._files[0]


class _Checks:
    """Separates good rows from bad; where several columns fail, the reject names the first declared."""

    def __init__(self, columns: Mapping[str, Column], order: Sequence[str], zone: str, limits: Limits) -> None:
        self._limits = limits
        self._order = {name: place for place, name in enumerate(order)}
        self._checker = Checker(columns, zone)
        self._unique = {name: Unique() for name, column in columns.items() if column.unique}

    def split(
        self, rows: pa.Table, failures: dict[str, Failures], spelled: Mapping[str, pa.ChunkedArray] | None = None
    ) -> tuple[pa.Table, list[_Reject]]:
        """Return the rows that fit their types and pass, and why each of the others doesn't.

        Args:
            failures: What didn't fit its type.
            spelled: For rows that functions made, the text of columns that didn't fit.
        """
        faults = [
            (self._order.get(name, len(self._order)), name, reason, mask.to_numpy().astype(bool))
            for name, found in failures.items()
            for mask, reason in found
        ]
        faults += [
            (self._order[name], name, reason, mask)
            for name, checked in self._checker.failures(rows).items()
            for mask, reason in checked
        ]
        faults += [
            (self._order.get(name, len(self._order)), name, reason, mask)
            for name, (mask, reason) in self._limits.failures(rows, self._order).items()
        ]
        blamed = np.full(rows.num_rows, -1)
        kinds: list[tuple[str, str]] = []
        for _, name, reason, mask in sorted(faults, key=lambda fault: fault[0]):
            blamed[mask & (blamed < 0)] = len(kinds)
            kinds.append((name, reason))
        for name, unique in self._unique.items():  # last, since only a row that is loaded takes its value
            good = np.flatnonzero(blamed < 0)
            values = rows[name] if len(good) == rows.num_rows else rows[name].take(good)
            blamed[good[unique.repeated(values)]] = len(kinds)
            kinds.append((name, "not unique"))
        bad = np.flatnonzero(blamed >= 0)
        if not len(bad):
            return rows, []
        numbers = rows[ROW].take(bad).to_pylist()
        found = [_Reject(row, *kinds[blamed[place]]) for row, place in zip(numbers, bad, strict=True)]
        if spelled is not None:
            texts = {name: (spelled.get(name) or as_text(rows[name])).take(bad).to_pylist() for name, _ in kinds}
            found = [replace(each, value=texts[str(each.column)][n], made=True) for n, each in enumerate(found)]
        return rows.filter(pa.array(blamed < 0)), found


def _balance(given: Rows, returned: Rows) -> tuple[int, int]:
    """Return how many rows functions dropped and added.

    Args:
        given: `_row` of the rows they were given, each once.
        returned: `_row` of the rows they returned or rejected.
    """
    kept = int(np.isin(given, returned).sum())
    return len(given) - kept, len(returned) - kept

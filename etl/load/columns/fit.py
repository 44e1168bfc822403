"""How rows go into a table: which columns, as which types, and what of the table has to change first."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.types import TypeEngine

from etl.config.pipeline import Pipeline
from etl.config.values import is_header, shown
from etl.errors import BadSource, MissingColumn, TableMismatch
from etl.load import columns, tables
from etl.load.columns import Change, Known
from etl.load.tables import OWN, ROW, Types
from etl.load.targets import kind
from etl.types.lattice import EMPTY, choose, fixed
from etl.types.sql import CastText
from etl.types.words import WORDS, word_of

_FAIL = "type_changes is fail"
BESIDE = 4  # columns that rows are staged with, beside their own; the table itself has up to three
Kinds = Mapping[str, Collection[str]]  # candidates of columns that are not declared


def kind_of(name: str, kind: pa.DataType) -> str:
    """Return the pipeline's word for an Arrow type, or "null" for a column without any value.

    Raises:
        BadSource: No table column can hold it.
    """
    found = word_of(kind)
    if found is None:
        raise BadSource(f"column {name} holds {kind} values, which no table can", "turn it into text in your function")
    return found


@dataclass(frozen=True)
class Fit:
    """How a chunk's columns go into a table.

    Args:
        types: Columns to load, with the type they have there or would be made with.
        words: What values of columns are turned into first, where that is another type than the rows'.
        staged: What columns are then, in the pipeline's words.
        casts: Arrow types to cast columns to, where that is all that is to do.
        made: Words of the columns that are made as `types` says, or would be.
        changes: Columns of the table that must be wider before the rows can go into it.
        warnings: What is left out although it was declared.
        there: The columns that the table has, or None where there is no table.
    """

    types: dict[str, TypeEngine[Any]]
    words: dict[str, str] = field(default_factory=dict)
    staged: dict[str, str] = field(default_factory=dict)
    casts: dict[str, pa.DataType] = field(default_factory=dict)
    made: dict[str, str] = field(default_factory=dict)
    changes: dict[str, Change] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    there: Types | None = None


class Changes(Exception):
    """The table must change before rows are written, in a transaction of its own.

    Args:
        change: Makes the change, and returns which columns are wider now.
    """

    def __init__(self, change: Callable[[sa.Connection], Mapping[str, Change]]) -> None:
        super().__init__("the table changes first")
        self.change = change


def fit(
    connection: sa.Connection,
    pipeline: Pipeline,
    schema: pa.Schema,
    there: Mapping[str, Known] | None,
    kinds: Kinds | None = None,
    zones: Mapping[str, str] | None = None,
) -> Fit:
    """Say how rows go into the pipeline's table, by its types and by `new_columns`.

    Args:
        there: The table's columns, or None where there is no table.
        kinds: Candidates of columns that are not declared, where they are known; else the rows' own types.
        zones: Time zones of clients that share the table.

    Raises:
        TableMismatch: Columns have other types there, or are unknown where `new_columns = "fail"`.
        BadSource: A column can't be a table's, or there are more than a table can have.
        MissingColumn: A column that decides which row wins is not among the rows'.
    """
    facts = kind(connection).FACTS
    fold = tables.folding(connection)
    known = {fold(name): (name, column) for name, column in (there or {}).items()}
    names = [name for name in schema.names if name != ROW]
    quotable = ({*(there or {})} - {*OWN}) | {*pipeline.columns}
    _check_names(names, fold, facts.name_bytes, quotable)
    needed = {*pipeline.load.key, *pipeline.load.by, *filter(None, [pipeline.load.newest])} - {"_file"}
    if missing := sorted(needed - set(names)):
        others = [name for name in names if name in quotable or is_header(names, quotable)]
        more = f"{len(names) - len(others)} other columns" if len(others) < len(names) else ""
        have = ", ".join([*others[:20], *filter(None, [more])])
        error = MissingColumn(f"the rows have no column {missing[0]}, which load needs", f"they have {have}")
        error.add_note(f"They have: {', '.join(names)}")  # in the private file that rq-etl logs shows
        raise error
    fitting = _Fitting(connection, pipeline, schema, kinds or {}, zones if zones and pipeline.shared else {})
    warnings = []
    for name in names:
        if fold(name) in known:
            fitting.meet(name, *known[fold(name)])
            continue
        expected = name in needed or (there is None and (name in pipeline.columns or not pipeline.columns))
        if pipeline.new_columns == "fail" and not expected:
            raise TableMismatch(
                f"table {pipeline.table} has no {shown(name, names, quotable)}, and new_columns is fail",
                f'add the column to the table, or say new_columns = "add" or "ignore" for {pipeline.name}',
            )
        if pipeline.new_columns == "ignore" and not expected:
            if name in pipeline.columns:
                warnings.append(f"table {pipeline.table} has no column {name}: not loaded (new_columns is ignore)")
        else:
            fitting.make(name)
    fitting.refuse()
    made = [name for name in fitting.types if fold(name) not in known]
    if made and (count := len({*known, *made} - set(OWN)) + BESIDE) > facts.columns:
        raise BadSource(
            f"table {pipeline.table} would have {count:,} columns with rq-etl's own, and takes {facts.columns:,}",
            'declare those that you need in [columns], and say new_columns = "ignore"; or look at the delimiter',
        )
    return Fit(
        fitting.types, fitting.words, fitting.staged, fitting.casts, fitting.made, fitting.changes, tuple(warnings),
        None if there is None else {name: column.type for name, column in there.items()},
    )  # fmt: skip


@dataclass(frozen=True)
class _Refused:
    """A column of the table that rows do not go into.

    Args:
        type, wanted: What it is, and what rows need.
        declare: What the pipeline may declare instead, where that is a cure.
        perhaps: What it may declare where the texts mean that.
        change: What its owner may do to it.
    """

    type: str
    wanted: str
    why: str = ""
    change: Change | None = None
    declare: str = ""
    perhaps: str = ""


class _Fitting:
    """The columns of rows, one after another, against those of a table."""

    def __init__(
        self,
        connection: sa.Connection,
        pipeline: Pipeline,
        schema: pa.Schema,
        kinds: Kinds,
        zones: Mapping[str, str],
    ) -> None:
        self.connection, self.pipeline, self.schema, self.kinds = connection, pipeline, schema, kinds
        self.zones = zones
        self.noted: set[str] = set()
        self.database = kind(connection)
        self.types: dict[str, TypeEngine[Any]] = {}
        self.words: dict[str, str] = {}
        self.staged: dict[str, str] = {}
        self.casts: dict[str, pa.DataType] = {}
        self.made: dict[str, str] = {}
        self.changes: dict[str, Change] = {}
        self.refused: dict[str, _Refused] = {}

    def make(self, name: str) -> None:
        """Take a column that the table lacks."""
        wanted = self._word(name)
        if wanted == "null":  # it is made once there is a value, since only that has a type
            if name in self.pipeline.load.by:
                self.types[name], self.staged[name] = self.database.TYPES["string"], EMPTY
            return
        word = wanted
        if name in self.kinds and name not in self.pipeline.columns:
            word = choose(self.kinds[name], exact=self.database.FACTS.exact_decimals)
        self.types[name], self.made[name] = self._type(word), word
        self._turn(name, wanted, word)

    def meet(self, name: str, there: str, known: Known) -> None:
        """Take a column that the table has, under the name `there`."""
        wanted = self._word(name)
        self.noted |= {there} if known.noted else set()
        if wanted == "null":
            self.types[name], self.staged[name] = known.type, known.word
            return
        type: TypeEngine[Any] = known.type
        if isinstance(type, CastText) and wanted == "string":  # the server reads the text
            self.types[name], self.staged[name] = type, "string"
            return
        is_free = name in self.kinds and name not in self.pipeline.columns
        if known.word in self.database.FITS[wanted] and not (known.ours and is_free):
            self._stored(name, wanted, known)
        elif known.word not in (*WORDS, EMPTY) or (known.word == "string" and not known.ours and not is_free):
            odd = known.word not in WORDS and wanted == "string"
            why, change = ("it may change a text", Change("", "string")) if odd else ("", None)
            self.refused[there] = _Refused(str(known.type), wanted, why, change, declare=known.word)
        else:
            self._join(name, there, known, wanted, is_free)

    def _join(self, name: str, there: str, known: Known, wanted: str, is_free: bool) -> None:
        """Take a column whose type in the table is to hold what it has and what is to come."""
        pipeline, word = self.pipeline, known.word
        allowed = known.ours and pipeline.type_changes == "widen" and self.database.FACTS.widens
        if word == EMPTY and not (allowed and columns.is_unused(self.connection, pipeline.table, there, self._key())):
            word = "string"
        kinds = self.kinds[name] if is_free else fixed(wanted)
        final = columns.joined(self.connection, pipeline.table, there, word, kinds)
        if final != word:
            why = declare = shown = ""
            if name in pipeline.columns and final != wanted:
                final, why, shown = "string", f"as declared, and only text holds both {word} and {wanted}", wanted
                declare = "" if known.ours else final  # into text that isn't ours goes only what is declared as text
            elif name == pipeline.load.newest and final == "string" and word != EMPTY:
                why = "it says which row is newest, and text is compared otherwise"
            elif not known.ours:
                why = "rq-etl has not made it"
            elif not allowed:
                why = _FAIL
            if why and word != EMPTY:
                perhaps = name if is_free and word == "boolean" else ""
                shown = shown or final
                self.refused[there] = _Refused(str(known.type), shown, why, Change(word, final), declare, perhaps)
            else:
                self.changes[there] = Change(word, final)
        if final == word == wanted:
            self._stored(name, wanted, known)
            return
        self.types[name] = known.type if isinstance(known.type, CastText) else self._type(final)
        self._turn(name, wanted, final)

    def refuse(self) -> None:
        """Raise if columns have types that the rows don't fit; all of them are named.

        Raises:
            TableMismatch: Some have.
        """
        changes = {name: change for name, change in self.changes.items() if change.old != EMPTY}
        theirs = {name: refused.change for name, refused in self.refused.items() if refused.change is not None}
        both, table = {**changes, **theirs}, self.pipeline.table
        found = columns.dependents(self.connection, table, both, self._key()) if both else {}
        for name in [each for each in changes if each in found]:
            first, *others = found[name]
            why = f"{', '.join([first.what, *(each.what for each in others)])} depend{'' if others else 's'} on it"
            type = str(self.database.TYPES[changes[name].old])
            self.refused[name] = _Refused(type, changes[name].new, why, changes[name])
        if not self.refused:
            return
        wider = {name: refused.change for name, refused in self.refused.items() if refused.change is not None}
        goes = list(dict.fromkeys(each.what for name in wider for each in found.get(name, ()) if each.goes))
        parts = [
            f"column {name}: the table has {refused.type}, the pipeline {refused.wanted}"
            f"{f' ({refused.why})' if refused.why else ''}"
            for name, refused in self.refused.items()
        ]
        cures = [
            f'declare type = "{refused.declare}" for {name} in [columns]'
            for name, refused in self.refused.items()
            if refused.declare in WORDS
        ]
        if odd := [
            name for name, refused in self.refused.items() if not refused.change and refused.declare not in WORDS
        ]:
            cures.append(f"leave out {', '.join(odd)}")
        cure = f"{' and '.join(cures)}, or alter the table"
        if wider:
            statement = columns.statement(self.connection, table, wider, self.zones, self.pipeline.timezone, self.noted)
            todo = (
                f"drop {', '.join(goes)}, alter the table, and make {'them' if goes[1:] else 'it'} again"
                if goes
                else ""
            )
            cure = f"{' and '.join([*cures, todo or 'alter the table'])}: {statement}"
        if all(refused.why == _FAIL for refused in self.refused.values()):
            cure = f'say type_changes = "widen" for a run, or {cure}'
        perhaps = [refused.perhaps for refused in self.refused.values() if refused.perhaps]
        if perhaps:
            said = " and ".join(f'columns.{name}.type = "boolean"' for name in perhaps)
            rest = " and leave the column out, else" if len(self.refused) > len(perhaps) else ", or"
            cure = f"declare {said} where the texts mean yes and no{rest} {cure}"
        raise TableMismatch(f"table {self.pipeline.table}, {'; '.join(parts)}", cure)

    def _key(self) -> list[str]:
        return [*(["_client"] if self.pipeline.shared else []), *self.pipeline.load.key]

    def _word(self, name: str) -> str:
        return kind_of(name, self.schema.field(name).type)

    def _type(self, word: str) -> TypeEngine[Any]:
        return self.database.TYPES["string" if word == EMPTY else word]

    def _turn(self, name: str, wanted: str, word: str) -> None:
        self.staged[name] = word
        if word not in (wanted, EMPTY):
            self.words[name] = word
        elif (to := _fewer_digits(self.schema.field(name).type, self.types[name])) is not None:
            self.casts[name] = to

    def _stored(self, name: str, wanted: str, known: Known) -> None:
        """Stage a column as its own type where the table's holds each of its values as it is."""
        self.types[name], self.staged[name] = self.database.TYPES[wanted], wanted
        if wanted in ("integer", "number") and known.word == "number":
            self.types[name], self.staged[name] = known.type, "number"  # a float of 32 bits is what it becomes there
            if wanted == "integer":
                self.casts[name] = pa.float64()  # which is checked
        elif wanted == "number" and known.word == "decimal":
            # PostgreSQL's own cast of a float has 15 digits.
            self.types[name], self.staged[name] = self.database.TYPES["decimal"], "decimal"
        elif (to := _fewer_digits(self.schema.field(name).type, known.type)) is not None:
            self.casts[name] = to


def _check_names(names: Sequence[str], fold: Callable[[str], str], limit: int, known: Collection[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if not name or len(name.encode()) > limit:
            what = f"the name of {shown(name, names, known)} is empty or longer than {limit} bytes"
            raise BadSource(what, "rename it with [columns] from")
        if name.casefold() in OWN:  # which a table's column may be in any case
            raise BadSource(f"column {name} has the name of a column that rq-etl adds", "rename it with [columns] from")
        if fold(name) in seen:
            what = f"{shown(name, names, known)} differs from another in case only"
            raise BadSource(what, "rename one with [columns] from")
        seen.add(fold(name))


def _fewer_digits(type: pa.DataType, there: TypeEngine[Any]) -> pa.DataType | None:
    """Return the decimals to cast to where a column keeps fewer: the cast refuses what the database would round."""
    scale = there.scale if isinstance(there, sa.Numeric) and not isinstance(there, sa.Float) else None
    if kind_of("", type) == "decimal" and scale is not None and 0 <= scale < type.scale:
        return pa.decimal128(38, scale)
    return None


def lacks(connection: sa.Connection, fit: Fit, wanted: Iterable[str]) -> bool:
    """Whether a table that is there lacks columns, or has some that are too narrow."""
    return fit.there is not None and bool(fit.changes or tables.lacking(connection, fit.there, list(wanted)))

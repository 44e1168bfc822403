"""Changes of tables that are there: before rows are written, in a short transaction of their own.

Whoever asks for a lock on a whole table has all others wait behind it, readers too. So such a transaction gives up soon
and tries again, and it does nothing else.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import sqlalchemy as sa

from etl.config.pipeline import Pipeline
from etl.errors import TRIED_AGAIN, TableMismatch, TargetBusy
from etl.load import columns, tables
from etl.load.columns import Change, Known, names
from etl.load.columns.fit import Changes, Fit
from etl.load.staged import Shadow
from etl.load.targets import kind
from etl.load.targets.connect import transaction
from etl.types.lattice import EMPTY, choose, fixed, is_held, meet
from etl.types.words import WORDS

WAIT, PAUSE = 60.0, 0.25  # seconds: for how long a lock is asked for, and how long others may go first each time
AGAIN = 10  # changes of one load: each of another column, as other loads make a table at the same time
# What a database's own cast may round: PostgreSQL's has 15 digits of a float, and a float has 53 bits.
_ROUNDED = {("number", "decimal"), ("integer", "number")}
T = TypeVar("T")
Locate = Callable[[str, str], str | None]


def changing(
    url: str,
    pipeline: Pipeline,
    once: Callable[[sa.Connection, Sequence[str]], T],
    locate: Locate | None = None,
) -> T:
    """Do something in one transaction, after the changes of the table that it asks for.

    Args:
        once: Called with a connection and warnings; it may raise `Changes` as long as it has written nothing.
        locate: Says in which file and line a value is that does not fit a column's type any more.

    Raises:
        TargetBusy: Others hold the table for too long.
    """
    warnings: list[str] = []
    for _ in range(AGAIN):
        try:
            with transaction(url, pipeline.target.name) as connection:
                return once(connection, warnings)
        except Changes as needed:
            warnings += _warned(pipeline, _patiently(url, pipeline, needed), locate)
    raise TargetBusy(f"table {pipeline.table} is changed by others again and again", TRIED_AGAIN)


def make(
    connection: sa.Connection, pipeline: Pipeline, fit: Fit, own: Collection[str], zones: Mapping[str, str]
) -> dict[str, Change]:
    """Make a table, or the columns that it lacks, and its columns as wide as rows need them; returns what became wider.

    A column that another load has made meanwhile, spelled in another case, is not made twice: rows go into that one.

    Args:
        own: Columns of ours that it has beside them.
    """
    name, text = pipeline.table, kind(connection).TYPES["string"]
    kind(connection).lock(connection, "table", name)
    there = columns.known(connection, name) or {}
    # What another load has changed since is left to the next look.
    changes = {
        column: each for column, each in fit.changes.items() if column in there and there[column].word == each.old
    }
    if changes:
        shared = zones if pipeline.shared else {}
        columns.widen(connection, name, changes, shared, pipeline.timezone)
        columns.remember(connection, name, {column: change.new for column, change in changes.items()})
    types = {**fit.types, **dict.fromkeys(own, text)}
    twins = names.spelled_otherwise(connection, pipeline, there, types)
    types = {column: type for column, type in types.items() if column not in twins}
    lacking = tables.lacking(connection, there, types)
    new = tables.ensure(connection, name, types)
    columns.remember(connection, name, {column: fit.made[column] for column in lacking if column in fit.made}, new=new)
    return changes


def own_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the columns of ours that a pipeline's table has."""
    return ("_client", "_run", "_file") if pipeline.shared else ("_run", "_file")


def join(shadow: Shadow, fit: Fit, kinds: Mapping[str, Collection[str]]) -> Fit:
    """Bring rows that are to be staged and those that are staged to types that both have.

    Args:
        kinds: Candidates of the columns of the rows, where they are known.

    Raises:
        Changes: Another partition has staged such columns meanwhile, spelled in another case.
    """
    connection = shadow.connection
    exact = kind(connection).FACTS.exact_decimals
    differing = _differing(shadow, fit)
    if not shadow.temporary and (differing or set(fit.types) - set(shadow.words)):
        kind(connection).lock(connection, "table", shadow.names[0])  # another partition may be making it
        shadow.exists()
        if names.spelled_otherwise(connection, shadow.pipeline, shadow.types, fit.types):
            raise Changes(lambda _: {})
        differing = _differing(shadow, fit)
    changes: dict[str, Change] = {}
    words, types = dict(fit.words), dict(fit.types)
    for name in differing:
        there, word = shadow.words[name], fit.staged[name]
        mine = kinds.get(name) or fixed(word)
        if word == EMPTY or is_held(mine, there, exact=exact):
            final = there
        elif there == EMPTY:
            final = word
        else:
            both = meet(mine, columns.wider(connection, shadow.names[0], name, there))
            final = choose(both, exact=exact)
        if final != there:
            changes[name] = Change(there, final)
        if final != word:
            words[name] = final
        types[name] = kind(connection).TYPES["string" if final == EMPTY else final]
    shadow.turn(changes)
    return replace(fit, types=types, words=words)


def align(shadow: Shadow, known: Mapping[str, Known] | None, zones: Mapping[str, str]) -> None:
    """Bring staged rows to the types of the table, which another run may have made or changed since.

    Args:
        known: The table's columns, or None where there is no table.
        zones: Time zones of clients that share the table.

    Raises:
        Changes: The table has to change first.
        TableMismatch: It must not.
    """
    connection, pipeline = shadow.connection, shadow.pipeline
    if known is None:
        return
    fold, fits = tables.folding(connection), kind(connection).FITS
    there = {fold(name): (name, column) for name, column in known.items()}
    exact = kind(connection).FACTS.exact_decimals
    turned: dict[str, Change] = {}
    wider: dict[str, Change] = {}
    for name, staged in shadow.words.items():
        if fold(name) not in there or staged not in (*WORDS, EMPTY):
            continue
        column, found = there[fold(name)]
        is_free = found.ours and name not in pipeline.columns  # as `fit` has it: such a column holds what it says only
        is_kept = found.word in fits.get(staged, ()) and (staged, found.word) not in _ROUNDED and not is_free
        if found.word == staged or is_kept:
            continue
        mine = fixed("string") if staged == EMPTY else columns.wider(connection, shadow.names[0], name, staged)
        if (staged == EMPTY and found.word in WORDS) or is_held(mine, found.word, exact=exact):
            turned[name] = Change(staged, found.word)
        else:
            final = columns.joined(connection, pipeline.table, column, found.word, mine)
            allowed = found.ours and pipeline.type_changes == "widen" and kind(connection).FACTS.widens
            if not allowed or found.word not in (*WORDS, EMPTY):
                raise TableMismatch(
                    f"table {pipeline.table}, column {column}: it was made as {found.type} while this run had staged "
                    f"{staged}",
                    "run the pipeline again, or declare the column's type in [columns]",
                )
            wider[column] = Change(found.word, final)
    lacking = tables.lacking(connection, list(known), [*shadow.types, *own_columns(pipeline)])
    if wider or lacking:
        text = kind(connection).TYPES["string"]
        types = {name: shadow.types.get(name, text) for name in lacking}
        made = {name: shadow.words[name] for name in lacking if name in shadow.words}
        fit = Fit(types, made=made, changes=wider, there={name: column.type for name, column in known.items()})
        raise Changes(lambda connection: make(connection, pipeline, fit, (), zones))
    shadow.turn(turned)


def _differing(shadow: Shadow, fit: Fit) -> list[str]:
    return [name for name, word in fit.staged.items() if shadow.words.get(name, word) != word]


def _patiently(url: str, pipeline: Pipeline, needed: Changes) -> Mapping[str, Any]:
    give_up = time.monotonic() + WAIT
    while True:
        try:
            with transaction(url, pipeline.target.name) as connection:
                kind(connection).impatient(connection)
                kind(connection).lock(connection, "table", pipeline.table)  # what it looks at is changed under this
                return needed.change(connection)
        except TargetBusy:
            if time.monotonic() > give_up:
                raise
            time.sleep(PAUSE)


def _warned(pipeline: Pipeline, changes: Mapping[str, Change], locate: Locate | None) -> list[str]:
    found = []
    for column, change in changes.items():
        if change.old == EMPTY:
            continue  # there was no value that could be spelled in another way now
        place = locate(column, change.old) if locate else None
        because = f": {place} has a value that is not of type {change.old}" if place else ""
        found.append(f"table {pipeline.table}, column {column} is {change.new} now and was {change.old}{because}")
    return found

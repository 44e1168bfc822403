"""Types of columns that nobody declared: the same for the same values, in whatever order or pieces they come."""

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from etl.config.columns import ROW, named
from etl.config.models import Column
from etl.config.pipeline import Pipeline
from etl.config.spellings import Spellings, spelled
from etl.types.casts import cast
from etl.types.normalize import usual, without_nothing
from etl.types.spelling import plain
from etl.types.words import TYPES, WORDS, natural_word

_TOO_LONG = r"^-?(?:[0-9]\.?){16}"  # more digits than a float keeps


def candidates(rows: pa.Table, spellings: Spellings | None = None) -> dict[str, list[str]]:
    """Return for each column of a chunk the types that fit every value in it; all of them where there is no value.

    Args:
        spellings: The extract's, which its values are read by.
    """
    given = spellings or Spellings()
    columns = {name: without_nothing(plain(rows[name]), given) for name in rows.column_names if name != ROW}
    return {name: _fitting(values, given) for name, values in columns.items()}


def merge_candidates(many: Iterable[Mapping[str, list[str]]]) -> dict[str, list[str]]:
    """Return the types that fit in every chunk; the chunks' order doesn't matter, nor how rows are cut into them."""
    merged: dict[str, list[str]] = {}
    for each in many:
        for name, kinds in each.items():
            merged[name] = [kind for kind in merged.get(name, WORDS) if kind in kinds]
    return merged


def named_candidates(
    many: Iterable[Mapping[str, list[str]]], pipeline: Pipeline, existing: Iterable[str] = ()
) -> dict[str, list[str]]:
    """Return the types that fit in every partition, by the pipeline's names of the columns.

    A column that partitions spell otherwise is one: as the target spells it, else as the first of them does.

    Args:
        existing: Columns that the target has already.
    """
    spelled, found = list(existing), []
    for each in many:
        names = named(each, pipeline, spelled)
        spelled += names.values()
        found.append({names[header]: kinds for header, kinds in each.items()})
    return merge_candidates(found)


def decide(candidates: Mapping[str, list[str]], existing: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the type of each column: the narrowest that fits, and string where there was no value.

    Args:
        existing: Types that columns have in the target already; a column keeps its own where that fits, so that a
            run with whole numbers only still fits a table of fractions.
    """
    kept = {name: kind for name, kind in (existing or {}).items() if kind in candidates.get(name, [])}
    fresh = {name: "string" if len(kinds) == len(WORDS) else kinds[0] for name, kinds in candidates.items()}
    return fresh | kept


def _fitting(values: pa.ChunkedArray, spellings: Spellings) -> list[str]:
    if values.type != pa.string():
        return list(WORDS) if values.null_count == len(values) else _fitting_typed(values)
    values = pc.unique(values).drop_null()
    values = values.filter(pc.not_equal(values, ""))
    if not len(values):
        return list(WORDS)
    text = pa.chunked_array([values])
    return [kind for kind in WORDS if kind == "string" or (TYPES[kind].infers and _fits(text, kind, spellings))]


def _fits(text: pa.ChunkedArray, kind: str, spellings: Spellings) -> bool:
    column = spelled(Column.model_validate({"type": kind}), kind, spellings)
    text, wrong = usual(text, column)
    if wrong is not None and pc.any(wrong).as_py():
        return False
    if not pc.all(pc.match_substring_regex(text, TYPES[kind].infers)).as_py():
        return False
    if kind == "number":
        return not pc.any(pc.match_substring_regex(text, _TOO_LONG)).as_py()
    # The client's zone isn't known here: a moment must stay within the calendar in all of them.
    zones = {"date": ["UTC"], "timestamp": ["Etc/GMT+12", "Etc/GMT-14"]}.get(kind, [])
    return not any(cast(text, Column.model_validate({"type": kind}), zone)[1] for zone in zones)


def _fitting_typed(values: pa.ChunkedArray) -> list[str]:
    nearest = natural_word(values.type)
    kinds = [*dict.fromkeys((nearest, *TYPES[nearest].wider, "string"))]
    return [kind for kind in kinds if not cast(values, Column.model_validate({"type": kind}), "UTC")[1]]

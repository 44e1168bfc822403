"""Which column of the source is which column of the pipeline."""

from collections.abc import Iterable, Mapping, Sequence
from unicodedata import normalize

from etl.config.base import key_path
from etl.config.models import Column
from etl.config.pipeline import Pipeline
from etl.config.spellings import Spellings, spelled
from etl.config.values import header_key, is_header, trimmed
from etl.errors import BadSource, MissingColumn
from etl.safe_message import printable

ROW = "_row"


def match(headers: Iterable[str], pipeline: Pipeline, file: str, spelled: Iterable[str] = ()) -> dict[str, str]:
    """Return the pipeline's name for each column of the source, and refuse columns that can't be a pipeline's.

    Args:
        headers: The source's columns; `_row` is left out.
        file: Name of the file, for errors.
        spelled: See `named`.

    Raises:
        BadSource: Two columns of the source are the same column of the pipeline.
        MissingColumn: A required column or a column of the load's key isn't there.
    """
    names = named(headers, pipeline, spelled)
    refuse_doubles(names, file)
    _refuse_missing(names, pipeline, file)
    return names


def named(headers: Iterable[str], pipeline: Pipeline, spelled: Iterable[str] = ()) -> dict[str, str]:
    """Return the pipeline's name for each column of the source: the client's `rename`, then `from`, else its own.

    Names are compared trimmed, without case, and however their accents are encoded. A header that another column's
    `from` takes is not the computed column's of its name.

    Args:
        headers: The source's columns; `_row` is left out.
        spelled: How columns that are not declared are written elsewhere, where one file writes them otherwise.
    """
    renames = {header_key(header): column for header, column in pipeline.rename.items()}
    load = pipeline.load
    undeclared = [*load.key, *load.by, load.newest or "", pipeline.extract.cursor or "", *spelled]
    known = {header_key(column): column for column in reversed(undeclared)}
    known |= {header_key(column): column for column, declared in pipeline.columns.items() if declared.computed}
    known |= {header_key(alias): column for column, declared in pipeline.columns.items() for alias in declared.from_}
    known |= {header_key(column): column for column, declared in pipeline.columns.items() if not declared.computed}
    names = {}
    for header in headers:
        if header != ROW:
            column = renames.get(header_key(header), normalize("NFC", trimmed(header)))
            names[header] = known.get(header_key(column), column)
    return names


def points(headers: Iterable[str], pipeline: Pipeline) -> dict[str, str]:
    """Return, by the source's names, the decimal point that numbers of declared columns get where they become text.

    Such text is read as the column's: 1.234 must not become 1234 where texts have points between thousands.
    """
    declared = {header: pipeline.columns.get(name) for header, name in named(headers, pipeline).items()}
    return {header: point(column, pipeline.extract) for header, column in declared.items() if column is not None}


def point(column: Column, extract: Spellings | None = None) -> str:
    """Return the decimal point of a column's text; it is a comma where thousands have points."""
    given = spelled(column, column.type, extract) if extract else column
    return "," if given.thousands == "." else column.decimal


def refuse_doubles(names: Mapping[str, str], file: str) -> None:
    """Refuse columns of a source that are the same column of the pipeline.

    Args:
        names: The pipeline's name for each.
        file: Name of the file, for errors.

    Raises:
        BadSource: There are two.
    """
    first: dict[str, str] = {}
    for header, name in names.items():
        if header_key(name) in first:
            raise BadSource(
                f'{file}: its columns "{printable(first[header_key(name)])}" and "{printable(header)}" are both {name}',
                "take one out of `from` or `rename`, or rename it in the source",
            )
        first[header_key(name)] = header


def missing(names: Mapping[str, str], columns: Mapping[str, Column]) -> list[str]:
    """Return the declared columns that the source doesn't have and no function makes."""
    return [name for name, column in columns.items() if not column.computed and name not in names.values()]


def refuse_other_columns(names: Mapping[str, str], pipeline: Pipeline, file: str) -> None:
    """Refuse a source that has none of the declared columns.

    Raises:
        MissingColumn: It has none.
    """
    absent = missing(names, pipeline.columns)
    if absent and len(absent) == sum(not column.computed for column in pipeline.columns.values()):
        # The header may be a row, of a file without one: it isn't quoted.
        count = f"{len(names)} other columns" if len(names) != 1 else "one other column"
        raise MissingColumn(
            f"{file}: none of the declared columns ({', '.join(absent[:5])}) is in it; its header has {count}",
            "look at the extract's delimiter, encoding, skip and header" + _other_delimiter(list(names)),
        )


def _refuse_missing(names: Mapping[str, str], pipeline: Pipeline, file: str) -> None:
    absent = missing(names, pipeline.columns)
    if not absent or (not names and pipeline.extract.FACTS.files):  # a file without rows may have no columns either
        return
    refuse_other_columns(names, pipeline, file)
    needed = [name for name in absent if pipeline.columns[name].required or name in pipeline.load.key]
    if needed:
        named_so = key_path(("columns", needed[0], "from"))
        error = MissingColumn(
            f"{file}: no column {', '.join(needed)}; its header has {listed(list(names), names.values(), pipeline)}",
            f'if it goes by another name, give it: {named_so} = ["…"], or rename for this client',
        )
        error.add_note(f"Its header: {', '.join(names)}")  # in the private file that rq-etl logs shows
        raise error


def listed(headers: Sequence[str], names: Iterable[str], pipeline: Pipeline) -> str:
    """Return a source's columns for an error: those that may be quoted by their names, and how many others."""
    known = {name for name, column in pipeline.columns.items() if not column.computed} | {*pipeline.load.key}
    pairs = list(zip(headers, names, strict=True))
    shown = headers if is_header([name for _, name in pairs], known) else [h for h, name in pairs if name in known]
    texts = [f'"{printable(header)}"' for header in shown[:20]] + (["…"] if len(shown) > 20 else [])
    others = len(headers) - len(shown)
    return ", ".join([*texts, *([f"{others} other column{'s' if others > 1 else ''}"] if others else [])])


def _other_delimiter(headers: Sequence[str]) -> str:
    if len(headers) == 1:
        for delimiter, written in ((";", ";"), ("\t", "\\t"), ("|", "|"), (",", ",")):
            if delimiter in headers[0]:
                return f'; delimiter = "{written}" or "auto" would split this header'
    return ""

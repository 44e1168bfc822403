"""CSV files: see `blocks` for how they are read, `head` for their first lines, `records` for where records end."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from etl.config.base import Problem
from etl.config.pipeline import Pipeline
from etl.config.values import Header, Whole, header_key
from etl.partition import Chunk, Piece
from etl.sources.feed import Feed, Uncuttable
from etl.sources.files import Cut, FileConfig
from etl.sources.formats.head import Head, read_head
from etl.sources.formats.strict import Dialect

_NO_MARK = ("\r", "\n", "\0", "\ufeff")
_ORDER = ("path", "delimiter", "encoding", "quote", "header", "skip", "settle", "missing")


class Config(FileConfig):
    """Rows come from CSV files."""

    type: Literal["csv"] = "csv"
    delimiter: str = ","
    quote: str = '"'
    header: Header = True
    skip: Whole = 0
    skip_initial_space: Annotated[bool, Field(strict=True)] = False

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        yield from super().problems()
        if self.delimiter != "auto" and (len(self.delimiter) != 1 or self.delimiter in _NO_MARK):
            yield ("delimiter",), 'must be one character, or "auto"'
        if len(self.quote) > 1 or self.quote in (*_NO_MARK, self.delimiter):
            yield ("quote",), 'must be one character that is not the delimiter, or "" for none'
        if self.skip_initial_space and " " in (self.delimiter, self.quote):
            yield ("skip_initial_space",), "would pass over the delimiter or quote, which is a blank; drop one of them"
        if isinstance(self.header, tuple) and len(set(map(header_key, self.header))) < len(self.header):
            yield ("header",), "names a column twice"

    @model_serializer(mode="wrap")
    def _ordered(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The order that pipelines' fingerprints in the targets were made with.
        found: dict[str, Any] = handler(self)
        last = {name: found.pop(name) for name in _ORDER if name in found}
        return found | last


def head(piece: Piece, pipeline: Pipeline, config: Config) -> Head:
    """Return what the first lines of a piece's file say; raises BadSource where they are no header."""
    with closing(Feed(piece, config.encoding, whole=True)) as feed:
        return _read_head(feed, config, pipeline)


def cut(feed: Feed, pipeline: Pipeline, config: Config, size: int) -> Cut:
    """Cut a file at the ends of records."""
    from etl.sources.formats import records

    first = _read_head(feed, config, pipeline)
    if not first.dialect.is_ascii:
        raise Uncuttable
    delimiter, quote = first.dialect.delimiter.encode(), first.dialect.quote.encode()
    return records.cut(feed.piece.path, first.begin, delimiter, quote, size)


def chunks(feed: Feed, pipeline: Pipeline, config: Config, head: Head) -> Iterator[Chunk]:
    """Yield a piece's records, a block at a time."""
    from etl.sources.formats.blocks import read_blocks

    if feed.piece.start == 0:
        _read_head(feed, config, pipeline)
    return read_blocks(feed, head)


def _read_head(feed: Feed, config: Config, pipeline: Pipeline) -> Head:
    places = [name.strip() for name in pipeline.rename]
    places += [name.strip() for column in pipeline.columns.values() for name in column.from_]
    dialect = Dialect(config.delimiter, config.quote, config.skip_initial_space)
    return read_head(feed, dialect, config.header, config.skip, places, declared=bool(pipeline.columns))

"""CSV files: see `blocks` for how they are read, `head` for their first lines, `records` for where records end."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from etl.config.base import Problem
from etl.config.pipeline import Pipeline
from etl.config.values import Header, Whole
from etl.partition import Chunk, Piece
from etl.sources.feed import Feed, Uncuttable
from etl.sources.files import Cut, FileConfig
from etl.sources.formats.head import Head, read_head

_ORDER = ("path", "delimiter", "encoding", "quote", "header", "skip", "settle", "missing")


class Config(FileConfig):
    """Rows come from CSV files."""

    type: Literal["csv"] = "csv"
    delimiter: str = ","
    quote: str = '"'
    header: Header = True
    skip: Whole = 0

    def problems(self) -> Iterable[Problem]:
        """What is wrong with these keys taken together."""
        yield from super().problems()
        if self.delimiter != "auto" and (len(self.delimiter) != 1 or self.delimiter in "\r\n"):
            yield ("delimiter",), 'must be one character, or "auto"'
        if len(self.quote) > 1 or self.quote in ("\r", "\n", self.delimiter):
            yield ("quote",), 'must be one character that is not the delimiter, or "" for none'
        if isinstance(self.header, tuple) and len(set(self.header)) < len(self.header):
            yield ("header",), "names a column twice"

    @model_serializer(mode="wrap")
    def _ordered(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The order that pipelines' fingerprints in the targets were made with.
        found: dict[str, Any] = handler(self)
        last = {name: found.pop(name) for name in _ORDER if name in found}
        return found | last


def head(piece: Piece, config: Config) -> Head:
    """Return what the first lines of a piece's file say; raises BadSource where they are no header."""
    with closing(Feed(piece, config.encoding, whole=True)) as feed:
        return _read_head(feed, config)


def cut(feed: Feed, config: Config, size: int) -> Cut:
    """Cut a file at the ends of records."""
    from etl.sources.formats import records

    first = _read_head(feed, config)
    if not (first.delimiter + config.quote).isascii():
        raise Uncuttable
    return records.cut(feed.piece.path, first.begin, first.delimiter.encode(), config.quote.encode(), size)


def chunks(feed: Feed, pipeline: Pipeline, config: Config, head: Head) -> Iterator[Chunk]:
    """Yield a piece's records, a block at a time."""
    from etl.sources.formats.blocks import read_blocks

    if feed.piece.start == 0:
        _read_head(feed, config)
    return read_blocks(feed, head, config.quote)


def _read_head(feed: Feed, config: Config) -> Head:
    return read_head(feed, config.delimiter, config.quote, config.header, config.skip)

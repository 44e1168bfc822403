"""A function of the user's own as a source: see `frames` for what it may give."""

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from etl.config.kinds import SourceConfig, SourceFacts
from etl.config.pipeline import Pipeline
from etl.config.values import Plain, Reference
from etl.context import Context
from etl.partition import Chunk, Partition, Piece, Plan

if TYPE_CHECKING:
    from datetime import datetime

    from etl.types.cursor import Span


class Config(SourceConfig):
    """Rows come from a function of the user's own."""

    FACTS: ClassVar = SourceFacts(files=False, typed=True, own_code=True, repeatable=False, windows=None)

    type: Literal["function"] = "function"
    function: Reference
    args: Plain = Field({})

    def functions(self) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
        """The function itself."""
        return [("function", self.function, self.args)]


def plan(pipeline: Pipeline, config: Config, window: "tuple[datetime | None, datetime | None]") -> Plan:
    """Return one partition: nobody knows before the function is called what it gives."""
    piece = Piece(file=config.function, path=config.function)
    return Plan(partitions=(Partition(number=1, pieces=(piece,), order=0),))


def read(
    pipeline: Pipeline, config: Config, partition: Partition, context: Context, span: "Span | None"
) -> Generator[Chunk, None, str]:
    """Yield the chunks of what the function gives, `_row` counted from 1; return the sha256 of the content.

    Raises:
        ConfigError: There is no such function, or nothing fills one of its parameters.
        FunctionFailed: It raised, or gave something else than DataFrames and records.
    """
    from etl.sources.frames import call

    return call(pipeline, config.function, config.args, context)

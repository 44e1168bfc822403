"""Lookups: reference tables that a pipeline's functions are given by name, read once per run and process."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property

import pandas as pd
import pyarrow as pa

from etl.config.kinds import SourceConfig
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.errors import BadSource
from etl.partition import Chunk
from etl.transform import Transformer
from etl.transform.steps import to_frame
from etl.types.infer import candidates
from etl.types.lattice import decide, merge_candidates

KEPT = 8  # runs whose lookups a process remembers: clients take turns

Read = Callable[[Pipeline, Context], Iterable[tuple[str, Chunk]]]  # all chunks of a source, each with its file

_read: OrderedDict[tuple[str, int, str], "Lookups"] = OrderedDict()


class Lookups(Mapping[str, pd.DataFrame]):
    """Frames by name. Each call of a function gets its own, so what it changes in one is not seen by the next.

    Args:
        frames: As they were read.
        warnings: What the user should know of how.
    """

    def __init__(self, frames: Mapping[str, pd.DataFrame], warnings: Iterable[str] = ()) -> None:
        self._frames, self.warnings = dict(frames), tuple(warnings)

    @cached_property
    def content(self) -> str:
        """sha256 of all rows, by which a run knows that a file would be shaped otherwise than before."""
        digest = hashlib.sha256()
        for name, frame in sorted(self._frames.items()):
            digest.update(json.dumps([name, len(frame), [[str(c), str(frame[c].dtype)] for c in frame]]).encode())
            for column in frame:
                digest.update(pd.util.hash_pandas_object(frame[column].astype(str), index=False).to_numpy().tobytes())
        return digest.hexdigest()

    def __getitem__(self, name: str) -> pd.DataFrame:
        return self._frames[name].copy(deep=False)  # pandas copies what is written to

    def __iter__(self) -> Iterator[str]:
        return iter(self._frames)

    def __len__(self) -> int:
        return len(self._frames)


def lookups_of(pipeline: Pipeline, context: Context, read: Read, attempt: int) -> Lookups:
    """Return a run's lookups, from this process's memory where it has them; see `read_lookups`.

    Args:
        attempt: Of the run; a retry reads them anew, since one of them may be why the run failed.
    """
    key = (context.run, attempt, pipeline.fingerprint)
    if key not in _read:
        _read[key] = read_lookups(pipeline, context, read)
        while len(_read) > KEPT:
            _read.popitem(last=False)
    _read.move_to_end(key)
    return _read[key]


def read_lookups(pipeline: Pipeline, context: Context, read: Read) -> Lookups:
    """Read a pipeline's lookups.

    A column has the type that the pipeline declares for its name, else the narrowest that fits all values.

    Args:
        read: Reads what a pipeline extracts, such as `etl.sources.read_all`.

    Raises:
        SourceMissing, BadSource, FunctionFailed: One can't be read.
    """
    warnings: list[str] = []
    sources = pipeline.lookups.items()
    return Lookups(
        {name: _frame(pipeline, name, source, context, read, warnings) for name, source in sources}, warnings
    )


def _frame(
    pipeline: Pipeline, name: str, source: SourceConfig, context: Context, read: Read, warnings: list[str]
) -> pd.DataFrame:
    alone: dict[str, object] = {"extract": source, "lookups": {}, "columns": {}, "rename": {}, "transform": ()}
    own = pipeline.inside.get(f"lookups.{name}")
    alone["inside"] = {} if own is None else {"extract": own}
    reading = pipeline.model_copy(update=alone)
    tables, file = [], name
    for file, chunk in read(reading, context):
        if chunk.rejects.num_rows:
            line, reason = chunk.rejects["row"][0].as_py(), chunk.rejects["reason"][0].as_py()
            raise BadSource(f"lookup {name}: {file}, line {line}: {reason}", "fix the file")
        tables += [chunk.rows] if chunk.rows.num_columns else []
        warnings += [f"lookup {name}: {warning}" for warning in chunk.warnings]
    if not tables:
        return pd.DataFrame()
    fitting = merge_candidates(candidates(table, guess=source.FACTS.text) for table in tables)
    declared = {column: pipeline.columns[column].type for column in fitting if column in pipeline.columns}
    types = decide(fitting, declared)
    transformer = Transformer(reading, context, [file], types)
    rows = [transformer.apply(table).rows for table in tables]
    return to_frame(pa.concat_tables(rows, promote_options="permissive")).reset_index(drop=True)

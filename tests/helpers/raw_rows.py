"""Raw rows, a pipeline and its steps in a line, for tests of what becomes of rows."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.rejects import SCHEMA
from etl.transform import Transformed, Transformer
from etl.types.words import TYPES

ARROW_TYPES = {word: type.arrow for word, type in TYPES.items()}

CONTEXT = Context(client="acme", run="r1", params={"factor": 3})


def pipeline(columns: dict[str, Any] | None = None, **keys: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "name": "claims",
            "client": "acme",
            "root": "root",
            "staging": "staging",
            "modules": ("steps",),
            "extract": {"type": "csv", "path": "x.csv"},
            "load": {"target": "w", "table": "claims"},
            "target": {"name": "w", "url": "sqlite:///w.db"},
            "columns": columns or {},
            **keys,
        }
    )


def raw(first: int = 2, /, **columns: Any) -> pa.Table:
    count = len(next(iter(columns.values())))
    arrays = {
        name: pa.array(values, None if any(map(_typed, values)) else pa.string()) for name, values in columns.items()
    }
    return pa.table({**arrays, "_row": pa.array(range(first, first + count), pa.int64())})


def _typed(value: Any) -> bool:
    return value is not None and not isinstance(value, str)


def apply(settled: Pipeline, table: pa.Table, **keys: Any) -> Transformed:
    done = Transformer(settled, CONTEXT, ["x.csv"], **keys).apply(table)
    assert done.rejects.schema == SCHEMA
    assert done.rows.column_names[-1] == "_row"
    assert table.num_rows + done.added == done.rejects.num_rows + done.dropped + done.rows.num_rows
    return done


def rejected(done: Transformed) -> list[tuple[int, str, str, str]]:
    return [(r["row"], r["column"], r["value"], r["reason"]) for r in done.rejects.to_pylist()]


def with_steps(root: Path, code: str, *names: str, columns: dict[str, Any] | None = None, **keys: Any) -> Pipeline:
    (root / "steps.py").write_text(
        f"import pandas as pd\nfrom decimal import Decimal\nfrom etl.transform.reject import reject\n{code}"
    )
    return pipeline(columns, root=str(root), transform=[f"steps:{name}" for name in names or ("f",)], **keys)

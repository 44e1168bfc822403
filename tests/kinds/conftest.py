"""The kinds of targets, one row each: what the suites of this folder go through."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from etl.load.targets import TargetFacts, kind_named
from tests.helpers.deliveries import chunk

MOMENT = datetime(2024, 2, 29, 23, 59, 59, 500, tzinfo=UTC)
EVERY: dict[str, tuple[pa.DataType, Any]] = {
    "string": (pa.string(), "Jürgen \"J\", 066\n\\.\n'x'"),
    "integer": (pa.int64(), -(2**63)),
    "number": (pa.float64(), 0.1),
    "decimal": (pa.decimal128(38, 9), Decimal("12345678901234567890.123456789")),
    "boolean": (pa.bool_(), True),
    "date": (pa.date32(), date(2024, 2, 29)),
    "timestamp": (pa.timestamp("us", tz="UTC"), MOMENT),
}
AS_THEY_ARE = [sample for _, sample in EVERY.values()]
AS_TEXT = [*AS_THEY_ARE[:3], 1.2345678901234567e19, 1, "2024-02-29", "2024-02-29 23:59:59.000500"]


@dataclass(frozen=True)
class Kind:
    """A kind's row in this suite.

    Args:
        url: What gives an empty database: a fixture's name, or a URL with {folder} in it.
        returned: How the values of `EVERY` come back.
    """

    url: str
    returned: list[Any]


KINDS = {
    "sqlite": Kind("sqlite:///{folder}/target.db", AS_TEXT),
    "postgresql": Kind("pg_url", AS_THEY_ARE),
    "duckdb": Kind("duckdb:///{folder}/target.duckdb", AS_THEY_ARE),
}


@pytest.fixture(params=list(KINDS))
def scheme(request: pytest.FixtureRequest) -> str:
    """One kind of target after the other."""
    name: str = request.param
    return name


@pytest.fixture
def url(request: pytest.FixtureRequest, scheme: str, tmp_path: Path) -> str:
    """An empty database of the kind."""
    made = KINDS[scheme].url
    found: str = made.format(folder=tmp_path) if "{" in made else request.getfixturevalue(made)
    return found


@pytest.fixture
def facts(scheme: str) -> TargetFacts:
    """What the kind says of itself."""
    return kind_named(scheme).FACTS


def every_type(value: bool = True) -> pa.Table:
    row = {name: sample if value else None for name, (_, sample) in EVERY.items()}
    return chunk([row], types={name: type for name, (type, _) in EVERY.items()})

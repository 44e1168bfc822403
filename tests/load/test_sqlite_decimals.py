"""Decimals beyond a float's digits, in SQLite, which keeps decimals as floats."""

from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from tests.helpers.deliveries import pipeline
from tests.helpers.nights import Night, Nights, canonical


def test_decimals_that_sqlite_does_not_keep_make_text_whoever_makes_the_column(tmp_path: Path) -> None:
    """Of two files of one run each has its own decimals; then of two nights, in either order, with floats."""
    short, long, odd = pa.array([Decimal("1.5")]), pa.array([Decimal("12345678901234567.25")]), pa.array([0.1 + 0.2])
    for number, nights in enumerate((((short, long),), ((short,), (long,)), ((short,), (odd,)), ((odd,), (short,)))):
        made = pipeline(table="t", columns={"id": {"type": "integer"}} if number == 0 else {})
        runs = Nights(f"sqlite:///{tmp_path}/{number}.db", made)
        for night, files in enumerate(nights):
            for step in runs.steps(Night(night, "acme", [pa.table({"v": file}) for file in files], typed=True)):
                step()
        words, rows = runs.table()
        assert words == {"v": "string"}
        assert {row["v"] for row in rows.values()} == {canonical(str(each[0])) for night in nights for each in night}

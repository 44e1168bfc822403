"""Runs of several clients into one table, step by step, so that a test can put them in any order and mix them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from etl import load as target
from etl.config.pipeline import Pipeline
from etl.context import Context
from etl.load import Delivery
from etl.partition import Partition
from etl.transform import Transformer
from etl.types.infer import candidates, named_candidates
from etl.types.lattice import decide
from tests.helpers.deliveries import connected, partition

ZONES = {"acme": "UTC", "berlin": "Europe/Berlin", "lima": "America/Lima"}


@dataclass(frozen=True)
class Night:
    """One run of a client.

    Args:
        files: Their rows, without ids; each file is a partition.
        typed: Whether the source has types; else all values are text of CSV files.
    """

    number: int
    client: str
    files: Sequence[pa.Table]
    typed: bool = False


class Nights:
    """Runs of several clients into the table of one pipeline."""

    def __init__(self, url: str, pipeline: Pipeline) -> None:
        self.url, self.pipeline = url, pipeline

    def steps(self, night: Night) -> list[Callable[[], None]]:
        """Return what a run does, one step after another: transform and load each file, then finish."""
        made = self.pipeline.model_copy(update={"client": night.client, "timezone": ZONES[night.client]})
        parts = [
            partition(number, file=f"{night.number}-{number}.csv", order=number - 1)
            for number in range(1, len(night.files) + 1)
        ]
        raws = [_raw(night, number) for number in range(len(parts))]
        run, guess = f"r{night.number}", not night.typed and not made.columns
        found = [candidates(_undeclared(raw, made), made.extract, guess=guess) for raw in raws]
        kept: dict[int, tuple[pa.Table, dict[str, list[str]]]] = {}
        decided: list[tuple[dict[str, str], dict[str, list[str]]]] = []

        def transform(part: Partition, raw: pa.Table) -> None:
            if made.columns or not decided:
                existing = target.column_types(made, self.url)
                kinds = named_candidates([found[part.number - 1]] if made.columns else found, made, existing)
                decided.append((decide(kinds, existing, exact=not self.url.startswith("sqlite")), kinds))
            words, kinds = decided[-1]
            context = Context(night.client, run)
            files = [part.pieces[0].file]
            done = Transformer(made, context, files, words, target.limits(made, self.url)).apply(raw)
            assert not done.rejects.num_rows, done.rejects["reason"].to_pylist()
            kept[part.number] = done.rows, json.loads(json.dumps(kinds))

        def load(part: Partition) -> None:
            rows, kinds = kept[part.number]
            delivery = Delivery(made, run, part, f"c{night.number}-{part.number}", len(parts))
            target.load(delivery, iter([rows]), rejected=0, read=rows.num_rows, url=self.url, types=kinds, zones=ZONES)

        def finish() -> None:
            done = [part.number for part in parts]
            read = sum(rows.num_rows for rows in night.files)
            target.finish(made, run, parts, url=self.url, done=done, complete=True, read=read, rejected=0, zones=ZONES)

        transforms = [lambda part=part, raw=raw: transform(part, raw) for part, raw in zip(parts, raws, strict=True)]
        return [*transforms, *(lambda part=part: load(part) for part in parts), finish]

    def table(self) -> tuple[dict[str, str], dict[int, dict[str, Any]]]:
        """Return the types of the table's columns, and by id its rows, free of how values are spelled."""
        with connected(self.url) as connection:
            found = connection.exec_driver_sql(f"SELECT * FROM {self.pipeline.table}").mappings().fetchall()
        words = {name: word for name, word in target.column_types(self.pipeline, self.url).items() if name != "id"}
        rows = {
            int(row["id"]): {
                name: canonical(
                    bool(row[name]) if word == "boolean" else row[name],
                    "UTC" if word == "timestamp" else ZONES[row["_client"]],  # SQLite keeps instants without a zone
                )
                for name, word in words.items()
                if row[name] is not None
            }
            for row in found
        }
        return words, rows


def canonical(value: Any, zone: str = "UTC") -> Any:
    """Return a value free of how numbers, booleans and instants are spelled.

    Args:
        zone: Of what carries none.
    """
    if isinstance(value, bool) or value is None:
        return value if value is None else str(value).lower()
    text = str(value).lower()
    if isinstance(value, str) and text[:1] in "0+" and text[1:2].isdigit():
        return text
    if isinstance(value, datetime | date) or (len(text) >= 10 and text[4:5] == "-" == text[7:8]):
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(text.upper())
        return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(zone))).astimezone(UTC)
    try:
        return Decimal(repr(value) if isinstance(value, float) else text)
    except InvalidOperation:
        return text


def _raw(night: Night, number: int) -> pa.Table:
    rows = night.files[number]
    first = night.number * 1000 + number * 100
    ids = pa.array(range(first, first + rows.num_rows), pa.int64())
    lines = pa.array(range(2, 2 + rows.num_rows), pa.int64())
    return rows.append_column("id", ids if night.typed else ids.cast(pa.string())).append_column("_row", lines)


def _undeclared(raw: pa.Table, pipeline: Pipeline) -> pa.Table:
    return raw.drop_columns([name for name in raw.column_names if name in pipeline.columns])

"""Whether rows are of the days of their delivery: how many values of `expect.period` are outside of its span."""

from collections.abc import Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from etl.calendar.dues import Due
from etl.config.columns import ROW
from etl.config.pipeline import Pipeline
from etl.partition import ROW_BITS
from etl.types.words import word_of


class Period:
    """Counts the values of a partition's rows, from the day of the delivery before to that of this one, both included.

    Attributes:
        counts: By file, how many values there are, and how many are outside.
    """

    def __init__(self, pipeline: Pipeline, due: Due | None, files: Sequence[str]) -> None:
        self.counts: dict[str, list[int]] = {}
        self._name = pipeline.expect.period if pipeline.expect and due else None
        self._files = files
        if due is not None:
            zone = ZoneInfo(pipeline.timezone)
            self._days = due.before, due.day + timedelta(days=1)
            self._moments = tuple(datetime.combine(day, time(), zone) for day in self._days)

    def __call__(self, rows: pa.Table) -> None:
        """Take in a chunk of good rows."""
        if self._name is None or self._name not in rows.column_names:
            return
        values = rows[self._name]
        word = word_of(values.type)
        if word not in ("date", "timestamp"):
            return
        begin, end = (pa.scalar(each, values.type) for each in (self._days if word == "date" else self._moments))
        outside = pc.or_(pc.less(values, begin), pc.greater_equal(values, end))
        # Rows that a function has made are of no file; they count for the first.
        which = pc.fill_null(pc.shift_right(rows[ROW], ROW_BITS), 0) if len(self._files) > 1 else None
        for index, file in enumerate(self._files):
            mine = outside if which is None else outside.filter(pc.equal(which, index))
            if found := len(mine) - mine.null_count:
                counts = self.counts.setdefault(file, [0, 0])
                counts[0] += found
                counts[1] += pc.sum(mine).as_py()

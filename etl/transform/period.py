"""Whether rows are of the days of their delivery: how many values of `expect.period` are outside of its span."""

from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from etl.calendar.dues import Due
from etl.config.pipeline import Pipeline
from etl.types.words import word_of


class Period:
    """Counts the values of a partition's rows, from the day of the delivery before to that of this one, both included.

    Attributes:
        dated, outside: How many values there are, and how many are outside.
    """

    def __init__(self, pipeline: Pipeline, due: Due | None) -> None:
        self.name = pipeline.expect.period if pipeline.expect and due else None
        self.dated = self.outside = 0
        if due is not None:
            zone = ZoneInfo(pipeline.timezone)
            begin, end = due.before, due.day + timedelta(days=1)
            self._days = begin, end
            self._moments = tuple(datetime.combine(day, time(), zone) for day in (begin, end))

    def __call__(self, rows: pa.Table) -> None:
        """Take in a chunk of good rows."""
        if self.name is None or self.name not in rows.column_names:
            return
        values = rows[self.name]
        word = word_of(values.type)
        if word not in ("date", "timestamp"):
            return
        is_day = word == "date"
        begin, end = (pa.scalar(each, values.type) for each in (self._days if is_day else self._moments))
        inside = pc.and_(pc.greater_equal(values, begin), pc.less(values, end))
        dated = len(values) - values.null_count
        self.dated += dated
        self.outside += dated - (pc.sum(inside).as_py() or 0)

"""What is known of the deliveries of a client's pipeline, kept as one file in staging."""

import glob
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from etl.config.pipeline import Pair
from etl.config.values import NAME
from etl.staging import Staging
from etl.staging.place import DELIVERIES, failing_as_staging, filesystem

FORM = 1  # of the file; one of another form is begun anew


@dataclass
class Item:
    """One version of a file: the same name with another size or time is another.

    Args:
        modified: When it was modified, as the file says; moments are in seconds since the epoch.
        seen: When it was first seen, while it still grew perhaps.
        since: When it was first seen with this size and time of modification.
        day: That of the delivery it belongs to; None where it belongs to none.
        named: The date in its name, if any.
        settled: When it was seen not to grow any more.
        is_here: Whether it was there at the last look.
        run: The run that reads it.
        is_known: Whether it was there, and dealt with, before deliveries were looked at: it starts nothing.
        is_marker: Whether it says that a delivery is complete.
    """

    name: str
    size: int
    modified: float
    seen: float
    since: float
    day: str | None = None
    named: str | None = None
    settled: float | None = None
    is_here: bool = True
    run: str | None = None
    is_known: bool = False
    is_marker: bool = False

    @property
    def is_covered(self) -> bool:
        """Whether a run reads it, or has read it."""
        return self.is_known or self.run is not None


@dataclass
class Delivery:
    """What is known of one delivery.

    Args:
        due, until: Its moments, in seconds since the epoch.
        watched: Whether its files were looked at before its grace had ended; else nobody knows when it came.
        came: When it was complete.
        missing: When it was found missing.
        runs: Those that have read some of it, the latest last.
        state, rows, odd: Of the latest.
    """

    day: str
    due: float
    until: float
    watched: bool = True
    came: float | None = None
    missing: float | None = None
    runs: list[str] = field(default_factory=list)
    state: str | None = None
    rows: int | None = None
    odd: list[str] = field(default_factory=list)


@dataclass
class Record:
    """What is known of the deliveries of a client's pipeline.

    Args:
        began: When they were first looked at; moments are in seconds since the epoch.
        looked: When they were looked at last, within a quarter of an hour.
        last: The run of the pipeline that was found last to have ended.
        items: Files, the latest version of each last.
        deliveries: By day.
    """

    began: float
    looked: float
    last: str | None = None
    items: list[Item] = field(default_factory=list)
    deliveries: dict[str, Delivery] = field(default_factory=dict)

    def latest(self) -> dict[str, Item]:
        """Return the latest version of each file, by name."""
        return {item.name: item for item in self.items}

    def of(self, day: str) -> list[Item]:
        """Return all versions of the files of a delivery, markers aside."""
        return [item for item in self.items if item.day == day and not item.is_marker]

    def in_order(self) -> Iterator[Delivery]:
        """Yield the deliveries, the earliest first."""
        yield from (self.deliveries[day] for day in sorted(self.deliveries))


def read(staging: str, client: str, pipeline: str) -> Record | None:
    """Return what is known of a pipeline's deliveries; None where nothing is, or its file is damaged.

    Args:
        staging: The folder of `etl.toml`.

    Raises:
        StagingFailed: It can't be read.
    """
    content = Staging(staging, client, DELIVERIES).read_bytes(_name(pipeline))
    try:
        found = json.loads(content or b"null")
        return _of_json(found) if found and found.pop("form") == FORM else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def write(staging: str, client: str, pipeline: str, record: Record) -> None:
    """Write what is known, in place of what was.

    Raises:
        StagingFailed: It can't be written.
    """
    Staging(staging, client, DELIVERIES).write_json(_name(pipeline), {"form": FORM, **_json_of(record)})


def drop_old(staging: str, configured: Collection[Pair], before: float) -> None:
    """Remove what is known of pipelines that have no deliveries any more, and weren't looked at since a moment.

    Args:
        configured: Those that have.
        before: In seconds since the epoch.

    Raises:
        StagingFailed: Staging can't be read.
    """
    fs, root, local = filesystem(staging)
    pattern = f"{glob.escape(root)}/*/{DELIVERIES}/*.json"
    with failing_as_staging(root):
        found = glob.glob(pattern) if local else fs.glob(pattern)
    for path in found:
        client, _, name = path.split("/")[-3:]
        pipeline = name.removesuffix(".json")
        if NAME.fullmatch(client) and (client, pipeline) not in configured:
            known = read(staging, client, pipeline)
            if known is None or known.looked < before:
                Staging(staging, client, DELIVERIES).remove_files([name])


def version(record: Record) -> str:
    """Return what changes when anything in a record changes but the moment of the last look."""
    text = json.dumps({**_json_of(record), "looked": 0})
    return sha256(text.encode()).hexdigest()[:16]


def trim(record: Record, before: float) -> None:
    """Drop what is older than a moment, in seconds since the epoch, but for files that are still there."""
    last = record.latest()
    record.items = [item for item in record.items if item.seen >= before or (item.is_here and last[item.name] is item)]
    record.deliveries = {day: each for day, each in record.deliveries.items() if each.until >= before}


def _name(pipeline: str) -> str:
    return f"{pipeline}.json"


def _json_of(record: Record) -> dict[str, Any]:
    # Not `asdict`, which copies every value: there may be thousands of files.
    items, deliveries = (
        [vars(item) for item in record.items],
        {day: vars(each) for day, each in record.deliveries.items()},
    )
    return {**vars(record), "items": items, "deliveries": deliveries}


def _of_json(found: dict[str, Any]) -> Record:
    items = [Item(**item) for item in found.pop("items")]
    deliveries = {day: Delivery(**each) for day, each in found.pop("deliveries").items()}
    record = Record(**found, items=items, deliveries=deliveries)
    numbers = [
        record.began,
        record.looked,
        *(item.seen for item in items),
        *(each.until for each in deliveries.values()),
    ]
    if not all(isinstance(number, int | float) for number in numbers):
        raise ValueError("a moment is no number")
    return record

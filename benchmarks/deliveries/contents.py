"""What is in a file, made when it is asked for; and the events that put files where the tool looks."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.deliveries.days import DAY, month_ends
from benchmarks.deliveries.world import MINUTE, Delivery, World

HEADER = b"claim_id,service_date,amount\n"
PORTAL = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Sign in - Secure File Transfer</title></head>
<body><form method="post" action="/login?next=/download/{name}">
<input type="hidden" name="csrf" value="{token}">
<label>User <input name="user"></label> <label>Password <input name="password" type="password"></label>
<button>Sign in</button></form><p>Your session has expired. Please sign in to go on.</p></body></html>
"""


@dataclass(frozen=True, slots=True)
class Content:
    """How to make the bytes of one file."""

    world: World = field(repr=False)
    kind: str
    """rows, header (nothing but the header), empty (0 bytes), html or marker."""
    delivery: Delivery
    """Whose rows: not that of the file itself where an old or another client's content is sent."""
    part: int
    share: float = 1.0
    """Of the rows: the first ones."""
    months: int = 0
    """Added to each service_date."""
    cut: float = 1.0
    """Of the bytes: of a file that is still being written."""

    def make(self) -> bytes:
        """The bytes; the same each time."""
        if self.kind == "rows":
            data = self._rows()
            return data if self.cut == 1 else data[: max(1, int(len(data) * self.cut))]
        if self.kind == "html":
            token = self.world.random(self.delivery.client.index, self.delivery.number, 30 + self.part).bytes(16).hex()
            return PORTAL.format(name=self.delivery.path(self.part).rpartition("/")[2], token=token).encode()
        return HEADER if self.kind == "header" else b""

    @property
    def rows(self) -> int:
        """How many rows it has once it is whole."""
        if self.kind != "rows":
            return 0
        parts = self.delivery.client.parts
        return round(self.share * len(range(self.part, self.delivery.rows, parts)))

    def _rows(self) -> bytes:
        delivery = self.delivery
        client = delivery.client
        count = len(range(self.part, delivery.rows, client.parts))
        rng = self.world.random(client.index, delivery.number, 10 + self.part)
        span = [delivery.previous + DAY * it for it in range((delivery.day - delivery.previous).days + 1)]
        weights = np.array([1.0] * (len(span) - 1) + [0.25])  # of the day itself only the night's are in it
        days = np.sort(rng.choice(len(span), count, p=weights / weights.sum()))[: self.rows]
        amounts = np.clip(rng.lognormal(4.5, 1.0, count), 1, 99_999)[: self.rows]
        texts = [add_months(it, self.months).isoformat() for it in span]
        prefix = f"C{client.index:02}{delivery.number:03}{self.part}"
        lines = (
            f"{prefix}{n:05},{texts[day]},{amount:.2f}\n"
            for n, (day, amount) in enumerate(zip(days.tolist(), amounts.tolist(), strict=True))
        )
        return HEADER + "".join(lines).encode()


def add_months(day: date, months: int) -> date:
    """The same day of another month, or that month's last one."""
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    first = date(year, month + 1, 1)
    return min(first + DAY * (day.day - 1), month_ends(first))


@dataclass(frozen=True, slots=True)
class Event:
    """A file is written: at once, over whatever has that name."""

    at: datetime
    client: str
    pipeline: str
    day: date
    """Of the delivery that its sender means."""
    path: str
    mtime: datetime
    """What its modification time is set to."""
    source: Content
    fault: int | None = None
    """The number of the fault that it is a part of."""
    oddity: str | None = None
    """What is unusual but right about it: rewritten, within the grace, clocks changed."""

    @property
    def name(self) -> str:
        """The file's name without its folders."""
        return self.path.rpartition("/")[2]

    def content(self) -> bytes:
        """Its bytes, made now."""
        return self.source.make()

    def put(self, project: Path) -> None:
        """Write it below the project's folder, in place as an upload does, and set its modification time."""
        path = project / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.content())
        os.utime(path, (self.mtime.timestamp(),) * 2)


def usual(world: World, delivery: Delivery) -> Iterator[Event]:
    """A delivery as it comes when nothing is wrong: each part once, or one of them twice within a few seconds."""
    client = delivery.client
    rng = world.random(client.index, delivery.number, 20)
    twice = int(rng.integers(client.parts)) if rng.random() < 0.03 else None
    within = "clocks changed" if delivery.shifts else "within the grace" if delivery.last > delivery.due else None
    for part, moment in enumerate(delivery.moments):
        if part == twice:
            cut = Content(world, "rows", delivery, part, cut=float(rng.uniform(0.3, 0.8)))
            yield event(world, delivery, part, moment, cut, oddity="rewritten")
            # Not after the marker, which comes ten seconds after the last part at the earliest.
            moment += timedelta(seconds=int(rng.integers(3, 9)))
            yield event(world, delivery, part, moment, oddity="rewritten")
        else:
            yield event(world, delivery, part, moment, oddity=within)


def event(
    world: World,
    delivery: Delivery,
    part: int,
    at: datetime,
    source: Content | None = None,
    fault: int | None = None,
    oddity: str | None = None,
) -> Event:
    """One part of a delivery (its marker where part is `parts`), with its own rows unless told otherwise."""
    client = delivery.client
    if source is None or part == client.parts:
        source = Content(world, "marker" if part == client.parts else "rows", delivery, part)
    rng = world.random(client.index, delivery.number, 21)
    back, ahead = MINUTE * round(float(rng.uniform(60, 1800))), MINUTE * round(float(rng.uniform(2, 840)))
    mtime = {"now": at, "past": at - back, "future": at + ahead}[client.mtimes]
    return Event(at, client.name, client.pipeline, delivery.day, delivery.path(part), mtime, source, fault, oddity)

"""The world of the simulation: the clients with their habits, and each delivery as it would be were nothing wrong.

`SHAPE` makes the clients and never changes between arms; an arm's own seed makes its volumes, moments and rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np

from benchmarks.deliveries.days import DAY, due_days, last_business, month_ends

SHAPE = 20260302
MINUTE = timedelta(minutes=1)
WEEK = (1.6, 1.1, 1.0, 1.0, 0.9, 0.4, 0.5)
"""How much comes on a weekday, Monday first, for one of a usual day."""

NAMES = (
    "acme", "alder", "amber", "anvil", "aspen", "atlas", "basil", "birch", "bolt", "brook",
    "cedar", "cliff", "clover", "cobalt", "coral", "crane", "delta", "dune", "ember", "falcon",
    "fern", "flint", "garnet", "grove", "harbor", "hazel", "heron", "indigo", "ivory", "jasper",
    "juniper", "kestrel", "lakeside", "linden", "maple", "marble", "meadow", "north", "oak", "onyx",
    "opal", "orchid", "pebble", "pine", "quarry", "raven", "ridge", "sable", "slate", "willow",
)  # fmt: skip

HABITS: tuple[tuple[int, str, str | None, str], ...] = (
    (16, "daily", None, "claims"),
    (12, "mon-fri", None, "weekday_claims"),
    (8, "business", "US", "weekday_claims"),
    (8, "business", "DE", "weekday_claims"),
    (1, "1st", None, "monthly_claims"),
    (1, "1st", "DE", "monthly_claims"),
    (1, "1st", None, "monthly_claims"),
    (1, "last business", None, "monthly_claims"),
    (1, "last business", "US", "monthly_claims"),
    (1, "last business", "DE", "monthly_claims"),
)
"""How many clients in fifty, their habit, its calendar, and the pipeline that a user would put them in."""

AMERICA = ("America/New_York", "America/Chicago", "America/Denver", "America/Los_Angeles")
WORLD = (*AMERICA, "Europe/Berlin", "Europe/London", "Asia/Kolkata", "Asia/Tokyo", "Australia/Sydney", "UTC")


@dataclass(frozen=True, slots=True)
class Client:
    """One client: what is agreed with it (the configuration says that), and what it is like (nobody tells the tool)."""

    index: int
    name: str
    pipeline: str
    zone: str
    habit: str
    calendar: str | None
    closed: tuple[date, ...]
    if_closed: str
    due: time
    grace: int
    """In minutes."""
    parts: int
    marker: bool
    naming: str
    """dated (the delivery's day is in the name), same (overwritten each time) or numbered (one more each time)."""
    own_target: bool
    size: int
    """Rows of a usual day."""
    week: tuple[float, ...]
    growth: float
    """Of each day."""
    month_end: str
    """calendar or business: the day on which five times as much comes."""
    mtimes: str
    """now, past (its server keeps the time of the export) or future (its clock is wrong)."""

    @property
    def monthly(self) -> bool:
        """Three deliveries in ninety days: never enough for a history."""
        return self.habit in ("1st", "last business")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery as agreed, and how it would come were nothing wrong. Datetimes are in UTC."""

    client: Client
    number: int
    """Counted for each client from 0."""
    day: date
    previous: date
    due: datetime
    closes: datetime
    """The end of the grace."""
    month_end: bool
    rows: int
    moments: tuple[datetime, ...]
    """When each part comes; the marker's is the last one, where there is a marker."""
    shifts: bool
    """The client's clocks were changed since the previous delivery, or are within the next day."""

    @property
    def first(self) -> datetime:
        """When the first of its files comes."""
        return min(self.moments)

    @property
    def last(self) -> datetime:
        """When it is complete."""
        return max(self.moments)

    def path(self, part: int) -> str:
        """Where a part (from 0; the marker's number is `parts`) is put, from the project's folder."""
        client = self.client
        name = {"dated": f"claims-{self.day:%Y%m%d}", "same": "claims", "numbered": f"claims-{self.number + 1:04}"}
        end = ".done" if part == client.parts else ".csv" if client.parts == 1 else f"-{part + 1}.csv"
        return f"inbox/{client.name}/{name[client.naming]}{end}"


@dataclass(frozen=True)
class World:
    """Clients and their deliveries from `begins` to `ends`."""

    start: date
    days: int
    seed: int
    scale: float
    """1.0 has 200 to 3,000 rows in a usual delivery; less makes all of them smaller."""
    clients: tuple[Client, ...] = field(repr=False)
    deliveries: dict[str, tuple[Delivery, ...]] = field(repr=False)

    @property
    def begins(self) -> datetime:
        """When cron is started; what comes before lies there already."""
        return datetime.combine(self.start, time(), UTC)

    @property
    def ends(self) -> datetime:
        """When the arm is over: no fault closes within the hour before, and all that closes in the one after comes."""
        return self.begins + DAY * self.days

    def random(self, *key: int) -> np.random.Generator:
        """Numbers that depend on this arm's seed and the key alone, in whatever order they are asked for."""
        return np.random.default_rng([self.seed, *key])


def make(start: date = date(2026, 3, 2), days: int = 90, clients: int = 50, seed: int = 1, scale: float = 1.0) -> World:
    """A world; the same one for the same arguments."""
    many = tuple(_clients(clients, start))
    world = World(start, days, seed, scale, many, {})
    for client in many:
        world.deliveries[client.name] = tuple(_deliveries(world, client))
    return world


def _clients(count: int, start: date) -> Iterator[Client]:
    """The clients: from `SHAPE`, so that both arms have the same."""
    rng = np.random.default_rng(SHAPE)
    kinds = [it[1:] for it in HABITS for _ in range(it[0])]
    order = rng.permutation(len(kinds)) if count < len(kinds) else np.arange(len(kinds))
    first = (month_ends(start) + DAY) if start.day > 1 else start
    for index in range(count):
        habit, calendar, pipeline = kinds[int(order[index % len(kinds)])]
        monthly = pipeline == "monthly_claims"
        zones = {"US": AMERICA, "DE": ("Europe/Berlin",)}.get(calendar or "", WORLD)
        kind = rng.choice(["one", "three", "marker"], p=[0.45, 0.3, 0.25])
        naming = str(rng.choice(["dated", "same", "numbered"], p=[0.4, 0.35, 0.25]))
        quarter = int(rng.integers(0, 29))
        closed: tuple[date, ...] = ()
        if_closed = "skip"
        if habit == "1st" and (calendar or index % 4 == 2):
            # The date in a moved delivery's name could be either day's: such clients write none.
            naming, if_closed = "numbered" if naming == "dated" else naming, "previous" if calendar else "next"
            closed = () if calendar else (first,)
        elif habit == "mon-fri" and index % 5 == 0:
            closed = (start + DAY * (39 + index % 7), start + DAY * (67 + index % 7))
        yield Client(
            index=index,
            name=NAMES[index] if index < len(NAMES) else f"client{index:03}",
            pipeline=pipeline,
            zone=str(rng.choice(zones)),
            habit=habit,
            calendar=calendar,
            closed=closed,
            if_closed=if_closed,
            due=time(2 + quarter // 4, 15 * (quarter % 4)),
            grace=int(rng.choice([15, 20, 30, 45, 60, 90])),
            parts=3 if kind == "three" else 1,
            marker=bool(kind == "marker"),
            naming=naming,
            own_target=index % 2 == 0,
            size=round(float(np.exp(rng.uniform(np.log(200), np.log(3000))))),
            week=tuple(round(it * float(rng.uniform(0.95, 1.05)), 3) for it in WEEK),
            growth=round(float(rng.uniform(0.0005, 0.0015)), 5) if rng.random() < 0.3 and not monthly else 0.0,
            month_end=str(rng.choice(["calendar", "business"])),
            mtimes=str(rng.choice(["now", "past", "future"], p=[0.7, 0.2, 0.1])),
        )


def _deliveries(world: World, client: Client) -> Iterator[Delivery]:
    """What a client delivers between the world's begin and an hour after its end."""
    zone = ZoneInfo(client.zone)
    first, last = world.start - 80 * DAY, world.start + (world.days + 3) * DAY
    days = list(due_days(client.habit, client.calendar, client.closed, client.if_closed, first, last))
    number = 0
    for previous, day in pairwise(days):
        due = datetime.combine(day, client.due, zone).astimezone(UTC)
        closes = due + MINUTE * client.grace
        if not world.begins < closes <= world.ends + 60 * MINUTE:
            continue
        offsets = {datetime.combine(day + DAY * it, time(12), zone).utcoffset() for it in (-1, 0, 1)}
        shifts = len(offsets | {datetime.combine(previous, time(12), zone).utcoffset()}) > 1 and not client.monthly
        shifts = shifts or len(offsets) > 1
        end = not client.monthly and _has_month_end(client, previous, day)
        rng = world.random(client.index, number, 0)
        usual = client.size * world.scale * (1 if client.monthly else client.week[day.weekday()])
        usual *= (1 + client.growth) ** max(0, (day - world.start).days) * (5 if end else 1)
        rows = max(12, round(usual * float(rng.uniform(0.9, 1.1))))
        moments = _moments(client, due, closes, shifts, rng)
        yield Delivery(client, number, day, previous, due, closes, end, rows, moments, shifts)
        number += 1


def _has_month_end(client: Client, previous: date, day: date) -> bool:
    """Whether the client's month end is after the previous delivery's day and not after this one's."""
    found = previous + DAY
    while found <= day:
        end = month_ends(found) if client.month_end == "calendar" else last_business(client.calendar, found)
        if found == end:
            return True
        found += DAY
    return False


def _moments(
    client: Client, due: datetime, closes: datetime, shifts: bool, rng: np.random.Generator
) -> tuple[datetime, ...]:
    """When its files come: 10 to 60 minutes before it is due, one in twenty-five within the grace."""
    gaps = [0.0, *sorted(rng.uniform(20, 360, client.parts - 1))]
    marker = [gaps[-1] + float(rng.uniform(10, 90))] if client.marker else []
    gaps = [*(float(it) for it in rng.permutation(gaps)), *marker]
    if shifts:
        begins = due - MINUTE * float(rng.uniform(70, 100))  # whichever hour is meant, this is before it
    elif rng.random() < 0.04:
        room = (closes - due).total_seconds() - 180 - max(gaps)
        begins = due + timedelta(seconds=float(rng.uniform(30, max(60, room))))
    else:
        begins = due - MINUTE * float(rng.uniform(10, 60))
    return tuple((begins + timedelta(seconds=it)).replace(microsecond=0) for it in gaps)

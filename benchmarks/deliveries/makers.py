"""The ten kinds of fault: what comes instead of a delivery, when, and by when it has to be heard."""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np

from benchmarks.deliveries.contents import Content, Event, add_months, event
from benchmarks.deliveries.days import DAY
from benchmarks.deliveries.world import MINUTE, Delivery, World

HEARD_AS = {
    "half": ("odd",),
    "one of three": ("missing", "late", "odd"),
    "early": ("odd",),
    "missing": ("missing", "late"),
    "late": ("late", "missing"),
    "empty": ("odd", "failed", "missing"),
    "resent": ("odd", "missing"),
    "other client": ("odd",),
    "html": ("odd", "failed", "missing"),
    "wrong period": ("odd",),
}
"""The kinds, the hardest to place first, and the kinds of alert that tell a user of it, the best first.

"missing" tells of an empty file, a page or an unchanged one, since the tool may say that such a thing is no delivery.
"""


@dataclass(frozen=True)
class Fault:
    """One planted fault. Datetimes are in UTC."""

    number: int
    client: str
    pipeline: str
    day: date
    """Of the delivery that is wrong; of an early one, its own day, not the one on which it came."""
    kind: str
    variant: str
    moments: tuple[datetime, ...]
    """When its files come; none if none comes."""
    earliest: datetime
    """From here on an alert can be about it: before, nothing was wrong yet."""
    deadline: datetime
    """By here it has to be heard (plus the time that is promised): the grace's end, or its arrival if that is later."""
    at_latest: datetime
    """As the deadline; of an early one, the end of its own delivery's grace: then at least that one is missing."""
    echo_until: datetime
    """Until here the same client's further alerts are echoes of it and not false alarms."""
    heard_as: tuple[str, ...]
    facts: dict[str, float | str] = field(default_factory=dict)


Planted = dict[tuple[str, int], tuple[int, str]]
"""Client and delivery's number: the fault's number and kind."""


def history(world: World, delivery: Delivery, planted: Planted) -> list[int]:
    """The rows of up to eight earlier deliveries on the same weekday that no fault has touched, newest first."""
    client = delivery.client
    touched = set()
    for (name, number), (_, kind) in planted.items():
        if name == client.name:
            touched |= {number, number - 1} if kind == "early" else {number, number + 1} if kind == "late" else {number}
    found = [
        it.rows
        for it in reversed(world.deliveries[client.name][: delivery.number])
        if it.day.weekday() == delivery.day.weekday() and it.number not in touched
    ]
    return found[:8]


@dataclass
class Maker:
    """Makes one fault and its events."""

    world: World
    planted: Planted
    delivery: Delivery
    number: int
    kind: str

    def make(self) -> tuple[Fault, list[Event]]:
        """The fault and its events; the deliveries around it are as usual."""
        delivery, client = self.delivery, self.delivery.client
        self.rng = self.world.random(100, self.number)
        self.variant = ""
        self.facts: dict[str, float | str] = {}
        self.seen_in = delivery
        came = getattr(self, f"_{self.kind.replace(' ', '_')}")()
        bad = [it.at for it in came]
        silent = self.kind in ("missing", "late", "one of three")
        after = next((it for it in self.world.deliveries[client.name] if it.number == delivery.number + 1), None)
        closes = self.seen_in.closes
        fault = Fault(
            number=self.number,
            client=client.name,
            pipeline=client.pipeline,
            day=delivery.day,
            kind=self.kind,
            variant=self.variant,
            moments=tuple(bad),
            earliest=closes if silent else min(bad),
            deadline=closes if silent else max(closes, *bad),
            at_latest=delivery.closes if silent or self.kind == "early" else max(closes, *bad),
            echo_until=max([after.closes if after else self.world.ends, *bad]) + MINUTE * 10,
            heard_as=HEARD_AS[self.kind] + (("missing", "late") if self.kind == "early" else ()),
            facts=self.facts,
        )
        return fault, came

    def _come(self, source: Content | None = None, shift: timedelta = timedelta(), **changes: object) -> list[Event]:
        """All files of the delivery, with its own content but for what is changed."""
        found = []
        for part, at in enumerate(self.delivery.moments):
            made = source or Content(self.world, "rows", self.delivery, part, **changes)  # type: ignore[arg-type]
            found.append(event(self.world, self.delivery, part, at + shift, made, self.number))
        return found

    def _pick(self, *variants: str) -> str:
        self.variant = str(self.rng.choice(variants))
        return self.variant

    def _missing(self) -> list[Event]:
        client = self.delivery.client
        if client.marker and client.naming != "same":
            picked = self._pick("nothing", "nothing", "no marker", "only the marker")
            keep = {"nothing": (), "no marker": (0,), "only the marker": (1,)}[picked]
            return [it for part, it in enumerate(self._come()) if part in keep]
        self.variant = "nothing"
        return []

    def _one_of_three(self) -> list[Event]:
        lost = int(self.rng.integers(3))
        self.variant = f"part {lost + 1}"
        return [it for part, it in enumerate(self._come()) if part != lost]

    def _late(self) -> list[Event]:
        delivery = self.delivery
        after = MINUTE * float(np.exp(self.rng.uniform(np.log(20), np.log(540))))
        shift = (delivery.closes + after - delivery.first).total_seconds() // 1
        self.facts["minutes_after_grace"] = round(after / MINUTE)
        came = self._come(shift=timedelta(seconds=shift))
        if delivery.client.parts == 3 and self._pick("all", "one of three") == "one of three":
            last = int(self.rng.integers(3))
            at = delivery.closes + timedelta(seconds=after.total_seconds() // 1)
            came = [
                event(self.world, delivery, it, moment, None, self.number) for it, moment in enumerate(delivery.moments)
            ]
            came[last] = event(self.world, delivery, last, at, None, self.number)
        return came

    def _empty(self) -> list[Event]:
        return self._instead(str(self.rng.choice(["empty", "header"])))

    def _html(self) -> list[Event]:
        return self._instead("html")

    def _instead(self, kind: str) -> list[Event]:
        """All files, or one of three, have something else than rows in them."""
        parts = self.delivery.client.parts
        one = int(self.rng.integers(3)) if parts == 3 and self.rng.random() < 0.5 else None
        self.variant = f"{kind}, {'all' if one is None else f'part {one + 1} of 3'}"
        return [
            event(
                self.world,
                self.delivery,
                part,
                at,
                Content(self.world, kind if one in (None, part) else "rows", self.delivery, part),
                self.number,
            )
            for part, at in enumerate(self.delivery.moments)
        ]

    def _half(self) -> list[Event]:
        share = float(self.rng.uniform(0.45, 0.55))
        came = self._come(share=share)
        rows = sum(it.source.rows for it in came)
        self.facts["rows"] = rows
        self.facts["of_the_day"] = round(rows / self.delivery.rows, 3)
        self.facts["of_median"] = round(rows / float(np.median(history(self.world, self.delivery, self.planted))), 3)
        return came

    def _resent(self) -> list[Event]:
        client, number = self.delivery.client, self.delivery.number
        back = [
            it
            for it in self.world.deliveries[client.name][max(0, number - 10) : number]
            if (client.name, it.number) not in self.planted
        ]
        source = back[-1] if self.rng.random() < 0.6 else back[int(self.rng.integers(len(back)))]
        self.variant = "the one before" if source.number == number - 1 else f"{number - source.number} before"
        self.facts["of"] = source.day.isoformat()
        return self._from(source)

    def _other_client(self) -> list[Event]:
        mine, latest = self.delivery.client, self.delivery.first - MINUTE * 30
        donors = [
            it
            for many in self.world.deliveries.values()
            for it in many
            if latest - DAY * 1.5 < it.last <= latest
            and it.client.parts == mine.parts
            and it.client.name != mine.name
            and (it.client.name, it.number) not in self.planted
        ]
        source = donors[int(self.rng.integers(len(donors)))]
        self.facts["of"] = f"{source.client.name} {source.day}"
        return self._from(source)

    def _from(self, source: Delivery) -> list[Event]:
        """All files with the content of another delivery's."""
        return [
            event(self.world, self.delivery, part, at, Content(self.world, "rows", source, part), self.number)
            for part, at in enumerate(self.delivery.moments)
        ]

    def _wrong_period(self) -> list[Event]:
        delivery = self.delivery
        months = int(self.rng.choice([-3, -2, -1, -1, 1]))
        while add_months(delivery.day, months) >= delivery.previous and months < 0:
            months -= 1
        while add_months(delivery.previous, months) <= delivery.day and months > 0:
            months += 1
        self.variant = f"{months:+} months"
        return self._come(months=months)

    def _early(self) -> list[Event]:
        """Tomorrow's file comes today, all of it before the first of today's or after the last."""
        delivery = self.delivery
        self.seen_in = today = self.world.deliveries[delivery.client.name][delivery.number - 1]
        length = delivery.last - delivery.first
        room = today.closes - MINUTE * 3 - length - today.last
        self.facts["came_on"] = today.day.isoformat()
        if room > MINUTE * 10 and self._pick("before today's", "after today's") == "after today's":
            begins = today.last + MINUTE * 6 + (room - MINUTE * 6) * float(self.rng.random())
        else:
            self.variant = "before today's"
            begins = today.first - length - MINUTE * float(self.rng.uniform(25, 70))
        return self._come(shift=timedelta(seconds=(begins - delivery.first).total_seconds() // 1))

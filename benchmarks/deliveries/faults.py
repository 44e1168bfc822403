"""Two hundred faults, planted at random, and what nobody could tell from a normal day and is therefore not planted.

Each would pass for a normal day, or for another fault, to anybody who sees the files and their moments alone:

- Half of the rows at a month end: still 2.5 times what usually comes. Half of a client's rows with fewer than five
  earlier deliveries of that weekday that were as they should be, so in the first five weeks and for monthly clients.
- Tomorrow's file, without a date in its name, after today's grace has ended: it is in the span of tomorrow's.
- A missing delivery right after a late one without a date in its name: by its span the late one is the next day's, so
  two faults of one client are at least three deliveries apart (two for monthly ones).
- Another client's content before that client sent it, or sent again from there: then the rightful owner looks like the
  one who is wrong. Ours is a faultless delivery that was complete half an hour before.
- Content sent again of a delivery that was itself faulty: there is no knowing which of the two is meant.
- A delivery without its marker where yesterday's marker of the same name still lies there; a marker alone where
  yesterday's file does.
- Rows of another month that the delivery's own dates reach: whole months are added until no date is within.
- Anything on a day about which clocks are changed: due at 02:30 is then ambiguous or does not exist.

Not left out, and hard: with `change = "50%"` a file that has 45 to 55 % of its rows is on either side of what the user
asked for. `Fault.facts["of_median"]` says what share of the weekday's median (of up to eight) it has.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks.deliveries.contents import Event
from benchmarks.deliveries.makers import HEARD_AS, Fault, Maker, Planted, history
from benchmarks.deliveries.world import MINUTE, Client, Delivery, World

FIRST_WEEKS = 5
"""Before them there is no history."""


def plant(world: World, count: int = 200) -> tuple[list[Fault], Planted, list[Event]]:
    """Faults, where they are, and the events that take the place of those deliveries' usual ones."""
    rng = world.random(99)
    kinds = [kind for index, kind in enumerate(HEARD_AS) for _ in range(count // 10 + (index < count % 10))]
    planted: Planted = {}
    for number, kind in enumerate(kinds):
        found = next((it for it in _anywhere(world, rng) if _fits(world, it.client, it, kind, planted)), None)
        if found is None:
            raise ValueError(f"no room for fault {number} ({kind}) in {len(world.clients)} clients x {world.days} days")
        planted[found.client.name, found.number] = (number, kind)
    faults, events = [], []
    for (name, place), (number, kind) in planted.items():
        fault, came = Maker(world, planted, world.deliveries[name][place], number, kind).make()
        faults.append(fault)
        events += came
    return sorted(faults, key=lambda it: (it.deadline, it.number)), planted, events


def _anywhere(world: World, rng: np.random.Generator) -> Iterator[Delivery]:
    """All deliveries in a random order: first any client, then any day of it, so that monthly ones have their share."""
    for index in rng.permutation(len(world.clients)):
        many = world.deliveries[world.clients[int(index)].name]
        yield from (many[int(it)] for it in rng.permutation(len(many)))


def _fits(world: World, client: Client, delivery: Delivery, kind: str, planted: Planted) -> bool:
    """Whether a fault of this kind can be here: at most one a week, apart from others, tellable."""
    many = world.deliveries[client.name]
    number = delivery.number
    if delivery.shifts or delivery.closes > world.ends - MINUTE * 60:
        return False
    week = (delivery.day - world.start).days // 7
    for other in (it for name, it in planted if name == client.name):
        if abs(other - number) < (2 if client.monthly else 3) or (many[other].day - world.start).days // 7 == week:
            return False
    if kind == "one of three" and client.parts != 3:
        return False
    if kind == "early" and (client.monthly or number < 2 or many[number - 1].shifts):
        return False
    if kind in ("resent", "other client") and number < 1:
        return False
    if kind == "half" and (week < FIRST_WEEKS or client.monthly or delivery.month_end):
        return False
    trial = {**planted, (client.name, number): (-1, kind)}
    halves = [it for (name, it), (_, what) in trial.items() if name == client.name and what == "half"]
    return all(len(history(world, many[it], trial)) >= 5 for it in halves)

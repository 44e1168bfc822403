"""The plan of a simulation: fifty clients' deliveries over ninety days, with 200 planted faults or with none.

`faulty()` and `clean()` are the two arms; `python benchmarks/deliveries/plan.py --summary` counts what is in them. It
was written without a look at how the tool decides what is missing, late or odd: none of its code may be imported here.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.deliveries.config import ENVIRONMENT, config_text
from benchmarks.deliveries.contents import Content, Event, usual
from benchmarks.deliveries.faults import plant
from benchmarks.deliveries.makers import HEARD_AS, Fault, Planted
from benchmarks.deliveries.world import Client, Delivery, World, make

__all__ = ["ENVIRONMENT", "Client", "Content", "Delivery", "Event", "Fault", "Plan", "World", "clean", "faulty"]

START = date(2026, 3, 2)


@dataclass(frozen=True)
class Plan:
    """One arm: its world, its faults, and the events that the runner plays."""

    world: World
    faults: tuple[Fault, ...] = ()
    planted: Planted = field(default_factory=dict, repr=False)
    bad: tuple[Event, ...] = field(default=(), repr=False)

    @property
    def begins(self) -> datetime:
        """When cron is to be started, in UTC; earlier events lie there already."""
        return self.world.begins

    @property
    def ends(self) -> datetime:
        """When the arm is over, in UTC."""
        return self.world.ends

    def events(self) -> list[Event]:
        """All files that are written, in order of time; what is in them is made when it is asked for."""
        found = list(self.bad)
        for delivery in self.deliveries():
            if (delivery.client.name, delivery.number) not in self.planted:
                found += usual(self.world, delivery)
        return sorted(found, key=lambda it: (it.at, it.path))

    def deliveries(self) -> Iterator[Delivery]:
        """All deliveries that are due, client by client."""
        for many in self.world.deliveries.values():
            yield from many

    def config(self, change: str = "50%") -> str:
        """etl.toml; ENVIRONMENT names what it takes from the environment."""
        return config_text(self.world, change)

    def blamed(self, client: str, pipeline: str, at: datetime) -> Fault | None:
        """The fault that an alert about a client at a moment is about, or an echo of; None is a false alarm."""
        for fault in self.faults:
            if (fault.client, fault.pipeline) == (client, pipeline) and fault.earliest <= at <= fault.echo_until:
                return fault
        return None


def faulty(
    start: date = START, days: int = 90, clients: int = 50, faults: int = 200, seed: int = 1, scale: float = 1.0
) -> Plan:
    """The arm with planted faults."""
    world = make(start, days, clients, seed, scale)
    found, planted, events = plant(world, faults)
    return Plan(world, tuple(found), planted, tuple(events))


def clean(start: date = START, days: int = 90, clients: int = 50, seed: int = 2, scale: float = 1.0) -> Plan:
    """The arm in which nothing is wrong: the same clients, other volumes, moments and rows."""
    return Plan(make(start, days, clients, seed, scale))


def summary(plan: Plan) -> Iterator[str]:
    """What is in an arm."""
    events = plan.events()
    files = [it for it in events if it.source.kind != "marker"]
    whole = [it for it in files if it.source.cut == 1]
    world = plan.world
    yield f"{plan.begins:%Y-%m-%d} to {plan.ends:%Y-%m-%d}, seed {world.seed}: {len(world.clients)} clients"
    yield f"  deliveries {sum(1 for _ in plan.deliveries()):,}, of them month ends x5 " + str(
        sum(it.month_end for it in plan.deliveries())
    )
    yield f"  files {len(whole):,}, markers {len(events) - len(files):,}, rows {sum(it.source.rows for it in whole):,}"
    counts = Counter(it.oddity for it in events if it.oddity)
    counts["clock of the past"] = sum(it.mtime < it.at for it in events)
    counts["clock of the future"] = sum(it.mtime > it.at for it in events)
    yield "  unusual but right: " + ", ".join(f"{key} {value:,}" for key, value in sorted(counts.items()))
    kinds = Counter(it.kind for it in plan.faults)
    yield f"  faults {len(plan.faults)}" + "".join(f"\n    {it:13} {kinds[it]:3}" for it in HEARD_AS if it in kinds)
    shares = sorted(float(it.facts["of_median"]) for it in plan.faults if it.kind == "half")
    if shares:
        over = sum(it > 0.5 for it in shares)
        yield f"  half of the rows: {shares[0]:.0%} to {shares[-1]:.0%} of the weekday's median, {over} over 50 %"


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--summary", action="store_true", help="what is in both arms")
    parser.add_argument("--faults", action="store_true", help="each fault in a line")
    parser.add_argument("--config", action="store_true", help="the etl.toml")
    parser.add_argument("--start", type=date.fromisoformat, default=START)
    parser.add_argument("--seed", type=int, default=1, help="of the faulty arm; the clean one has the next")
    parser.add_argument("--scale", type=float, default=1.0, help="of all volumes")
    given = parser.parse_args()
    plan = faulty(given.start, seed=given.seed, scale=given.scale)
    if given.faults:
        for it in plan.faults:
            print(f"{it.deadline:%Y-%m-%d %H:%M} {it.client:9} {it.day} {it.kind:13} {it.variant}", it.facts or "")
    if given.config:
        print(plan.config(), end="")
    if given.summary or not (given.faults or given.config):
        print(
            "\n".join(["faulty arm:", *summary(plan), "clean arm:", *summary(clean(given.start, seed=given.seed + 1))])
        )


if __name__ == "__main__":
    main()

"""How often `expect.change` is wrong: what it calls odd and is not, and deliveries of half the rows that it lets pass.

50 clients deliver for 90 days, with weekdays from 0.4 to 1.6 of a usual day, five times as much at the month end (in
calendar or business days), some growth and some noise; one in a hundred is halved. It is the rule alone, without files.

    python benchmarks/usual.py
"""

import sys
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from etl.calendar.days import Days
from etl.calendar.usual import LEAST, unusual

DAY = timedelta(days=1)
WEEK = (1.6, 1.1, 1.0, 1.0, 0.9, 0.4, 0.5)
HABITS = (Days("daily"), Days("daily"), Days("mon-fri"), Days("business", "US"))


@dataclass
class Counts:
    """Deliveries, and what the rule said of them."""

    clean: int = 0
    false: int = 0
    halved: int = 0
    missed: int = 0
    too_early: int = 0


def arm(seed: int, start: date, noise: float, growth: float, halved: float, *, normal: bool = False) -> Counts:
    """Judge one arm's deliveries, each by those before it.

    Args:
        noise: How far rows differ from the usual: evenly up to this share, or as its standard deviation (`normal`).
        growth: In 30 days, at most.
        halved: Share of the deliveries that have half of their rows.
    """
    rng, counts = np.random.default_rng(seed), Counts()
    for client in range(50):
        days, earlier = HABITS[client % len(HABITS)], dict[date, int]()
        week = np.array(WEEK) * rng.uniform(0.95, 1.05, 7)
        size, grows, in_business_days = np.exp(rng.uniform(5.3, 8)), rng.uniform(0, growth), rng.random() < 0.5
        for day in days.between(start, start + 89 * DAY):
            rows = size * week[day.weekday()] * (1 + grows) ** ((day - start).days / 30)
            rows *= 5 if _has_month_end(days, day, in_business_days) else 1
            rows *= np.exp(rng.normal(0, noise)) if normal else rng.uniform(1 - noise, 1 + noise)
            is_halved = rng.random() < halved
            came = max(12, round(rows)) // (2 if is_halved else 1)
            said = unusual(day, came, earlier, 0.5, days)
            is_early = sum(other.weekday() == day.weekday() for other in earlier) < LEAST
            counts.clean += not is_halved
            counts.false += bool(said) and not is_halved
            counts.halved += is_halved
            counts.too_early += is_halved and is_early
            counts.missed += is_halved and not said and not is_early
            earlier[day] = came
    return counts


def _has_month_end(days: Days, day: date, in_business_days: bool) -> bool:
    """Whether a month has ended since the delivery before."""
    each = (days.before(day) or day - DAY) + DAY
    while each <= day:
        end = (each.replace(day=1) + 31 * DAY).replace(day=1) - DAY
        while in_business_days and not days.is_business(end):
            end -= DAY
        if each == end:
            return True
        each += DAY
    return False


def main() -> None:
    """Print a line for each kind of noise and growth, over eight arms."""
    print("| noise | growth in 30 days | deliveries | false alarms | halved | missed | of them before the fifth |")
    print("|---|---|---|---|---|---|---|")
    for normal, noise in ((False, 0.1), (False, 0.15), (False, 0.2), (True, 0.08), (True, 0.1)):
        for growth in (0.0, 0.1):
            arms = [
                arm(seed, start, noise, growth, halved, normal=normal)
                for seed in range(2)
                for start in (date(2026, 3, 2), date(2026, 8, 20))
                for halved in (0.0, 0.01)
            ]
            total = [sum(getattr(each, name) for each in arms) for name in Counts.__dataclass_fields__]
            clean, false, halved_, missed, early = total
            kind = f"sd {noise:.0%}" if normal else f"±{noise:.0%}"
            print(f"| {kind} | {growth:.0%} | {clean:,} | {false} | {halved_} | {missed} | {early} |")


if __name__ == "__main__":
    main()

"""Clients that deliver and run, a day after another, so that a test sees what is said of a delivery."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from redis import Redis

from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

FIRST = date(2026, 9, 7)  # a Monday
DAY = timedelta(days=1)
COLUMNS = {"id": "string", "service_date": "date", "seen": "timestamp"}
DELIVERY = {"due": "06:30", "days": "mon-fri", "grace": "45m"}


def claims(rows: int, day: date, *, start: int = 0, text: str = "") -> str:
    lines = [f"{text or day}-{number},{day},{day}T23:30:00" for number in range(start, start + rows)]
    return "\n".join(["id,service_date,seen", *lines, ""])


class Nights:
    """A project whose clients deliver and run, a day after another."""

    def __init__(self, root: Path, connection: Redis, url: str) -> None:
        self.project, self.url = QueuedProject(root, connection, ""), url

    def configure(self, expect: Mapping[str, Any] | None = None, delivery: Any = DELIVERY, **more: Any) -> None:
        pipeline: dict[str, Any] = {"columns": COLUMNS, "extract": {"path": "inbox/{client}/**/*.csv"}, **more}
        pipeline |= {"expect": expect} if expect else {}
        pipeline |= {"delivery": delivery} if delivery else {}
        clients = {"acme": {"timezone": "America/Chicago"}, "north": {}}
        self.project.config(etl_toml({"claims": pipeline}, clients, url=self.url))

    def deliver(self, name: str, content: str | bytes, client: str = "acme") -> Path:
        return self.project.write(f"inbox/{client}/{name}", content)

    def run(self, day: date, client: str = "acme", **options: Any) -> dict[str, Any]:
        """Run for the delivery of a day, as its schedule at 07:00 would."""
        due = datetime(day.year, day.month, day.day, 13, tzinfo=UTC)
        return self.project.record(
            self.project.run(client, **({"due": due} if "start" not in options else {}), **options)
        )

    def come(self, day: date, rows: int, client: str = "acme", *, stays: bool = False) -> dict[str, Any]:
        """Have a file come and loaded; it is taken away afterwards."""
        path = self.deliver(f"{day}.csv", claims(rows, day, text=f"{client}-{day}"), client)
        found = self.run(day, client)
        if not stays:
            path.unlink()
        return found

    def weeks(self, number: int, rows: int = 10, *, stays: bool = False) -> date:
        """Have a delivery each Monday for so many weeks; return the Monday after."""
        for week in range(number):
            assert self.come(FIRST + 7 * week * DAY, rows, stays=stays)["odd"] == []
        return FIRST + 7 * number * DAY

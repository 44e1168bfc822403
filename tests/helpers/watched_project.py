"""A project whose deliveries are looked at, at the moments that a test says, on a Redis."""

import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from redis import Redis

from jobs import settings
from jobs.deliveries import poll, record
from jobs.deliveries.listing import listing
from jobs.store import runs
from tests.helpers.project import etl_toml
from tests.helpers.queued_project import QueuedProject

ZONE = ZoneInfo("America/Chicago")
ROWS = "claim_id,amount\n{0},1\n"


def config(
    delivery: Mapping[str, Any] | None = None,
    *,
    path: str = "inbox/{client}/claims-{date:%Y%m%d}*.csv",
    mode: str = "merge",
    clients: Any = ("acme",),
    **more: Any,
) -> str:
    """Return an etl.toml with deliveries of claims at 06:30 with 45 minutes of grace."""
    load = {"mode": mode} | ({"key": ["claim_id"]} if mode == "merge" else {})
    columns = {"claim_id": "string", "amount": "decimal"}
    expected = {"due": "06:30", "grace": "45m", "run": "on arrival", **(delivery or {})}
    claims = {"extract": {"path": path, "settle": "2s"}, "load": load, "columns": columns, "delivery": expected, **more}
    return etl_toml({"claims": claims}, clients, defaults={"pipelines": ["claims"], "timezone": ZONE.key})


class WatchedProject(QueuedProject):
    """A project of client acme, from 05:30 on Thursday, 26 November 2026, on."""

    def __init__(self, root: Path, connection: Redis, config: str) -> None:
        super().__init__(root, connection, config)
        (root / "inbox/acme").mkdir(parents=True, exist_ok=True)
        self.now = datetime(2026, 11, 26, 5, 30, tzinfo=ZONE)

    def at(self, text: str) -> datetime:
        """Let it be a moment: `06:15`, or `26 06:15` in November, or `2026-12-01 06:15`."""
        day, _, clock = text.rpartition(" ")
        date = f"2026-11-{day}" if day.isdigit() else day or f"{self.now:%Y-%m-%d}"
        self.now = datetime.fromisoformat(f"{date}T{clock}").replace(tzinfo=ZONE)
        return self.now

    def drop(self, name: str, content: str | None = None, client: str = "acme", age: float = 60) -> Path:
        """Have a file come, last written `age` seconds ago."""
        path = self.write(f"inbox/{client}/{name}", ROWS.format(name) if content is None else content)
        modified = self.now.timestamp() - age
        os.utime(path, (modified, modified))
        return path

    def look(self, text: str = "") -> None:
        """Look at all deliveries, at a moment."""
        if text:
            self.at(text)
        poll.look_at_all(settings.config(), self.connection, self.now)

    def looks(self, until: str, every: float = 60) -> None:
        """Look every minute until a moment."""
        begin, end = self.now, self.at(until)
        while begin < end:
            begin += timedelta(seconds=every)
            poll.look_at_all(settings.config(), self.connection, min(begin, end))

    def lines(self, **options: Any) -> list[dict[str, Any]]:
        """Return what `rq-etl deliveries` would."""
        return listing(settings.config(), self.connection, now=self.now, **options)

    def line(self, day: str = "26", client: str = "acme") -> dict[str, Any]:
        """Return one delivery."""
        whole = f"2026-11-{day}" if day.isdigit() else day
        [line] = [line for line in self.lines() if line["day"] == whole and line["client"] == client]
        return line

    def known(self, client: str = "acme") -> record.Record:
        """Return what is known in staging."""
        found = record.read(settings.staging(), client, "claims")
        assert found is not None
        return found

    def runs(self, **wanted: Any) -> list[dict[str, Any]]:
        """Return all runs, oldest first."""
        return list(runs.search(self.connection, **wanted))[::-1]

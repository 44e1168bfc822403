"""What a storm is run on: files with dirty rows, the configuration, and the truth, by csv and pandas alone."""

import csv
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd

PIPELINES = ("visits", "claims", "stock")  # append, merge, replace
COLUMNS = ("id", "day", "amount", "status", "updated_at", "net")
LONG_AGO = 1_700_000_000

CONFIG = """
[settings]
staging = "staging"
modules = ["storm_steps"]
[targets.warehouse]
url = "{url}"
[defaults]
pipelines = ["visits", "claims", "stock"]
max_active = 4
{pipelines}
{clients}
"""
CRON = """
[clients.cron]
pipelines = ["nightly"]
schedule = { nightly = { cron = "* * * * *", catchup = "all" } }
"""
PIPELINE = """
[pipelines.{name}]
extract = {{ type = "csv", path = "inbox/{{client}}/{name}/{{round}}/*.csv", settle = 0 }}
transform = ["storm_steps:tidy"]
load = {{ target = "warehouse", table = "{name}", {how} }}
retries = 5
retry_delays = [1, 2, 5, 10, 20]
timeout = "2m"
[pipelines.{name}.columns]
id = {{ type = "string", required = true }}
day = {{ type = "date" }}
amount = {{ type = "decimal", min = 0 }}
status = {{ type = "string", allowed = ["OPEN", "PAID", "VOID"] }}
updated_at = {{ type = "timestamp" }}
net = {{ type = "decimal", computed = true }}
"""
HOW = {
    "visits": 'mode = "append"',
    "claims": 'mode = "merge", key = ["id"], newest = "updated_at"',
    "stock": 'mode = "replace"',
}
STEPS = """
import random, time

def tidy(df):
    time.sleep(random.random() * {drag})  # so that there is something to kill
    df = df[df["status"].fillna("") != "VOID"].copy()
    df["net"] = df["amount"] * 2
    return df
"""


@dataclass
class Counts:
    """The rows of one run by what must become of them."""

    read: int = 0
    rejected: int = 0
    dropped: int = 0
    good: int = 0


@dataclass
class Truth:
    """What the tables must hold.

    Args:
        appended: Rows of `visits`, with their file.
        merged: Rows of `claims` and `nightly` by pipeline, client and id.
        replaced: Rows of `stock` by client.
        counts: By client, pipeline and round.
    """

    appended: Counter[tuple[Any, ...]] = field(default_factory=Counter)
    merged: dict[tuple[str, str, str], tuple[Any, ...]] = field(default_factory=dict)
    replaced: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    counts: dict[tuple[str, str, int], Counts] = field(default_factory=dict)

    def add(self, folder: Path, client: str, pipeline: str, round: int) -> None:
        """Take the files of a round that will be loaded next."""
        counts = self.counts[client, pipeline, round] = Counts()
        winners: dict[str, tuple[Any, ...]] = {}
        rows: list[tuple[Any, ...]] = []
        files = sorted(_inbox(folder, client, pipeline, round).iterdir(), key=lambda file: (file.stat().st_mtime, file))
        for file in files:
            frame, read = _read(file)
            kept = frame[_is_good(frame)]
            open_ = kept[kept["status"].fillna("") != "VOID"]
            counts.read += read
            counts.rejected += read - len(kept)
            counts.dropped += len(kept) - len(open_)
            counts.good += len(open_)
            for row in open_.itertuples(index=False):
                shaped = (
                    client,
                    row.id,
                    row.day,
                    Decimal(row.amount),
                    row.status,
                    row.updated_at,
                    Decimal(row.amount) * 2,
                )
                if pipeline == "visits":
                    self.appended[(*shaped, str(file.relative_to(folder)))] += 1
                elif pipeline == "stock":
                    rows.append(shaped)
                elif row.id not in winners or row.updated_at >= winners[row.id][5]:
                    winners[row.id] = shaped
        if pipeline == "stock":
            self.replaced[client] = rows
        for id, shaped in winners.items():
            there = self.merged.get((pipeline, client, id))
            if there is None or shaped[5] >= there[5]:
                self.merged[pipeline, client, id] = shaped

    def table(self, pipeline: str) -> Counter[tuple[Any, ...]]:
        """Return the rows that a table must hold."""
        if pipeline == "visits":
            return self.appended
        if pipeline != "stock":
            return Counter(row for (name, _, _), row in self.merged.items() if name == pipeline)
        return Counter(row for rows in self.replaced.values() for row in rows)


def write_project(folder: Path, url: str, clients: list[str], drag: float) -> None:
    """Write etl.toml and its functions."""
    pipelines = "".join(PIPELINE.format(name=name, how=how) for name, how in HOW.items())
    names = "".join(f"[clients.{name}]\n" for name in clients)
    # Started by rqscheduler every minute; its files do not change.
    nightly = PIPELINE.format(name="nightly", how=HOW["claims"]).replace("{round}", "1")
    names += (
        '[clients.cron]\npipelines = ["nightly"]\nschedule = { nightly = { cron = "* * * * *", catchup = "all" } }\n'
    )
    text = CONFIG.format(url=url, pipelines=pipelines + nightly, clients=names)
    folder.joinpath("etl.toml").write_text(text)
    folder.joinpath("storm_steps.py").write_text(STEPS.format(drag=drag))


def deliver(folder: Path, dice: random.Random, client: str, pipeline: str, round: int, files: int, rows: int) -> None:
    """Write the files of a round, one row in ten of them dirty."""
    inbox = _inbox(folder, client, pipeline, round)
    inbox.mkdir(parents=True)
    for number in range(files):
        lines = ["id,day,amount,status,updated_at"]
        for row in range(rows):
            id = f"r{round}-{number}-{row}" if pipeline == "visits" else f"k{dice.randrange(files * rows // 2)}"
            cells = [
                id,
                f"2026-{dice.randrange(1, 13):02d}-{dice.randrange(1, 29):02d}",
                f"{dice.randrange(10**6) / 100:.2f}",
                dice.choice(("OPEN", "OPEN", "PAID", "PAID", "VOID")),
                f"2026-01-{dice.randrange(1, 29):02d} {dice.randrange(24):02d}:00:00",
            ]
            dirt = dice.randrange(60)
            if dirt < 6:
                spoiled = {0: (0, ""), 1: (2, "12;x"), 2: (2, "-5.00"), 3: (3, "LOST"), 4: (1, "someday")}
                place, cell = spoiled.get(dirt, (4, f"{cells[4]},too,many"))
                cells[place] = cell
            lines.append(",".join(cells))
        file = inbox / f"part-{number:03d}.csv"
        file.write_text("\n".join(lines) + "\n")
        moment = LONG_AGO + round * 1000 + number
        os.utime(file, (moment, moment))


def _inbox(folder: Path, client: str, pipeline: str, round: int) -> Path:
    return folder / "inbox" / client / pipeline / str(round)


def _read(file: Path) -> tuple[pd.DataFrame, int]:
    """Return a file's rows as text, and how many there are; rows with too many cells are counted and left out."""
    with file.open(newline="") as lines:
        header, *rows = csv.reader(lines)
    frame = pd.DataFrame([row for row in rows if len(row) == len(header)], columns=header, dtype="str")
    return frame.replace("", None), len(rows)


def _is_good(frame: pd.DataFrame) -> "pd.Series[bool]":
    good = frame["id"].notna()
    good &= frame["day"].fillna("").str.fullmatch(r"\d{4}-\d\d-\d\d")
    good &= frame["amount"].fillna("").str.fullmatch(r"\d+\.\d\d")
    return good & frame["status"].isin(["OPEN", "PAID", "VOID"])

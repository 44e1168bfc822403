"""Writes the demo's folder: three clients' claims, all invented, with mistakes in known places."""

import csv
import io
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

KINDS = {  # of mistakes, and the column that a reject names; None where the row has no fields to speak of
    "ragged row": None,
    "stray quote": None,
    "bad date": "service_date",
    "bad amount": "amount",
    "negative amount": "amount",
    "unknown status": "status",
    "missing id": "claim_id",
    "duplicate id": "claim_id",
    "overpaid": "paid",
}
MISTAKES = 0.0015  # of a client's rows, for each kind
LAST_DAY = datetime(2025, 2, 10, 6, 0)  # no clock changes in the months before

PAYERS = ("Blue Prairie Health", "Evergreen Mutual", "Lakes & Plains, Inc.", " Harbor Care ", "State Plan", "")
PAYERS_DE = ("Nordkasse", "Allgemeine Müller & Söhne", "Grüne Hilfe", " Landeskasse ", "Zuschuß; Pauschale", "")
NOTES = ("", "", "", "follow-up visit", "knee, left", 'patient says "better"', "called twice\nno answer", "NA", "0012")
NOTES_DE = (
    "",
    "",
    "",
    "Nachuntersuchung",
    "Knie; links",
    'Befund "unauffällig"',
    "zweimal angerufen\nniemand da",
    "50 €",
)

Row = dict[str, str]


@dataclass(frozen=True)
class Planted:
    """One mistake: the file from etl.toml's folder, the physical line (the header is 1), the column, the kind."""

    file: str
    line: int
    column: str | None
    kind: str


@dataclass
class FileTruth:
    """What is in one file: rows read, rows that a function drops, mistakes; whether the file as a whole fails."""

    file: str
    read: int
    fails: bool
    dropped: int = 0
    planted: list[Planted] = field(default_factory=list)


@dataclass(frozen=True)
class Truth:
    """What a run of one client must report, of the files that don't fail."""

    client: str
    files: tuple[FileTruth, ...]

    @property
    def failing(self) -> tuple[str, ...]:
        """The files that fail."""
        return tuple(file.file for file in self.files if file.fails)

    @property
    def read(self) -> int:
        """How many rows are read."""
        return sum(file.read for file in self.files if not file.fails)

    @property
    def planted(self) -> list[Planted]:
        """Every row that is rejected."""
        return [mistake for file in self.files if not file.fails for mistake in file.planted]

    @property
    def loaded(self) -> int:
        """How many rows a first run loads."""
        return self.read - len(self.planted) - sum(file.dropped for file in self.files if not file.fails)


@dataclass(frozen=True)
class Client:
    """How one client writes its files."""

    name: str
    letter: str  # its claims' numbers begin with
    files: tuple[str, ...]
    rows: int
    headers: Callable[[int], Sequence[str]]  # of the file with this index
    delimiter: str = ","
    newline: str = "\n"
    encoding: str = "utf-8"
    date: str = "%Y-%m-%d"
    moment: str = "%Y-%m-%dT%H:%M:%S"
    decimal: str = "."
    payers: tuple[str, ...] = PAYERS
    notes: tuple[str, ...] = NOTES


COLUMNS = ("claim_id", "patient", "service_date", "updated_at", "payer", "status", "amount", "paid", "note")
GERMAN = (
    "Fall-Nr.", "Patient", "Leistungsdatum", "Geändert am", "Kostenträger", "Status", "Betrag", "Bezahlt", "Bemerkung"
)  # fmt: skip
STRANGE = "Claim ref"  # no pipeline knows it


def _north(index: int) -> Sequence[str]:
    return ("Claim No." if index % 3 == 2 else "ClaimNo", *COLUMNS[1:])


def _lakeside(index: int) -> Sequence[str]:
    claim = STRANGE if index == 1 else "CLAIM_ID"
    return (claim, "Patient No", "Date of Service", " Last Change", *COLUMNS[4:], "Referred by")


CLIENTS = (
    Client(
        "acme", "A", ("claims-january.csv", "claims-february.csv"), 14_000, lambda index: GERMAN, delimiter=";",
        newline="\r\n", encoding="cp1252", date="%d.%m.%Y", moment="%d.%m.%Y %H:%M", decimal=",",
        payers=PAYERS_DE, notes=NOTES_DE,
    ),
    Client("north", "N", tuple(f"claims-site{site:02}.csv" for site in range(1, 25)), 12_000, _north),
    Client(
        "lakeside", "L", ("claims-1.csv", "claims-2.csv", "claims-3.csv"), 4_500, _lakeside, delimiter="|",
        date="%m/%d/%Y", moment="%Y-%m-%d %H:%M:%S",
    ),
)  # fmt: skip
ROWS = sum(client.rows for client in CLIENTS)


def generate(folder: Path, *, seed: int = 7, scale: float = 1.0) -> dict[str, Truth]:
    """Write etl.toml, demo_steps.py and the clients' files into `folder`; return each client's truth by its name.

    Args:
        folder: Made if it isn't there; files of the same names are overwritten.
        seed: The same seed and scale give the same bytes.
        scale: 1.0 is about 30,000 rows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("etl.toml", "demo_steps.py"):
        shutil.copyfile(Path(__file__).parent / name, folder / name)
    return {client.name: _write(client, folder, seed, scale) for client in CLIENTS}


def _write(client: Client, folder: Path, seed: int, scale: float) -> Truth:
    luck = random.Random(f"{seed} {client.name}")
    rows = max(len(client.files), round(client.rows * scale))
    each = max(1, round(rows * MISTAKES))
    mistakes = dict(zip(luck.sample(range(rows), min(rows, each * len(KINDS))), list(KINDS) * each, strict=False))
    inbox = folder / "inbox" / client.name
    inbox.mkdir(parents=True, exist_ok=True)
    files = []
    for index, name in enumerate(client.files):
        share = range(rows * index // len(client.files), rows * (index + 1) // len(client.files))
        path = inbox / name
        truth = FileTruth(path.relative_to(folder).as_posix(), len(share), STRANGE in client.headers(index))
        path.write_bytes("".join(_lines(client, index, share, mistakes, luck, truth)).encode(client.encoding))
        modified = (LAST_DAY + timedelta(days=index)).timestamp()
        os.utime(path, (modified, modified))
        files.append(truth)
    return Truth(client.name, tuple(files))


def _lines(
    client: Client, index: int, share: range, mistakes: dict[int, str], luck: random.Random, truth: FileTruth
) -> Iterator[str]:
    """Yield a file's records as text, the header first; note in `truth` what was planted where."""
    headers = client.headers(index)
    header = _record(client, headers)
    yield header
    line = 1 + header.count("\n")
    known: list[str] = []  # ids of good rows so far
    for number in share:
        row = _row(client, number, luck)
        kind = mistakes.get(number)
        if kind == "duplicate id" and not known:
            kind = None
        if kind is None and luck.random() < 0.002:
            row["patient"] = "TEST"
            truth.dropped += 1
        elif kind is None:
            known.append(row["claim_id"])
        else:
            truth.planted.append(Planted(truth.file, line, KINDS[kind], kind))
        fields = _fields(client, row, kind, known, luck)
        fields += ["Dr. Example"] * (len(headers) - len(COLUMNS))
        text = _record(client, fields[:5] if kind == "ragged row" else fields)
        if kind == "stray quote":
            text = text.replace("@", '"knee "left" side"')
        yield text
        line += text.count("\n")


def _row(client: Client, number: int, luck: random.Random) -> Row:
    service = LAST_DAY - timedelta(days=luck.randrange(90), hours=luck.randrange(12))
    updated = service + timedelta(days=luck.randrange(20), minutes=luck.randrange(600))
    amount = luck.randrange(1500, 90_000)
    status = luck.choice(("OPEN", "CLOSED", "CLOSED", "DENIED"))
    return {
        "claim_id": f"{client.letter}{number + 1:06}",
        "patient": f"P{luck.randrange(10_000, 99_999)}",
        "service_date": service.strftime(client.date),
        "updated_at": updated.strftime(client.moment),
        "payer": luck.choice(client.payers),
        "status": status,
        "amount": _money(client, amount),
        "paid": _money(client, amount * luck.randrange(50, 101) // 100 if status == "CLOSED" else 0),
        "note": luck.choice(client.notes),
    }


def _fields(client: Client, row: Row, kind: str | None, known: Sequence[str], luck: random.Random) -> list[str]:
    """Return a row's fields, with the mistake in it."""
    if kind == "bad date":
        row["service_date"] = datetime(2025, 1, 31).strftime(client.date).replace("31", "32")
    elif kind == "bad amount":
        row["amount"] = "n/a"
    elif kind == "negative amount":
        row["amount"] = "-" + row["amount"]
    elif kind == "unknown status":
        row["status"] = "LOST?"
    elif kind == "missing id":
        row["claim_id"] = ""
    elif kind == "duplicate id":
        row["claim_id"] = luck.choice(known)
    elif kind == "overpaid":
        row["paid"] = _money(client, 9_500_000)
    elif kind == "stray quote":
        row["note"] = "@"
    return [row[name] for name in COLUMNS]


def _money(client: Client, cents: int) -> str:
    return f"{cents // 100}{client.decimal}{cents % 100:02}"


def _record(client: Client, fields: Sequence[str]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=client.delimiter, lineterminator=client.newline).writerow(fields)
    return text.getvalue()

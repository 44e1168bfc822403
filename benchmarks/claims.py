"""Claims for the benchmarks: ten columns, the same bytes whenever they are made, one row in two hundred bad."""

import random
from pathlib import Path

HEADER = "claim_id,patient_id,service_date,updated_at,status,code,amount,paid,units,note\n"
COLUMNS = """
[pipelines.{name}.columns]
claim_id     = {{ type = "string", required = true, pattern = "[A-Z0-9]+" }}
patient_id   = {{ type = "integer", required = true }}
service_date = {{ type = "date" }}
updated_at   = {{ type = "timestamp" }}
status       = {{ type = "string", allowed = ["OPEN", "CLOSED", "DENIED"] }}
code         = {{ type = "string" }}
amount       = {{ type = "number", min = 0 }}
paid         = {{ type = "number", min = 0 }}
units        = {{ type = "integer", min = 1, max = 99 }}
note         = {{ type = "string" }}
"""
BLOCK = 20_000


def rows(count: int, seed: int, prefix: str) -> str:
    """Return rows as CSV, without a header; keys begin with `prefix` and are unique within it."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        bad = dice.random() < 0.005
        amount = "n/a" if bad and number % 2 else f"{dice.randrange(1, 900000) / 100:.2f}"
        status = "LOST" if bad and not number % 2 else dice.choice(("OPEN", "CLOSED", "DENIED"))
        day, month = dice.randrange(1, 29), dice.randrange(1, 13)
        lines.append(
            f"{prefix}{number:07d},{dice.randrange(10**8)},2025-{month:02d}-{day:02d},"
            f"2025-{month:02d}-{day:02d}T{dice.randrange(24):02d}:{dice.randrange(60):02d}:00Z,{status},"
            f"{dice.randrange(100000):05d},{amount},{dice.randrange(1, 90000) / 100:.2f},{dice.randrange(1, 20)},"
            f"{dice.choice(('', 'follow-up visit', 'NA', 'called twice'))}\n"
        )
    return "".join(lines)


def write(path: Path, *, count: int = 0, megabytes: int = 0, seed: int = 1) -> int:
    """Write a file of about `count` rows, or of `megabytes`; return how many rows it has."""
    block = min(count or BLOCK, BLOCK)
    mark = "@@@"
    body = rows(block, seed, mark)
    wanted = count or megabytes * 1_000_000 * block // len(body)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.write(HEADER)
        for number in range(-(-wanted // block)):
            file.write(body.replace(mark, f"C{number:05d}"))
    return -(-wanted // block) * block


def project(
    where: Path, target: str, clients: int, *, mode: str = "append", staging: str = "staging", function: bool = False
) -> Path:
    """Write an etl.toml whose pipeline `claims` loads `inbox/<client>/*.csv` for clients c000, c001, …

    Args:
        function: Whether the rows pass through a function of the user's own.
    """
    load = {"append": 'mode = "append"', "merge": 'mode = "merge", key = ["claim_id"], newest = "updated_at"'}[mode]
    text = f"""
[settings]
staging = "{staging}"
modules = {'["own_steps"]' if function else "[]"}

[targets.warehouse]
url = "{target}"

[defaults]
pipelines = ["claims"]

[pipelines.claims]
extract = {{ type = "csv", path = "inbox/{{client}}/*.csv", settle = "0s" }}
transform = {'["own_steps:same"]' if function else "[]"}
load = {{ target = "warehouse", table = "claims", {load} }}
{COLUMNS.format(name="claims")}
"""
    (where / "own_steps.py").write_text(
        "import pandas as pd\n\n\ndef same(df: pd.DataFrame) -> pd.DataFrame:\n    return df\n"
    )
    path = where / "etl.toml"
    path.write_text(text + "".join(f"[clients.c{number:03d}]\n" for number in range(clients)))
    return path

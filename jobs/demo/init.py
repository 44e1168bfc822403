"""The files of a first project: `rq-etl init` writes them, and they run as they are."""

from pathlib import Path

from etl.errors import ConfigError

CONFIG = """\
# What is extracted, cleaned and loaded, and for whom.
#   rq-etl validate                                   check this file and the functions it names
#   rq-etl plan claims --client acme --rows 5         look before anything is loaded
#   rq-etl run claims --client acme                   load inbox/acme/claims-*.csv into warehouse.db
#   rq-etl rejects acme/claims --rows                 which rows were refused, and why

[settings]
staging = "staging"                     # where rows wait between stages: a folder or s3://bucket/prefix
modules = ["steps"]                     # only functions of these modules (steps.py) may be called

[targets.warehouse]
url = "sqlite:///warehouse.db"          # or postgresql://etl:${WAREHOUSE_PASSWORD}@host/database

[defaults]                              # any key of a client; a client's own value wins
pipelines = ["claims"]
timezone = "UTC"                        # of schedules, and of timestamps that have no zone
max_active = 4                          # jobs of one client in progress at once

[pipelines.claims]                      # written once, run for every client
extract = { type = "csv", path = "inbox/{client}/claims-*.csv" }
transform = ["steps:tidy"]              # your functions, in this order; may be []
load = { target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"], newest = "updated_at" }
max_rejects = "50%"                     # above it nothing is loaded and the run has failed

[pipelines.claims.columns]
claim_id     = { type = "string", required = true, unique = true, from = ["ClaimNo", "Claim No."] }
service_date = { type = "date", format = ["%Y-%m-%d", "%m/%d/%Y"] }
amount       = { type = "decimal", min = 0 }
status       = { type = "string", allowed = ["CLOSED", "OPEN"] }
updated_at   = { type = "timestamp" }   # the newer row of a claim wins, in whatever order files come

[clients.acme]
# schedule = { claims = "0 2 * * *" }   # every night at two

# Another client whose files look different: the same pipeline, with what differs.
# [clients.globex]
# [clients.globex.override.claims]
# extract = { delimiter = ";", encoding = "cp1252" }
# columns = { amount = { decimal = "," } }
# [clients.globex.rename.claims]
# Betrag = "amount"
"""

STEPS = '''\
"""Functions of our own: each is given a DataFrame and returns one."""

import pandas as pd

from rq_etl import reject


def tidy(df: pd.DataFrame) -> pd.DataFrame:
    """Write the states of claims alike, and refuse claims from the future.

    More parameters are filled by their names: client, params, run, start, end, or `args` of etl.toml.
    """
    df["status"] = df["status"].fillna("OPEN")
    future = df["service_date"] > pd.Timestamp.now()
    return reject(df, future, reason="in the future", column="service_date")
'''

SAMPLE = """\
ClaimNo,service_date,amount,status,updated_at
A-1001,2026-01-05,120.00,CLOSED,2026-01-09 08:15:00
A-1002,01/06/2026,75.50,OPEN,2026-01-09 08:15:00
A-1003,2026-01-07,a lot,OPEN,2026-01-09 08:15:00
A-1004,2026-01-08,310.25,,2026-01-10 17:40:00
"""

ENVIRONMENT = """\
# Copy to .env (chmod 600 .env): beside etl.toml it is read by every command, worker and script of this project.
# What the environment sets wins. Nothing here is needed to begin with.

# The Redis that everyone shares; without it each command starts a private redis-server, and says so.
#REDIS_URL=redis://localhost:6379/0

# Secrets that etl.toml names as ${NAME}, and what your own functions read from the environment.
#WAREHOUSE_PASSWORD='a # and other characters in quotes'

# What the dashboard asks for; without it, it makes a password at each start.
#ETL_DASHBOARD_PASSWORD=
"""

IGNORED = """\
.env
.rq-etl/
staging/
warehouse.db*
__pycache__/
"""

FILES = {
    "etl.toml": CONFIG,
    "steps.py": STEPS,
    "inbox/acme/claims-1.csv": SAMPLE,
    ".env.example": ENVIRONMENT,
}


def write(folder: Path) -> list[Path]:
    """Write a first project into a folder, which is made where it is missing.

    Returns:
        The files written.

    Raises:
        ConfigError: One of the files exists already, or the folder can't be written; nothing was written over.
    """
    there = [name for name in FILES if (folder / name).exists()]
    if there:
        raise ConfigError(f"already in {folder}: {', '.join(there)}", "name another folder: rq-etl init FOLDER")
    written = []
    try:
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
            written.append(path)
    except OSError as exc:
        raise ConfigError(f"{exc.filename or folder} can't be written: {exc.strerror}", "name another folder") from exc
    return written


def ignore(folder: Path) -> list[Path]:
    """Keep secrets and rows out of git by a `.gitignore`, where there is none; return it where it was written."""
    try:
        with (folder / ".gitignore").open("x", encoding="utf-8", newline="\n") as file:
            file.write(IGNORED)
    except FileExistsError:
        return []
    return [folder / ".gitignore"]

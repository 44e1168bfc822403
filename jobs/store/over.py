"""What a run's staging says of its end: what has ended is not begun again, whatever is written to Redis."""

from collections.abc import Mapping

from etl.errors import EtlError
from etl.staging import Staging

FILE = "over.json"
REQUEST = "held.json"  # of a held run


def mark(staging: Staging) -> None:
    """Say in a run's staging that its latest attempt has ended."""
    if (attempt := _attempt(staging)) is not None:
        staging.write_json(FILE, {"attempt": attempt})


def is_over(staging: Staging) -> bool:
    """Whether the latest attempt of a run has ended, as its staging knows."""
    found = latest(staging)
    return found is not None and found >= (_attempt(staging) or 0)


def latest(staging: Staging) -> int | None:
    """Return the last attempt of a run that has ended, as its staging knows; 0 for one that was held."""
    found: Mapping[str, int] | None = staging.read_json(FILE)
    return found["attempt"] if found else None


def refuse(staging: Staging) -> None:
    """Raise an EtlError where a run has ended: whoever writes to Redis can say that it has not."""
    if is_over(staging):
        raise EtlError(f"run {staging.run} has ended", f"rq-etl retry {staging.run}, if it should be done again")


def forget(staging: Staging) -> None:
    """Have a run that was held, and never planned, wait again."""
    staging.remove_files([FILE])


def _attempt(staging: Staging) -> int | None:
    """Return the attempt that staging has the spec of, 0 for a held run; None where it has neither."""
    if spec := staging.read_json("run.json"):
        return int(spec["attempt"])
    return 0 if REQUEST in staging.names() else None

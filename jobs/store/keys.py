"""Every Redis key of ours, its owner and its life."""

PREFIX = "etl-"  # of every client's queue


def run_key(run: str) -> str:
    """Return the key of a run's hash."""
    return f"etl:run:{run}"


def stages_key(run: str) -> str:
    """Return the key of a run's stage records."""
    return f"etl:run:{run}:stages"


def jobs_key(run: str) -> str:
    """Return the key of the set of a run's job ids."""
    return f"etl:run:{run}:jobs"


def holder_key(client: str, pipeline: str, start: str | None = None) -> str:
    """Return the key that names the active run of a client and pipeline."""
    return f"etl:holder:{client}:{pipeline}" + (f":{start}" if start else "")


def claim_key(run: str) -> str:
    """Return the key of the claim of who submits or retries a run."""
    return f"etl:claim:{run}"


def client_key(client: str) -> str:
    """Return the key of a client's live limits."""
    return f"etl:client:{client}"


def rate_key(client: str, pipeline: str) -> str:
    """Return the key of the moment at which a client's source may be asked again."""
    return f"etl:rate:{client}:{pipeline}"


ACTIVE = "etl:active"
INDEX = "etl:runs"
SINCE = "etl:since"
HELD = "etl:held"
LAST = "etl:last"
DUE = "etl:due"
READY = "etl:ready"

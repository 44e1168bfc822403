"""Every Redis key of ours: its name, the module that writes it, its life. docs/redis.md is made from KEYS.

A key is written nowhere else in Python; the Lua scripts beside this file spell those whose names they know.
"""

from typing import NamedTuple

PREFIX = "etl-"  # of every client's queue
SPAN = 600  # seconds that one record of the use of workers covers

ACTIVE = "etl:active"
INDEX = "etl:runs"
SINCE = "etl:since"
HELD = "etl:held"
HELD_READY = "etl:held:ready"
LAST = "etl:last"
DUE = "etl:due"
READY = "etl:ready"


def run_key(run: str) -> str:
    """Return the key of a run's hash."""
    return f"etl:run:{run}"


def stages_key(run: str) -> str:
    """Return the key of a run's stage records."""
    return f"etl:run:{run}:stages"


def jobs_key(run: str) -> str:
    """Return the key of the set of a run's job ids."""
    return f"etl:run:{run}:jobs"


def waiters_key(run: str) -> str:
    """Return the key of the set of held runs that wait for a run."""
    return f"etl:run:{run}:waiters"


def holder_key(client: str, pipeline: str, start: str | None = None) -> str:
    """Return the key that names the active run of a client and pipeline."""
    return f"etl:holder:{client}:{pipeline}" + (f":{start}" if start else "")


def held_key(client: str, pipeline: str, start: str | None = None) -> str:
    """Return the key of the held runs of a client and pipeline."""
    return f"etl:held:{client}:{pipeline}" + (f":{start}" if start else "")


def claim_key(run: str) -> str:
    """Return the key of the claim of who submits or retries a run."""
    return f"etl:claim:{run}"


def client_key(client: str) -> str:
    """Return the key of a client's live limits."""
    return f"etl:client:{client}"


def rate_key(client: str, pipeline: str) -> str:
    """Return the key of the moment at which a client's source may be asked again."""
    return f"etl:rate:{client}:{pipeline}"


def use_key(moment: float) -> str:
    """Return the key of the use of workers around a moment, in seconds since the epoch."""
    return f"etl:use:{int(moment // SPAN)}"


def once_key(name: str) -> str:
    """Return the key that exists for as long as something need not be done again."""
    return f"etl:once:{name}"


class Key(NamedTuple):
    """A key of ours in Redis.

    Args:
        pattern: Its name, with `<…>` for what differs.
        type: Of Redis.
        owner: The module, or the Lua script, that writes it.
        life: When it ends, or a member of it; of one that stays, how large it grows.
        what: It holds.
        stays: Whether it never ends, as it grows with clients, pipelines and schedules only, not with runs.
    """

    pattern: str
    type: str
    owner: str
    life: str
    what: str
    stays: bool = False


RUN, HELD_RUN = "until the run ends", "a member: until the run starts or ends"
KEYS = (
    Key("etl:run:<id>", "hash", "jobs.store.runs", "`settings.history` after its end (90 days)", "a run's record"),
    Key("etl:run:<id>:stages", "hash", "jobs.store.runs", "7 days after its end", "each stage's counts, or its error"),
    Key("etl:run:<id>:jobs", "set", "jobs.run.graph", RUN, "ids of the run's jobs"),
    Key("etl:run:<id>:waiters", "set", "jobs.run.held", f"{RUN}, or as its record", "held runs that wait for it"),
    Key("etl:runs", "sorted set", "jobs.store.runs", "a member: as its run", "runs by the moment of their submission"),
    Key("etl:since", "string", "jobs.store.runs", "twice `settings.history`", "since when this Redis knows all runs"),
    Key("etl:active", "set", "jobs.store.runs", "a member: until the run ends", "runs that are queued or running"),
    Key("etl:held", "sorted set", "jobs.run.held", HELD_RUN, "runs that wait for others, the oldest first"),
    Key("etl:held:<client>:<pipeline>[:<start>]", "sorted set", "jobs.run.held", HELD_RUN, "those of one window"),
    Key("etl:held:ready", "set", "close.lua", "a member: until the run starts", "held runs that one wait is over for"),
    Key("etl:holder:<client>:<pipeline>[:<start>]", "string", "jobs.store.runs", RUN, "the active run of one window"),
    Key("etl:claim:<run>", "string", "claim.lua", "15 s without a sign of life", "who submits or retries the run now"),
    Key("etl:ready", "sorted set", "jobs.queue", "a member: until its queue is empty", "queues with jobs, round robin"),
    Key("etl:once:<name>", "string", "jobs.process.maintenance", "3 s to 1 hour", "what one worker does for all"),
    Key("etl:rate:<client>:<pipeline>", "string", "rate_limit.lua", "until then", "when a source may be asked again"),
    Key("etl:use:<span>", "hash", "jobs.process.complete", "2 hours", "each queue's jobs and seconds in ten minutes"),
    Key("etl:client:<client>", "hash", "jobs.store.limits", "one for each client", "its limits and pause", stays=True),
    Key("etl:last", "hash", "close.lua", "a field for each client's pipeline", "its run that ended last", stays=True),
    Key("etl:due", "hash", "jobs.run.schedules", "one field for each schedule", "its last moment", stays=True),
    Key("etl:served", "hash", "dequeue.lua", "one", "the queue served last, and how often more", stays=True),
    Key("etl:rescued", "string", "rescue_expired.lua", "one", "when leases were looked at last", stays=True),
)

"""Every Redis key of ours: its name, the module that writes it, its life. docs/redis.md is made from KEYS.

A key is written nowhere else in Python; the Lua scripts beside this file spell those whose names they know.
"""

from typing import NamedTuple

PREFIX = "etl-"  # of every client's queue

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


def use_key(span: int) -> str:
    """Return the key of the use of workers in a span of ten minutes."""
    return f"etl:use:{span}"


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


ENDED = "a member: until the run ends"
KEYS = (
    Key(
        "etl:run:<id>",
        "hash",
        "jobs.store.runs",
        "while it is active; then `settings.history` (90 days)",
        "the run: client, pipeline, params, state, times, counts, error",
    ),
    Key(
        "etl:run:<id>:stages",
        "hash",
        "jobs.store.runs",
        "as the run, at most 7 days after its end",
        "`<partition>:<stage>` → what that stage counted, or why it failed",
    ),
    Key("etl:run:<id>:jobs", "set", "jobs.run.graph", "until the run ends", "ids of the run's jobs"),
    Key(
        "etl:run:<id>:waiters",
        "set",
        "jobs.store.runs",
        "until the run ends, at most `settings.history`",
        "held runs that wait for this one",
    ),
    Key(
        "etl:runs",
        "sorted set",
        "jobs.store.runs",
        "a member: `settings.history`; trimmed by maintenance",
        "run ids by the moment of their submission",
    ),
    Key(
        "etl:since",
        "string",
        "jobs.store.runs",
        "twice `settings.history` after the last submit",
        "since when this Redis knows all runs; what is older, only targets may remember",
    ),
    Key("etl:active", "set", "jobs.store.runs", ENDED, "ids of runs that are queued or running"),
    Key(
        "etl:held",
        "sorted set",
        "jobs.store.runs",
        "a member: until the run starts or ends",
        "runs that wait for others",
    ),
    Key(
        "etl:held:<client>:<pipeline>[:<start>]",
        "sorted set",
        "jobs.store.runs",
        "a member: until the run starts or ends",
        "those of this client, pipeline and window, by the moment they were held",
    ),
    Key(
        "etl:held:ready",
        "set",
        "close.lua",
        "a member: until maintenance has started the run, or it waits for another one",
        "held runs one of whose waits is over",
    ),
    Key(
        "etl:holder:<client>:<pipeline>[:<start>]",
        "string",
        "jobs.store.runs",
        "until the run ends",
        "the one run of this client, pipeline and window that is active",
    ),
    Key(
        "etl:claim:<run>",
        "string",
        "claim.lua",
        "15 s without a sign of life",
        "who submits or retries the run just now",
    ),
    Key(
        "etl:ready",
        "sorted set",
        "jobs.queue",
        "a member: until dequeue finds its queue empty or paused",
        "the queues that hold jobs, by name, served round robin",
    ),
    Key(
        "etl:once:<name>",
        "string",
        "jobs.store.once",
        "its interval: 3 s to 1 hour",
        "what some worker does, once in an interval, for all",
    ),
    Key(
        "etl:rate:<client>:<pipeline>",
        "string",
        "rate_limit.lua",
        "until that moment",
        "the moment at which a source with a `rate` may be asked again",
    ),
    Key(
        "etl:use:<span>",
        "hash",
        "jobs.process.complete",
        "2 hours",
        "each queue's jobs, seconds waited and seconds worked in ten minutes, for `clients`",
    ),
    Key(
        "etl:client:<client>",
        "hash",
        "jobs.store.limits",
        "one for each client",
        "`max_active`, `weight`; `limit`, `paused` set by an operator",
        stays=True,
    ),
    Key(
        "etl:last",
        "hash",
        "close.lua",
        "one field for each client and pipeline",
        "id and state of the run without a window that ended last",
        stays=True,
    ),
    Key(
        "etl:due",
        "hash",
        "jobs.run.schedules",
        "one field for each schedule",
        "the last moment of a schedule that was submitted",
        stays=True,
    ),
    Key(
        "etl:served",
        "hash",
        "dequeue.lua",
        "one",
        "the queue served last, and how often more before the next one",
        stays=True,
    ),
    Key("etl:rescued", "string", "rescue_expired.lua", "one", "when expired leases were looked for last", stays=True),
)

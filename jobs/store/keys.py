"""Every Redis key of ours: its name, the module that writes it, its life. docs/redis.md is made from KEYS.

A key is written nowhere else in Python; the Lua scripts beside this file spell those whose names they know.
"""

import re
from typing import NamedTuple

PREFIX = "etl-"  # of every client's queue
CLAIMED = 15.0  # seconds that a claim on a run lasts, or on a look at a pipeline's deliveries
CRON_SIGN = 5.0  # seconds without a sign of life after which a cron process counts as dead
SPAN = 600  # seconds that one record of the use of workers covers

ACTIVE = "etl:active"
INDEX = "etl:runs"
SINCE = "etl:since"
HELD = "etl:held"
HELD_READY = "etl:held:ready"
LAST = "etl:last"
SUCCEEDED = "etl:succeeded"
WINDOWS = "etl:windows:failed"
DUE = "etl:due"
LOOKED = "etl:looked"
READY = "etl:ready"
ASIDE = "etl:aside"
CAUSES = "etl:alerts:causes"
DIGESTS = "etl:alerts:digests"
OUTBOX = "etl:alerts:outbox"
SEEN = "etl:alerts:seen"
RESCUED = "etl:rescued:jobs"
ENTRIES = "rq:scheduler:scheduled_jobs"  # rq-scheduler's
SCHEDULERS = "rq:scheduler_instance:"  # of its processes; each lives ten seconds longer than its last sign of life
WORKER = "rq:worker:"


def run_key(run: str) -> str:
    """Return the key of a run's hash."""
    return f"etl:run:{run}"


def stages_key(run: str) -> str:
    """Return the key of a run's stage records."""
    return f"etl:run:{run}:stages"


def lost_key(run: str) -> str:
    """Return the key of a run's lost workers."""
    return f"etl:run:{run}:lost"


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


def look_key(client: str, pipeline: str) -> str:
    """Return the key of the claim of who looks at the deliveries of a client's pipeline."""
    return f"etl:look:{client}:{pipeline}"


def use_key(moment: float) -> str:
    """Return the key of the use of workers around a moment, in seconds since the epoch."""
    return f"etl:use:{int(moment // SPAN)}"


def once_key(name: str) -> str:
    """Return the key that exists for as long as something need not be done again."""
    return f"etl:once:{name}"


def entry_id(client: str, pipeline: str) -> str:
    """Return the id of rq-scheduler's entry for a client's pipeline; no name has a `-`."""
    return f"schedule-{client}-{pipeline}"


def cron_key(process: str) -> str:
    """Return the key that a cron process keeps alive.

    Args:
        process: `<host>-<pid>`.
    """
    return f"etl:cron:{process}"


def aside_key(key: bytes) -> bytes:
    """Return the key that something malformed of another key is moved to."""
    return b"etl:aside:" + key


class Key(NamedTuple):
    """A key of ours in Redis.

    Args:
        pattern: Its name, with `<…>` for what differs.
        type: Of Redis.
        owner: The module, or the Lua script, that writes it.
        life: When it ends, or a member of it; of one that stays, how large it grows.
        what: It holds.
        form: What it must be like, by the names of `jobs.store.forms.FORMS`.
        stays: Whether it never ends, as it grows with clients, pipelines and schedules only, not with runs.
        most: Seconds after which it ends at the latest, where something stands still until then; 0 where nothing does.
    """

    pattern: str
    type: str
    owner: str
    life: str
    what: str
    form: str
    stays: bool = False
    most: float = 0.0

    @property
    def expression(self) -> str:
        """A regular expression of its names."""
        optional = re.escape(self.pattern).replace(r"\[", "(").replace(r"\]", ")?")
        return re.sub(r"<(\w+)>", lambda name: ".+" if name[1] in ("start", "key") else "[^:]+", optional)


RUN, HELD_RUN = "until the run ends", "a member: until the run starts or ends"
KEYS = (
    Key(
        "etl:run:<id>",
        "hash",
        "jobs.store.runs",
        "`settings.history` after its end (90 days)",
        "a run's record",
        "record",
    ),
    Key(
        "etl:run:<id>:stages",
        "hash",
        "jobs.store.runs",
        "7 days after its end",
        "each stage's state, worker and counts, or its error",
        "stages",
    ),
    Key(
        "etl:run:<id>:lost",
        "hash",
        "shared.lua",
        "as its stages",
        "workers that were lost with a stage in hand",
        "lost",
    ),
    Key("etl:run:<id>:jobs", "set", "jobs.run.graph", RUN, "ids of the run's jobs", "ids"),
    Key(
        "etl:run:<id>:waiters", "set", "jobs.run.held", f"{RUN}, or as its record", "held runs that wait for it", "ids"
    ),
    Key(
        "etl:runs",
        "sorted set",
        "jobs.store.runs",
        "a member: as its run",
        "runs by the moment of their submission",
        "ids",
    ),
    Key(
        "etl:since",
        "string",
        "jobs.store.runs",
        "twice `settings.history`",
        "since when this Redis knows all runs",
        "number",
    ),
    Key(
        "etl:active", "set", "jobs.store.runs", "a member: until the run ends", "runs that are queued or running", "ids"
    ),
    Key("etl:held", "sorted set", "jobs.run.held", HELD_RUN, "runs that wait for others, the oldest first", "ids"),
    Key(
        "etl:held:<client>:<pipeline>[:<start>]", "sorted set", "jobs.run.held", HELD_RUN, "those of one window", "ids"
    ),
    Key(
        "etl:held:ready",
        "set",
        "close.lua",
        "a member: until the run starts",
        "held runs that one wait is over for",
        "ids",
    ),
    Key(
        "etl:holder:<client>:<pipeline>[:<start>]",
        "string",
        "jobs.store.runs",
        RUN,
        "the active run of one window",
        "id",
    ),
    Key(
        "etl:claim:<run>",
        "string",
        "claim.lua",
        "15 s without a sign of life",
        "who submits or retries the run now",
        "id",
        most=CLAIMED,
    ),
    Key(
        "etl:ready",
        "sorted set",
        "jobs.queue",
        "a member: until its queue is empty",
        "queues with jobs, round robin",
        "turns",
    ),
    Key("etl:rescued:jobs", "sorted set", "shared.lua", "a member: until it begins", "jobs that lost a worker", "ids"),
    Key(
        "etl:once:<name>",
        "string",
        "jobs.process.maintenance",
        "3 s to 1 hour",
        "what one process does for all",
        "id",
        most=3600.0,
    ),
    Key(
        "etl:rate:<client>:<pipeline>",
        "string",
        "rate_limit.lua",
        "until then",
        "when a source may be asked again",
        "number",
    ),
    Key(
        "etl:use:<span>",
        "hash",
        "jobs.process.complete",
        "2 hours",
        "each queue's jobs and seconds in ten minutes",
        "use",
    ),
    Key(
        "etl:client:<client>",
        "hash",
        "jobs.store.limits",
        "one for each client",
        "its limits and pause",
        "limits",
        stays=True,
    ),
    Key(
        "etl:last",
        "hash",
        "close.lua",
        "a field for each client's pipeline",
        "its run that ended last",
        "last",
        stays=True,
    ),
    Key(
        "etl:succeeded",
        "hash",
        "close.lua",
        "a field for each client's pipeline",
        "when it succeeded last",
        "moments",
        stays=True,
    ),
    Key(
        "etl:windows:failed",
        "hash",
        "close.lua",
        "at most 1,000 windows, each until it is loaded",
        "windows of the past whose run failed",
        "windows",
        stays=True,
    ),
    Key(
        "etl:alerts:causes",
        "hash",
        "jobs.alerts.state",
        "a field for each open cause, and an hour longer",
        "what is wrong, since when, who was informed",
        "causes",
        stays=True,
    ),
    Key(
        "etl:alerts:digests",
        "hash",
        "jobs.alerts.state",
        "a field for each kind of cause of the last minutes",
        "until when what follows is collected",
        "digests",
        stays=True,
    ),
    Key(
        "etl:alerts:outbox",
        "hash",
        "jobs.alerts.outbox",
        "a field for each message until it is delivered; older ones are joined",
        "messages to be sent, without addresses",
        "messages",
        stays=True,
    ),
    Key(
        "etl:alerts:seen",
        "hash",
        "jobs.alerts.seen",
        "one field for each active run, and five",
        "when something was seen to move, or alive",
        "texts",
        stays=True,
    ),
    Key("etl:due", "hash", "jobs.run.schedules", "one field for each schedule", "its last moment", "due", stays=True),
    Key(
        "etl:looked",
        "hash",
        "jobs.deliveries.claims",
        "a field for each client's pipeline",
        "when its deliveries were looked at last, and what prevented it",
        "looked",
        stays=True,
    ),
    Key(
        "etl:look:<client>:<pipeline>",
        "string",
        "jobs.deliveries.claims",
        "15 s without a sign of life",
        "who looks at its deliveries now",
        "id",
        most=CLAIMED,
    ),
    Key(
        "etl:cron:<process>",
        "string",
        "jobs.store.live",
        "5 s without a sign of life",
        "a cron process",
        "number",
        most=CRON_SIGN,
    ),
    Key("etl:served", "hash", "dequeue.lua", "one", "the queue served last, and how often more", "served", stays=True),
    Key(
        "etl:aside",
        "sorted set",
        "jobs.store.malformed",
        "a member: 30 days",
        "what was malformed and set aside",
        "texts",
    ),
    Key("etl:aside:<key>", "any", "jobs.store.malformed", "30 days", "what was malformed, of that key", "any"),
    Key("etl:rescued", "string", "rescue_expired.lua", "one", "when leases were looked at last", "number", stays=True),
)

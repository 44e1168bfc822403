"""Every function that a worker may be asked to call, and only those: their names are in Redis.

A stage's arguments are the run's id and the partition's number; `jobs.run.stage` executes it.
"""

from redis import Redis
from rq import get_current_job

from jobs import settings
from jobs.process.cleanup import clean
from jobs.run import partitions, schedules, submit
from jobs.run.finish import finish_run, give_up
from jobs.run.stage import execute


def extract(run: str, partition: str) -> dict[str, int]:
    """Read one partition of the source into staging."""
    return execute("extract", run, int(partition), partitions.extract)


def transform(run: str, partition: str) -> dict[str, int]:
    """Cast, check and reshape one partition's rows in staging."""
    return execute("transform", run, int(partition), partitions.transform)


def load(run: str, partition: str) -> dict[str, int]:
    """Load one partition's rows into the target, with its ledger row in the same transaction."""
    return execute("load", run, int(partition), partitions.load)


def finish(run: str) -> dict[str, int]:
    """Make the run's rows final, balance its receipts and close it."""
    return execute("finish", run, 0, finish_run, give_up)


def start(run: str) -> None:
    """Start a held run whose wait is over."""
    submit.start_held(settings.config(), _connection(), run)


def start_due(client: str, pipeline: str) -> list[str]:
    """Start the runs of a schedule's due moments, as rq-scheduler asks for; returns their ids."""
    connection = _connection()
    return schedules.start_due(settings.config(), connection, client, pipeline, schedules.clock(connection))


def cleanup() -> dict[str, int]:
    """Remove what staging and targets need no more; returns how much that was."""
    found = clean(_connection(), settings.config())
    return {"folders": found.folders, "shadows": found.shadows, "remembered": found.remembered}


def _connection() -> Redis:
    job = get_current_job()
    assert job is not None
    return job.connection

"""Canceling a run."""

from redis import Redis
from rq.command import send_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import JobStatus

from jobs.job import EtlJob
from jobs.store import keys, malformed, runs


def cancel_run(connection: Redis, run: str) -> bool:
    """Close a run, delete its waiting jobs and stop its running ones.

    Returns:
        False where it had ended already.
    """
    ids = malformed.ids(connection.smembers(keys.jobs_key(run)))
    client = (runs.read(connection, run) or {}).get("client")
    if not runs.close(connection, run, "canceled", error="canceled", client=client):
        return False
    for id in ids:
        try:
            job = EtlJob.fetch(id, connection=connection)
            if job.get_status() == JobStatus.STARTED:
                if job.worker_name:  # RQ's own way to learn it unpickles the job
                    send_command(connection, job.worker_name, "stop-job", job_id=id)
            else:
                job.delete()
        except (NoSuchJobError, InvalidJobOperation):
            continue
    return True

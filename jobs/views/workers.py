"""The workers that are alive."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.session import Session


def workers(session: "Session") -> list[dict[str, Any]]:
    """Return the workers that are alive, as RQ knows them."""
    from jobs.worker import Worker

    lines = []
    for worker in Worker.all(connection=session.connection):
        beat = worker.last_heartbeat
        lines.append(
            {
                "name": worker.name,
                "host": worker.hostname,
                "pid": worker.pid,
                "state": worker.get_state(),
                "job": worker.get_current_job_id(),
                "jobs_done": worker.successful_job_count,
                "jobs_failed": worker.failed_job_count,
                "heartbeat_age": round((datetime.now(UTC) - beat.astimezone(UTC)).total_seconds(), 1) if beat else None,
            }
        )
    return lines

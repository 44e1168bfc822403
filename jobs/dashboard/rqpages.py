"""rq-dashboard under /rq/: its pages and data as they are, but for what is unsafe or untrue about them.

It reads through our classes: JSON only, so nothing that is in Redis is unpickled, and nothing is
changed by looking.
"""

import json
import re
from typing import Any

import rq_dashboard.web as web
from flask import Flask, Response, abort, current_app, g, request
from markupsafe import escape
from redis import Redis
from rq import Worker
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer
from typing_extensions import override

from etl.errors import EtlError
from jobs import settings
from jobs.job import EtlJob
from jobs.queue import FairQueue
from jobs.run.retry import retry_run
from jobs.store import keys, runs
from jobs.store.keys import PREFIX

REGISTRIES = ("queued", "scheduled", "deferred", "started", "finished", "failed", "canceled")
NAME = re.compile(r"[\w.:-]{1,200}")  # of a queue; others could break out of rq-dashboard's script
PAGE = 200  # jobs on one page, at most

# Where data ends as HTML although the templates don't escape it, and the few keys that they do escape.
DATA = {"list_queues": (), "list_workers": ("description",), "list_jobs": ("description", "exc_info"), "job_info": ()}

# What is replaced in its pages: its own script may run, and there is a way back to ours.
REPLACED = (
    ('<script type="text/javascript">', '<script nonce="{nonce}" type="text/javascript">'),
    ('<a class="navbar-brand">', '<a class="navbar-brand" href="/">Runs</a> <a class="navbar-brand">'),
    ("/static/favicon.ico", "/static/icon.svg"),
)


class Tolerant(JSONSerializer):
    """JSON; what another application has pickled into the same Redis is named, never loaded."""

    @staticmethod
    @override
    def loads(s: bytes, *args: Any, **kwargs: Any) -> Any:
        """Return the value, or a note that it isn't JSON."""
        try:
            return json.loads(s)
        except ValueError:
            return "(not JSON)"


class ShownJob(EtlJob):
    """A job as a page reads it."""

    def __init__(self, id: str | None = None, connection: Redis | None = None, serializer: object = None) -> None:
        super().__init__(id, connection=connection)
        self.serializer = Tolerant

    @override
    def get_call_string(self) -> str | None:
        """Return the call as Python would write it, or the description where it can't be read."""
        try:
            return super().get_call_string()
        except Exception:
            return self.description


class ShownQueue(FairQueue):
    """A queue as a page reads it."""

    @override
    def fetch_job(self, job_id: str) -> Job | None:
        """Return a job; one that is gone or can't be read must not hide the others, nor be removed by looking."""
        try:
            return ShownJob.fetch(job_id, connection=self.connection)
        except Exception:
            return None

    @override
    def compact(self) -> None:
        """Remove ids of jobs that are gone; RQ's own empties the queue meanwhile."""
        for id in self.get_job_ids():
            if not EtlJob.exists(id, self.connection):
                self.remove(id)


class ShownWorker(Worker):
    """A worker as a page reads it."""

    @classmethod
    @override
    def find_by_key(cls, worker_key: str, connection: Redis, *_: Any, **__: Any) -> Any:
        """Return a worker, or None where it has died; RQ's own would remove it by looking."""
        if not connection.exists(worker_key):
            return None
        return super().find_by_key(worker_key, connection, ShownJob, ShownQueue, JSONSerializer)

    @override
    def get_current_job(self) -> Job | None:
        """Return the job it works on, if it is still there."""
        try:
            return super().get_current_job()
        except NoSuchJobError:
            return None


def requeue(job_id: str, connection: Redis) -> None:
    """Run a failed job again; of a stage the run is retried, as nothing would follow a stage alone."""
    job = EtlJob.fetch(job_id, connection=connection)
    run = run_of(job)
    if run is None:
        job.requeue()
        return
    record = runs.read(connection, run)
    if record is not None and record["state"] in ("failed", "canceled"):
        retry_run(settings.config(), connection, run)
    FailedJobRegistry(job.origin, connection=connection, job_class=EtlJob).remove(job)


def run_of(job: EtlJob) -> str | None:
    """Return the id of the run that a job is a stage of, or None."""
    try:
        return str(job.args[0]) if job.is_ours and job.args else None
    except Exception:  # whatever is in its data
        return None


def requeue_all(queue_name: str) -> dict[str, Any]:
    """Run again what has failed in a queue; what can't be is listed and holds up no other."""
    connection: Redis = current_app.config["ETL_CONNECTION"]
    registry = FailedJobRegistry(queue_name, connection=connection, job_class=EtlJob)
    count, refused = 0, []
    for id in registry.get_job_ids(cleanup=False):
        try:
            requeue(id, connection)
            count += 1
        except (EtlError, InvalidJobOperation, NoSuchJobError) as exc:
            refused.append({"job": id, "error": str(exc)})
    return {"status": "OK", "count": count, "refused": refused}


def mount(app: Flask, connection: Redis) -> None:
    """Serve rq-dashboard's pages under /rq/, over our connection."""
    app.config["ETL_CONNECTION"] = connection
    app.config["RQ_DASHBOARD_REDIS_URL"] = [address(connection)]
    app.redis_conn = connection  # type: ignore[attr-defined]  # where rq-dashboard keeps it
    app.register_blueprint(web.blueprint, url_prefix="/rq")
    app.view_functions["rq_dashboard.requeue_all"] = requeue_all
    app.before_request(_check)
    app.after_request(_adapt)


def address(connection: Redis) -> str:
    """Return where a Redis is, without user or password."""
    known = connection.connection_pool.connection_kwargs
    if "path" in known:
        return f"unix:{known['path']}"
    return f"{known.get('host', 'localhost')}:{known.get('port', 6379)}/{known.get('db') or 0}"


def wants_json() -> bool:
    """Whether the request is one that rq-dashboard's script makes."""
    return request.blueprint == "rq_dashboard" and (request.method == "POST" or _view() in DATA)


def _view() -> str:
    return (request.endpoint or "").removeprefix("rq_dashboard.")


def _check() -> None:
    """Refuse addresses that rq-dashboard doesn't check, and writes that would pull a run apart."""
    if request.blueprint != "rq_dashboard":
        return
    given = request.view_args or {}
    queue, registry = given.get("queue_name"), given.get("registry_name", "queued")
    sound = (
        given.get("instance_number", 0) == 0
        and (queue is None or NAME.fullmatch(queue))
        and registry in REGISTRIES
        and given.get("order", "asc") in ("asc", "dsc")
        and _within(given.get("per_page", 8), PAGE)
        and _within(given.get("page", 1), 1 << 31)
    )
    if not sound:
        abort(404)
    connection: Redis = current_app.config["ETL_CONNECTION"]
    if _view() == "delete_job_view":
        run = run_of(EtlJob.fetch(given["job_id"], connection=connection))
        if run and connection.sismember(keys.ACTIVE, run):
            abort(409, f"It belongs to run {run}, which is active: rq-etl cancel {run}")
    if _view() == "empty_queue":
        for run in runs.active(connection):
            if f"{PREFIX}{(runs.read(connection, run) or {}).get('client')}" == queue:
                abort(409, f"Run {run} of this client is active: rq-etl cancel {run}")


def _within(number: object, most: int) -> bool:
    return str(number).isdecimal() and 1 <= int(str(number)) <= most


def _adapt(response: Response) -> Response:
    """Escape data for the templates that don't, let the page's own script run, and link it to ours."""
    if request.blueprint != "rq_dashboard" or response.status_code != 200:
        return response
    if _view() in DATA:
        response.set_data(json.dumps(_escaped(response.get_json(), DATA[_view()])))
    elif response.mimetype == "text/html" and not response.direct_passthrough:
        page = response.get_data(as_text=True)
        for theirs, ours in REPLACED:
            page = page.replace(theirs, ours.format(nonce=g.nonce))
        response.set_data(page)
    return response


def _escaped(value: Any, but: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {str(escape(key)): inner if key in but else _escaped(inner, but) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner, but) for inner in value]
    return str(escape(value)) if isinstance(value, str) else value


web.Job, web.Queue, web.Worker = ShownJob, ShownQueue, ShownWorker
web.requeue_job = requeue
web.config.serializer = JSONSerializer
# Every request asks for a new connection by URL; ours (a unix socket, or fakeredis) is open already.
web.from_url = lambda *_, **__: (None, current_app.config["ETL_CONNECTION"])

"""The dashboard: our runs on the front page, rq-dashboard under /rq/, for this machine alone."""

import secrets
import signal
import socket
import sys
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from flask import Flask, abort, redirect, render_template, request
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from typing_extensions import override
from werkzeug.exceptions import Conflict, Forbidden, HTTPException, InternalServerError, NotFound, SecurityError
from werkzeug.serving import WSGIRequestHandler, make_server

from etl.config.pipeline import pairs_of
from etl.errors import ConfigError, EtlError
from jobs import settings
from jobs.dashboard import guard, rqpages
from jobs.store import live, malformed, redis_errors, runs
from jobs.store.keys import INDEX
from jobs.views import console, details, waiting

if TYPE_CHECKING:
    from jobs.session import Session


REFRESH = 5  # seconds between a page's looks
SHOWN = 200  # runs on the front page
SEARCHED = 20_000  # runs looked at for those of a client or in a state: half a second


def create_app(connection: Redis, *, password: str) -> Flask:
    """Return the dashboard as a WSGI application.

    Args:
        password: What every request must carry as basic authentication, under any user name.
    """
    app = Flask(__name__)
    app.url_map.redirect_defaults = False  # a permanent redirect is remembered by browsers for ever
    app.jinja_env.autoescape = True  # rq-dashboard writes names from the address into its .js templates
    app.jinja_env.filters |= {"count": _count, "seconds": _seconds, "moment": _moment, "ago": console.ago}
    app.jinja_env.globals["zone"] = console.zone
    guard.protect(app, password)

    @app.get("/")
    def front() -> str:
        client, state = request.args.get("client"), request.args.get("state")
        found = list(islice(runs.search(connection, client=client, state=state, look=SEARCHED), SHOWN + 1))
        known = connection.zcard(INDEX) if client or state else 0
        more = f"The newest {SHOWN} are shown." if len(found) > SHOWN else ""
        if not more and known > SEARCHED:
            more = f"Only the newest {SEARCHED:,} runs of all were looked at; rq-etl runs looks at all {known:,}."
        found = found[:SHOWN]
        states = [(name, sum(run["state"] == name for run in found)) for name in runs.STATES]
        waiting.explain(connection, found)
        alive = sum(worker.is_alive for worker in live.workers(connection))
        return render_template(
            "runs.html",
            runs=found,
            states=states,
            workers=alive,
            cron=_without_cron(connection),
            client=client,
            state=state,
            more=more,
            refresh=REFRESH,
        )

    @app.get("/runs/<run>")
    def one(run: str) -> str:
        found = runs.snapshot(connection, [run])
        if not found:
            abort(404, f"No run {run} is known to Redis.")
        active = found[0]["state"] not in runs.ENDED
        waiting.explain(connection, found)
        return render_template(
            "run.html",
            run=found[0],
            stages=details.stages(connection, run),
            lost=[console.lost(loss, has_ended=not active) for loss in live.losses(connection, run)],
            cron=_without_cron(connection, (found[0]["client"], found[0]["pipeline"])),
            refresh=REFRESH if active else None,
        )

    rqpages.mount(app, connection)
    app.register_error_handler(HTTPException, _error_page)
    app.register_error_handler(NoSuchJobError, lambda _: _error_page(NotFound("That job is gone from Redis.")))
    app.register_error_handler(InvalidJobOperation, lambda _: _error_page(Conflict("That job can't be run again now.")))
    app.register_error_handler(EtlError, lambda exc: _error_page(Conflict(str(exc))))
    for kind in redis_errors.AWAY:
        app.register_error_handler(kind, _redis_away)
    app.register_error_handler(NoPermissionError, lambda exc: _error_page(Forbidden(str(redis_errors.translate(exc)))))
    app.register_error_handler(Exception, lambda exc: _malformed(connection, exc))
    return app


def serve(session: "Session", port: int) -> None:
    """Serve the dashboard on 127.0.0.1 until interrupted.

    Args:
        port: 0 takes a free one.

    Raises:
        ConfigError: There is no Redis server to look at, or the port is taken.
    """
    if session.in_process:
        raise ConfigError("the dashboard needs a Redis server", "set REDIS_URL or install redis-server")
    password = settings.dashboard_password()
    given = password is not None
    password = password or secrets.token_urlsafe(18)
    try:
        listening = socket.create_server(("127.0.0.1", port))
    except OSError as exc:
        raise ConfigError(f"port {port} can't be used: {exc.strerror}", "choose another with --port") from None
    app = create_app(session.connection, password=password)
    with listening:
        server = make_server("127.0.0.1", port, app, threaded=True, request_handler=_Quiet, fd=listening.fileno())
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        shown = f"http://{host}/ (password: ETL_DASHBOARD_PASSWORD)" if given else f"http://etl:{password}@{host}/"
        print(f"dashboard: {shown}", file=sys.stderr, flush=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            server.serve_forever()
        finally:
            session.close()


class _Quiet(WSGIRequestHandler):
    """Answers requests without a line in the log for each."""

    @override
    def log_request(self, *_: object) -> None:
        """Say nothing: pages ask again every few seconds."""


def _error_page(exc: HTTPException) -> Any:
    if isinstance(exc, SecurityError):  # a foreign host name: there is no page to make under it
        return exc
    if rqpages.wants_json():
        return {"status": "ERROR", "error": exc.description}, exc.code or 500
    response = exc.get_response()
    response.set_data(render_template("error.html", what=exc.name, why=exc.description))
    return response


def _redis_away(exc: Exception) -> Any:
    what, why = "Redis can't be reached", "Start it; this page asks again."
    if isinstance(exc, redis_errors.FULL):
        what, why = redis_errors.full(exc).what, f"{redis_errors.full(exc).cure}."
    return render_template("error.html", what=what, why=why, refresh=REFRESH), 503


def _malformed(connection: Redis, exc: Exception) -> Any:
    """Set aside what is malformed in Redis, where that may be why a page failed, and show the page."""
    if not malformed.may_be_why(exc) or not malformed.set_aside(connection):
        if isinstance(exc, RedisError):
            return _error_page(InternalServerError(str(redis_errors.translate(exc))))
        raise exc
    if request.method != "GET":
        return _error_page(Conflict("What was malformed in Redis has been set aside; do it again."))
    return redirect(request.full_path)


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def _moment(value: str | None) -> str:
    return f"{datetime.fromisoformat(value).astimezone():%Y-%m-%d %H:%M:%S}" if value else "–"


def _without_cron(connection: Redis, *pairs: tuple[str, str]) -> str:
    """Return that nothing serves schedules or deliveries, of all clients' pipelines or of some, or ''."""
    try:
        config = settings.config()
    except EtlError:  # which one is in use, other commands say
        return ""
    return waiting.NO_CRON if waiting.without_cron(connection, config, pairs or pairs_of(config)) else ""

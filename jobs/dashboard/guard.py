"""Who may ask the dashboard what: a password, our own host names, writes from our own pages, strict headers."""

import hmac
import secrets
from urllib.parse import urlsplit

from flask import Flask, Response, abort, g, request
from werkzeug.exceptions import MethodNotAllowed

SAFE = ("GET", "HEAD", "OPTIONS")
HOSTS = ["127.0.0.1", "localhost"]

OURS = "default-src 'none'; style-src 'self'; img-src 'self'"
# underscore compiles its templates with `new Function`; inline handlers and scripts without the nonce don't run.
RQ = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}' 'unsafe-eval'; style-src 'self'; "
    "style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
)
EVERYWHERE = "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def protect(app: Flask, password: str) -> None:
    """Put the checks before every request, and the headers on every answer."""
    app.config["TRUSTED_HOSTS"] = HOSTS  # a foreign name that resolves to 127.0.0.1 (DNS rebinding) is refused

    @app.before_request
    def check() -> Response | None:
        g.nonce = secrets.token_urlsafe(16)
        given = request.authorization.password if request.authorization else None
        if not hmac.compare_digest((given or "").encode(), password.encode()):
            return Response("The password, please.\n", 401, {"WWW-Authenticate": 'Basic realm="rq-etl"'}, "text/plain")
        if request.method not in SAFE and not is_from_here():
            abort(403, "Writes come from the dashboard's own pages only.")
        changes = request.url_rule is not None and not (request.url_rule.methods or set()) <= set(SAFE)
        if changes and request.method in SAFE:
            raise MethodNotAllowed(["POST"], "A link must not change anything.")
        return None

    @app.after_request
    def finish(response: Response) -> Response:
        policy = RQ.format(nonce=g.get("nonce", "")) if request.blueprint == "rq_dashboard" else OURS
        response.headers["Content-Security-Policy"] = policy + EVERYWHERE
        response.headers.update(HEADERS)
        if request.endpoint not in ("static", "rq_dashboard.static"):
            response.headers["Cache-Control"] = "no-store"
        return response


def is_from_here() -> bool:
    """Whether a browser sent this request from one of our own pages; a request that doesn't say is not."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    source = request.headers.get("Origin") or request.headers.get("Referer") or ""
    parts = urlsplit(source)
    return (parts.scheme, parts.netloc) == (request.scheme, request.host)

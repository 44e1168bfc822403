"""What a run needs, looked at one by one; each finding that is not fine comes with its remedy."""

import platform
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq.suspension import WORKERS_SUSPENDED

from etl.config.kinds import DATABASES
from etl.config.pipeline import Config, definition_of, pairs_of
from etl.config.urls import parse_url
from etl.errors import ConfigError, EtlError
from jobs import broker, settings
from jobs.deliveries import claims
from jobs.deliveries.expected import delivering
from jobs.store import dial, malformed, redis_errors, runs
from jobs.store.keys import SCHEDULERS
from jobs.store.live import SILENCE, cron_alive, crons, workers
from jobs.views import console
from jobs.views.doctor import environment, exposure

Finding = dict[str, Any]  # check, ok, what, cure, exit: its exit code; not ok and 0 is a warning

SKEW = 5.0  # seconds
CRON = SCHEDULERS
# What our processes import by a name that a file beside etl.toml may have, too.
IMPORTED = (
    "cli", "click", "etl", "fakeredis", "fsspec", "honcho", "jobs", "numpy", "pandas", "psycopg", "pyarrow",
    "pydantic", "redis", "rich", "rq", "rq_dashboard", "rq_etl", "rq_scheduler", "sqlalchemy",
)  # fmt: skip


def examine(config: str | None, redis: str | None) -> list[Finding]:
    """Check the configuration, staging, targets, Redis, workers and schedules.

    Args:
        config: Path of etl.toml, or None for ETL_CONFIG or the working directory.
        redis: A URL, or None for REDIS_URL or a private broker.
    """
    settings.use(config)
    return list(_findings(redis))


def fix(config: str | None, redis: str | None) -> list[Finding]:
    """Run maintenance and cleanup at once, as workers do every few seconds and every hour; see `examine`.

    Returns:
        What was fixed, and what could not be.
    """
    from jobs.process import cleanup
    from jobs.process.maintenance import maintain

    settings.use(config)
    url = redis or settings.redis_url()
    try:
        found = broker.connect(url, settings.path().parent, start=False)
    except EtlError as exc:
        if url:
            return [_error("maintenance", exc)]
        found = None  # no Redis runs here, so nothing is active
    findings = []
    try:
        if found is not None:
            malformed.set_aside(found.connection)
            queues = malformed.ids(found.connection.smembers("rq:queues"))
            names = [key.removeprefix("rq:queue:") for key in queues]
            fixed = maintain(found.connection, names, all_tasks=True)
            counts = {
                "jobs rescued from lost workers": len(fixed.lost),
                "due retries enqueued": fixed.due,
                "jobs enqueued that nothing else had enqueued": fixed.released,
                "runs closed that nothing would have ended": len(fixed.closed),
            }
            findings.append(_fine("maintenance", _counted(counts)))
        cleaned = cleanup.clean(found.connection if found is not None else None, settings.config())
        counts = {
            "folders removed from staging": cleaned.folders,
            "shadow tables dropped": cleaned.shadows,
            "runs recorded in their targets": cleaned.remembered,
        }
        findings.append(_fine("cleanup", _counted(counts)))
        findings += [_warning("cleanup", trouble, "fix it and try again") for trouble in cleaned.troubles]
    except EtlError as exc:
        findings.append(_error("cleanup", exc))
    except RedisError as exc:
        findings.append(_error("maintenance", redis_errors.translate(exc)))
    finally:
        if found is not None:
            found.close()
    return findings


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing to fix"


def exit_code(found: Sequence[Finding]) -> int:
    """Return 3 where Redis or a target can't be reached, else 2 for the configuration, else 1 for others, else 0."""
    return max((finding["exit"] for finding in found), default=0)


def show(found: Sequence[Finding]) -> None:
    """Print a line for each finding, and beneath it the remedy where one is needed."""
    out = console.out()
    for finding in found:
        mark = "[green]ok[/]  " if finding["ok"] else "[red]FAIL[/]" if finding["exit"] else "[yellow]warn[/]"
        out.print(f"{mark}  {finding['check']:<11} ", end="")
        out.print(console.cell(finding["what"]), soft_wrap=True)
        if finding["cure"]:
            out.print(console.cell(f"{'':18}{finding['cure']}"), soft_wrap=True, style="dim")


def _fine(check: str, what: str) -> Finding:
    return {"check": check, "ok": True, "what": what, "cure": "", "exit": 0}


def _failure(check: str, what: str, cure: str, exit: int = 1) -> Finding:
    return {"check": check, "ok": False, "what": what, "cure": cure, "exit": exit}


def _warning(check: str, what: str, cure: str) -> Finding:
    return _failure(check, what, cure, exit=0)


def _error(check: str, exc: EtlError) -> Finding:
    return _failure(check, exc.what, exc.cure, exc.exit_code)


def _findings(redis: str | None) -> Iterator[Finding]:
    try:
        settings.environment()
    except ConfigError as exc:  # nothing else can be known
        yield _error("environment", exc)
        return
    yield from _names()
    yield from _config()
    try:
        config = settings.config()
    except ConfigError:
        config = None
    yield from (_fine("environment", what) for what in environment.origins(config))
    yield from (_warning("environment", what, cure) for what, cure in environment.warnings(config))
    yield from _drives(config)
    yield from _logins(redis, config)
    if config:
        yield from _staging(config)
        yield from _targets(config)
        yield from _cursors(config)
    yield from _redis(redis, config)


# --- the configuration, files and packages ---


def _config() -> Iterator[Finding]:
    from etl.config.code import check_functions

    try:
        config = settings.config()
    except ConfigError as exc:
        for mistake in exc.mistakes:
            yield _failure("config", mistake, exc.cure, 2)
        return
    for name, lines in config.broken.items():
        is_own = name.removesuffix(".toml") in config.clients
        cure = "remove it; the client of etl.toml goes on" if is_own else "its client is left out until it is corrected"
        yield from (_failure("config", line, cure, 2) for line in lines)
    counts = {"pipeline": len(config.pipelines), "client": len(config.clients), "target": len(config.targets)}
    names = ", ".join(console.plural(number, noun) for noun, number in counts.items())
    mistakes = check_functions(config)
    for wrong in mistakes:
        yield _failure("functions", str(wrong), "correct etl.toml or the function", 2)
    if not mistakes:
        yield _fine("config", f"{config.path}: {names}")


def _names() -> Iterator[Finding]:
    """A file of the user's own called `redis.py` is imported in place of the library: workers start beside etl.toml."""
    root = settings.path().parent
    if root == Path(__file__).resolve().parents[3]:
        return
    for name in IMPORTED:
        for own in (root / f"{name}.py", root / name / "__init__.py"):
            if own.is_file():
                yield _failure("names", f"{own.relative_to(root)} hides the package {name}", "rename it or move it")


def _drives(config: Config | None) -> Iterator[Finding]:
    """Under WSL a Windows drive is a network away: every file operation costs about a millisecond."""
    if "microsoft" not in platform.release().lower():
        return
    folders = {"project": str(settings.path().parent), "staging": config.staging if config else ""}
    for name, folder in folders.items():
        if re.match(r"/mnt/[a-z](/|$)", folder):
            cure = "move it into the Linux file system, such as ~/etl"
            yield _warning(name, f"{folder} is on a Windows drive: slow, and its locks are not reliable", cure)


def _staging(config: Config) -> Iterator[Finding]:
    from etl.staging import check

    try:
        check(config.staging)
    except EtlError as exc:
        yield _error("staging", exc)
    else:
        yield _fine("staging", f"{config.staging} can be written")


def _targets(config: Config) -> Iterator[Finding]:
    from etl.load import check_target, resolve_url

    names: dict[str, str] = {}  # by URL: many clients share a target
    unknown: dict[str, Finding] = {}
    for client in config.clients.values():
        for pipeline in client.pipelines:
            definition = definition_of(config, client.name, pipeline)
            target = config.targets[definition.load.target]
            try:
                names.setdefault(resolve_url(target, client.name, config.root), target.name)
            except EtlError as exc:
                unknown.setdefault(exc.what, _error("target", exc))

    def look(url: str, name: str) -> Finding:
        try:
            return _fine("target", f"{name}: {check_target(url, name)}")
        except EtlError as exc:
            return _error("target", exc)

    yield from unknown.values()
    with ThreadPoolExecutor(8) as pool:  # one that doesn't answer takes its time
        yield from pool.map(look, names.keys(), names.values())

    places = {url: name for url, name in names.items() if "://" in url}
    for url, name in places.items():
        parsed = parse_url(url, name)
        if DATABASES[parsed.get_backend_name()].file:
            yield from (
                _warning("target", f"{name}: {what}", cure) for what, cure in exposure.file(parsed.database or "")
            )


def _logins(redis: str | None, config: Config | None) -> Iterator[Finding]:
    """A password with an @ or a # in a URL is another password, and its rest may be taken for a host."""
    urls = {"--redis" if redis else "REDIS_URL": redis or settings.redis_url() or ""}
    for target in config.targets.values() if config else ():
        urls[f"targets.{target.name}.url"] = target.url
    for name, definition in config.pipelines.items() if config else ():
        for where, source in definition.sources().items():
            if url := source.model_dump().get("url"):
                urls[f"pipelines.{name}.{where}.url"] = url
    yield from (_warning("password", what, cure) for what, cure in exposure.logins(urls))
    yield from (_warning("password", what, cure) for what, cure in (exposure.addresses(config) if config else ()))


def _cursors(config: Config) -> Iterator[Finding]:
    from jobs.views import cursors

    found = cursors.warnings(config, pairs_of(config), lambda _: None)  # its target is looked at by itself
    for warning in (each for warnings in found.values() for each in warnings):
        cure = "correct them in the source; rq-etl cursor get shows where the cursor is, cursor set moves it"
        yield _warning("cursor", warning, cure)


# --- the queue ---


def _redis(url: str | None, config: Config | None) -> Iterator[Finding]:
    url = url or settings.redis_url()
    try:
        found = broker.connect(url, settings.path().parent, start=False)
    except EtlError as exc:
        yield _error("redis", exc) if url else _private()
        return
    try:
        yield from _facts(broker.examine(found.connection), dial.shown(found.url))
        yield from _malformed(found.connection)
        for what, cure in exposure.redis(found.url, found.connection):
            yield _warning("redis", f"{dial.shown(found.url)} {what}", cure)
        yield _workers(found.connection)
        yield from (_warning("workers", what, cure) for what, cure in environment.outdated_workers(found.connection))
        if config is not None:
            yield from _cron(found.connection, config)
    except RedisError as exc:
        yield _error("redis", redis_errors.translate(exc))
    finally:
        found.close()


def _private() -> Finding:
    program = next(filter(None, map(shutil.which, broker.SERVERS)), None)
    if program:
        return _fine("redis", f"no REDIS_URL: a private {Path(program).name} is started for each command")
    what = "no REDIS_URL and no redis-server: jobs run in the command's own process, one at a time"
    return _warning("redis", what, "install redis-server (apt install redis-server), or set REDIS_URL")


def _facts(facts: broker.Facts, where: str) -> Iterator[Finding]:
    yield _fine("redis", f"{where}, version {'.'.join(map(str, facts.version))}")
    if facts.policy not in ("", "noeviction"):
        what = f"maxmemory-policy is {facts.policy}: Redis may drop jobs when it is full"
        yield _failure("redis", what, "redis-cli config set maxmemory-policy noeviction, and in redis.conf")
    if facts.appendonly is False:
        what = "appendonly is off: a restart of Redis forgets runs (what is loaded stays loaded)"
        yield _warning("redis", what, "redis-cli config set appendonly yes, and in redis.conf")
    if abs(facts.skew) > SKEW:
        side = "ahead of" if facts.skew > 0 else "behind"
        what = f"the clock of Redis is {abs(facts.skew):.0f} s {side} this machine's"
        yield _failure("clock", what, "set both by NTP (under WSL: sudo hwclock -s)")


def _malformed(connection: Redis) -> Iterator[Finding]:
    if there := list(malformed.find(connection)):
        what = f"{console.plural(len(there), 'malformed value')} in Redis, such as {there[0].text()}"
        yield _warning("redis", what, "rq-etl doctor --fix sets them aside")
    if aside := malformed.count(connection):
        what = f"{console.plural(aside, 'malformed value')} set aside in the last 30 days"
        yield _warning("redis", what, "find out who else writes to this Redis: ZRANGE etl:aside 0 -1")


def _workers(connection: Redis) -> Finding:
    if connection.exists(WORKERS_SUSPENDED):
        return _failure("workers", "suspended: they begin no job", "rq resume --url URL, with that of REDIS_URL")
    known = workers(connection)
    alive, silent = sum(worker.is_alive for worker in known), [worker for worker in known if not worker.is_alive]
    if alive:
        silent = [worker for worker in silent if worker.silent < SILENCE]
        names = ", ".join(f"{worker.name} on {worker.host} for {worker.silent:.0f} s" for worker in silent[:3])
        return _fine("workers", f"{alive} alive" + (f"; silent: {names}" if silent else ""))
    if waiting := len(runs.active(connection)):
        return _failure("workers", f"none is alive, and {waiting} runs wait", "start some: rq-etl worker -n 2")
    return _warning("workers", "none is alive", "start some: rq-etl worker -n 2")


def _cron(connection: Redis, config: Config) -> Iterator[Finding]:
    """Whether what starts by the clock has a process that looks at it; what prevented that from looking."""
    scheduled, expected = sum(len(client.schedule) for client in config.clients.values()), delivering(config)
    if not scheduled and not expected:
        return
    counts = [console.plural(scheduled, "schedule")] if scheduled else []
    counts += [f"deliveries of {console.plural(len(expected), 'pipeline')}"] if expected else []
    what = " and ".join(counts)
    if crons(connection) or (not expected and cron_alive(connection)):
        yield _fine("cron", f"alive, for {what}")
    else:
        yield _failure("cron", f"none is alive, for {what}", "start it: rq-etl cron")
    for pair, looked in sorted(claims.looked(connection).items()):
        if looked.error and pair in expected:
            said, _, cure = looked.error.partition("\n")
            yield _warning("delivery", f"{'/'.join(pair)}: {said}", cure.strip() or "see rq-etl deliveries")

"""Signs that another Redis is meant than a private one: looked for where one is started, in a few milliseconds."""

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice, pairwise
from pathlib import Path

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from etl import env_file
from jobs import settings
from jobs.store.dial import shown
from jobs.store.keys import INDEX

MOST = 2  # signs that are shown
USUAL = "redis://localhost:6379/0"
SOON = 0.02  # seconds that the usual Redis has to answer, and of the processor for looking through processes
_ADDRESS = re.compile(r"(redis|rediss|valkey|valkeys)(\+\w+)?://|unix://.*(redis|valkey)", re.IGNORECASE)
_HOST = re.compile(r"(.*_)?(REDIS|VALKEY)_(HOST|ADDR|ADDRESS|SERVER)")
_PRIVATE = re.compile(r"unix://.*(/\.rq-etl/redis/|/rq-etl-\d+-[0-9a-f]+/)redis\.sock")


def signs() -> list[tuple[str, str]]:
    """Return what suggests that the project in use has a Redis, though it has no REDIS_URL: each with its cure."""
    if settings.origin("REDIS_URL") is not None:  # it is set to nothing, so a private one is meant
        return []
    found = (sign for look in (_other_names, _other_files, _workers, _usual) for sign in _harmless(look()))
    return list(islice(found, MOST))


def _harmless(found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the signs that can be found; looking for them never fails."""
    with contextlib.suppress(Exception):
        yield from found


def _naming(values: Mapping[str, str]) -> list[str]:
    """Return the variables that name a Redis."""
    return [name for name, value in values.items() if _ADDRESS.match(value) or (value and _HOST.fullmatch(name))]


def _other_names() -> Iterator[tuple[str, str]]:
    """A variable that names a Redis for other programs."""
    for name in _naming(settings.environment())[:1]:
        where = "in .env" if settings.origin(name) == ".env" else "in the environment"
        yield f"{name} {where} names a Redis, but it is REDIS_URL that is read", "set REDIS_URL to the same"


def _other_files() -> Iterator[tuple[str, str]]:
    """A .env that names a Redis, and is near but not beside etl.toml."""
    own = settings.env_path()
    script = Path(sys.argv[0]).resolve().parent
    for folder in dict.fromkeys([Path.cwd(), script, *own.parent.parents]):
        file = folder / ".env"
        with contextlib.suppress(Exception):  # it may be anyone's, and have mistakes
            if file.resolve() != own.resolve() and _naming(env_file.read(file, settings.environment())):
                yield f"{file} names a Redis, but only {own} is read", "move it there, or set REDIS_URL"
                return


def _workers() -> Iterator[tuple[str, str]]:
    """A worker of this project, on this machine, that works for a Redis."""
    give_up = time.thread_time() + SOON
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if time.thread_time() > give_up:
            return
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            words = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
            if _is_worker(words) and (url := _url_of(int(pid), words)):
                yield (
                    f"a worker (process {pid}) works for {shown(url)}",
                    "if that is this project's, set REDIS_URL to it",
                )
                return


def _is_worker(words: list[str]) -> bool:
    if words[0].startswith("rq:worker:"):  # RQ has set its title
        return True
    is_rq = any(os.path.basename(word) in ("rq", "rq.cli", "rqworker") for word in words[:5])
    return is_rq and not {"worker", "worker-pool"}.isdisjoint(words)


def _url_of(pid: int, words: list[str]) -> str | None:
    """Return the Redis of a worker, or None where that is a private one or another project's."""
    lines = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    own = dict(line.split("=", 1) for line in lines if "=" in line)
    config = (Path(f"/proc/{pid}/cwd").readlink() / (own.get("ETL_CONFIG") or "etl.toml")).resolve()
    is_ours = own.get("RQ_WORKER_CLASS", "") in settings.WORKER_CLASSES.values() or any(
        name in word for word in words for name in settings.WORKER_CLASSES.values()
    )
    is_lost = is_ours and not config.is_file() and "ETL_MODULES" not in own  # started where no project is
    if config != settings.path() and not is_lost:
        return None
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.startswith("--url=")}
    options |= {word: after for word, after in pairwise(words) if word in ("--url", "-u")}
    url = options.get("--url") or options.get("-u") or own.get("RQ_REDIS_URL") or USUAL
    return None if _PRIVATE.match(url) else url


def _usual() -> Iterator[tuple[str, str]]:
    """A Redis at the usual place that RQ or this project's kind of runs is in."""
    once = Redis.from_url(USUAL, socket_connect_timeout=SOON, socket_timeout=SOON, retry=Retry(NoBackoff(), 0))
    with once:
        if once.exists("rq:workers", "rq:queues", INDEX):
            yield f"a Redis that RQ uses answers at {USUAL}", f"if it is meant, set REDIS_URL={USUAL}"

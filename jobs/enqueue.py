"""A company's own function as a job of a client: `enqueue("acme", add, 2, 3)`."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from redis import Redis
from rq import Retry

from etl.errors import ConfigError
from jobs import broker, settings
from jobs.job import EtlJob, allowed
from jobs.queue import FairQueue
from jobs.store.keys import PREFIX
from jobs.store.redis_errors import translated

RESULT_TTL = 86400
FAILURE_TTL = 7 * 86400
RETRY_DELAYS = (5, 30, 120)  # seconds; the last holds for all that follow


def enqueue(
    client: str,
    function: Callable[..., Any] | str,
    *args: Any,
    timeout: float | None = None,
    retries: int = 0,
    **kwargs: Any,
) -> EtlJob:
    """Have a worker call a function for a client.

    Args:
        client: Whose queue the job waits in.
        function: A function of one of the modules in etl.toml, or "module:name".
        args, kwargs: What it is called with; they travel as JSON.
        timeout: Seconds it may take; 180 where nothing is said.
        retries: How often it is tried again where it fails, after 5, 30 and then every 120 s.

    Returns:
        The job: `job.wait(10)` waits for its value, `job.return_value()` asks for it.

    Raises:
        ConfigError: No such client name, an argument is not JSON, or the retries are negative.
        JobRefused: The function may not be called.
        RedisAway: Redis can't be reached, or there is none.
    """
    url = settings.redis_url()
    with translated():
        connection = _connection(url, settings.path().parent)
        return enqueue_on(connection, client, function, args, kwargs, timeout=timeout, retries=retries)


def enqueue_on(
    connection: Redis,
    client: str,
    function: Callable[..., Any] | str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    timeout: float | None = None,
    retries: int = 0,
) -> EtlJob:
    """Have a worker of a given Redis call a function for a client; see `enqueue`."""
    from etl.config.values import NAME

    if not NAME.fullmatch(client):
        raise ConfigError(f"{client!r} is not a client's name", "use small letters, digits and _ only")
    name = _name(function)
    allowed(name)
    given = dict(kwargs or {})
    _check_json(name, args, given)
    if retries < 0:
        raise ConfigError(f"{name} can't be tried again {retries} times", "retries must be 0 or more")
    delays = [RETRY_DELAYS[min(i, len(RETRY_DELAYS) - 1)] for i in range(retries)]
    return FairQueue(PREFIX + client, connection=connection).enqueue_call(  # type: ignore[return-value]
        name,
        args=tuple(args),
        kwargs=given,
        timeout=None if timeout is None else max(1, math.ceil(timeout)),
        result_ttl=RESULT_TTL,
        failure_ttl=FAILURE_TTL,
        description=f"{client} {name}",  # not RQ's, which quotes the arguments
        retry=Retry(max=retries, interval=delays) if retries else None,
    )


@lru_cache
def _connection(url: str | None, folder: Path) -> Redis:
    return broker.connect(url, folder, start=False).connection


def _name(function: Callable[..., Any] | str) -> str:
    if isinstance(function, str):
        return function.replace(":", ".")
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", "")
    if not name.isidentifier() or not module:
        raise ConfigError(f"{function!r} can't be found by workers", "give a function at the top level of a module")
    if module == "__main__":
        raise ConfigError(
            f"{name} is in the script that runs, where workers can't find it", "move it to a module and import it"
        )
    return f"{module}.{name}"


def _check_json(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    places = {**{f"argument {i}": value for i, value in enumerate(args, 1)}, **kwargs}
    for place, value in places.items():
        try:
            same = json.loads(json.dumps(value)) == _lists(value)
        except (TypeError, ValueError):
            same = False
        if not same:
            raise ConfigError(
                f"{name}: {place} is a {type(value).__name__} that JSON can't carry",
                "pass text, numbers, lists or dicts; for rows pass the name of a file",
            )


def _lists(value: Any) -> Any:
    """Return a value with its tuples as lists, which is what JSON makes of them."""
    if isinstance(value, list | tuple):
        return [_lists(each) for each in value]
    if isinstance(value, dict):
        return {key: _lists(each) for key, each in value.items()}
    return value

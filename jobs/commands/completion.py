"""What a shell offers when Tab is pressed: clients, pipelines and runs; click itself knows commands and options.

It is asked at every Tab: it takes less than half a second, starts nothing, and says nothing where it finds nothing.
"""

import re
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import BashComplete, CompletionItem, ZshComplete

from jobs.commands.options import common, echo, shared

if TYPE_CHECKING:
    from redis import Redis

NAME = re.compile(r"[a-z0-9_]+")  # that of etl.config.values, which imports pydantic
VARIABLE = "_RQ_ETL_COMPLETE"  # by which a shell asks; what click makes of the command's name
PATIENCE = 0.2  # seconds that a Redis has to name the runs it knows
NEWEST = 200  # runs that are offered by their ids
FILES = 100  # clients' own files that are read at most
SHELLS: dict[str, type[BashComplete | ZshComplete]] = {"bash": BashComplete, "zsh": ZshComplete}

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


@click.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
@common
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script by which bash or zsh complete words at Tab.

    \b
    bash: echo 'eval "$(rq-etl completion bash)"' >>~/.bashrc
    zsh:  echo 'eval "$(rq-etl completion zsh)"' >>~/.zshrc
    """
    kind = SHELLS[shell]
    variables = {"complete_func": "_rq_etl_completion", "complete_var": VARIABLE, "prog_name": "rq-etl"}
    script = kind.source_template % variables
    shared.print({"shell": shell, "script": script}, lambda: echo(script.rstrip()))


def _offered(find: Callable[[str], Iterable[tuple[str, str | None]]]) -> Offer:
    """Return what click asks for the names that begin as the word does; whatever goes wrong, there are none.

    Args:
        find: Returns names, each with what is said of it where a shell shows that.
    """

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        found: dict[str, str | None] = {}
        with suppress(Exception), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            from jobs import settings

            settings.use(shared.config)
            for name, said in find(incomplete):
                if name.startswith(incomplete):
                    found.setdefault(name, said)
        return [CompletionItem(name, help=said) for name, said in found.items()]

    return offer


def _clients(incomplete: str) -> Iterator[tuple[str, None]]:
    yield from ((name, None) for name in _of_clients(_written()))


def _pipelines(incomplete: str) -> Iterator[tuple[str, None]]:
    yield from ((name, None) for name in _names(_written().get("pipelines")))


def _runs(incomplete: str) -> Iterator[tuple[str, str | None]]:
    """Yield each client's pipelines, which mean their latest run, and the newest runs' ids."""
    known = _known_runs()
    yield from ((f"{run['client']}/{run['pipeline']}", None) for run in known)
    raw = _written()
    own, defaults = _table(raw.get("clients")), _table(raw.get("defaults"))
    chosen = (name for name in _of_clients(raw) if f"{name}/".startswith(incomplete.partition("/")[0]))
    for name in islice(chosen, FILES):
        client = _table(own.get(name)) or _read(_folder() / f"{name}.toml")
        pipelines = client.get("pipelines") or defaults.get("pipelines") or _names(raw.get("pipelines"))
        yield from ((f"{name}/{pipeline}", None) for pipeline in pipelines)
    yield from ((run["run"], f"{run['client']}/{run['pipeline']} {run['state']}") for run in known)


def _states(incomplete: str) -> Iterator[tuple[str, None]]:
    from jobs.store.forms import STATES

    yield from ((state, None) for state in STATES)


CLIENT, PIPELINE, RUN, STATE = map(_offered, (_clients, _pipelines, _runs, _states))


# --- etl.toml, as far as it can be read: its mistakes are for `validate` ---


def _written() -> Mapping[str, Any]:
    from jobs import settings

    return _read(settings.path())


def _of_clients(raw: Mapping[str, Any]) -> list[str]:
    files = sorted(path.stem for path in _folder().glob("*.toml"))
    return [name for name in dict.fromkeys([*_names(raw.get("clients")), *files]) if NAME.fullmatch(name)]


def _folder() -> Path:
    from jobs import settings

    return settings.path().parent / "clients"


def _read(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    return tomllib.loads(file.read_text(encoding="utf-8-sig"))


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(value: Any) -> list[str]:
    return [name for name in _table(value) if NAME.fullmatch(name)]


# --- Redis, where one runs ---


def _known_runs() -> list[dict[str, str]]:
    """Return the newest runs that Redis knows, or none where it doesn't answer at once."""
    found: list[dict[str, str]] = []
    connection = None
    with suppress(Exception):
        connection = _redis()
    if connection is not None:
        # A name that nobody resolves takes its time, which nothing but a thread can be kept from waiting for.
        asking = threading.Thread(target=lambda: found.extend(_newest(connection)), daemon=True)
        asking.start()
        asking.join(PATIENCE)
    return list(found)


def _newest(connection: "Redis") -> list[dict[str, str]]:
    from jobs.store.keys import INDEX, run_key

    fields, found = ("client", "pipeline", "state"), []
    with suppress(Exception), connection, connection.pipeline(transaction=False) as pipe:
        ids: Any = connection.zrevrange(INDEX, 0, NEWEST - 1)
        for id in ids:
            pipe.hmget(run_key(id), *fields)
        for id, values in zip(ids, pipe.execute(raise_on_error=False), strict=True):
            run = (id, *values) if isinstance(values, list) else ()
            if run and all(isinstance(text, str) and NAME.fullmatch(text) for text in run):
                found.append(dict(zip(("run", *fields), run, strict=True)))
    return found


def _redis() -> "Redis | None":
    """Return a connection to the Redis that a command would use, if it is a named one or there already."""
    from jobs import settings

    folder, url = settings.path().parent, shared.redis or settings.redis_url()
    if not url:
        if not (folder / ".rq-etl" / "redis").is_dir():
            return None
        from jobs.process.private_redis import PrivateRedis

        url = PrivateRedis("", folder).url
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    return Redis.from_url(
        url,
        socket_connect_timeout=PATIENCE,
        socket_timeout=PATIENCE,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )

"""What the arguments of commands mean: parameters, clients and their pipelines, spans of time."""

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.commands.options import echo

if TYPE_CHECKING:
    from etl.config.pipeline import Config


def parameters(params: Sequence[str]) -> dict[str, str]:
    """Return `K=V` options as a dictionary."""
    found = dict(param.partition("=")[::2] for param in params if "=" in param)
    if len(found) != len(params):
        raise click.UsageError("--param takes NAME=VALUE, each name once")
    return found


def client_pipelines(
    config: "Config", pipelines: Sequence[str], clients: Sequence[str], params: Mapping[str, str]
) -> list[tuple[str, str]]:
    """Return the (client, pipeline) pairs meant; no clients means all, no pipelines all that a client has.

    Args:
        params: The run's own; they are checked here so that a mistake stops every run and not some.
    """
    from etl.config.pipeline import needed_first, pipelines_of, refuse_broken, resolve
    from etl.errors import ConfigError

    pairs = []
    for client in clients or list(config.clients):
        for name in pipelines or needed_first(config, client, pipelines_of(config, client)):
            if clients or name in pipelines_of(config, client):
                resolve(config, name, client, params=params)
                pairs.append((client, name))
    if not pairs:
        refuse_broken(config)
        raise ConfigError("no client has the pipeline" if pipelines else "no client is configured", "see etl.toml")
    return list(dict.fromkeys(pairs))


def name_broken(config: "Config") -> int:
    """Name on stderr the clients whose files have mistakes, which others go on without; returns the exit code."""
    for lines in config.broken.values():
        for line in lines:
            echo(f"rq-etl: {line}", err=True)
    return 2 if config.broken else 0


def check_functions(config: "Config", pairs: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """Refuse functions of pipelines that aren't there or can't be called with what they will be given.

    Args:
        pairs: Clients and their pipelines.

    Returns:
        Those of them that are left out, each named on stderr: their clients' own files name such functions, which stop
        no other client.
    """
    from etl.config import code
    from etl.config.pipeline import mistaken

    pipelines, left_out = {pipeline for _, pipeline in pairs}, set()
    shared, own = [], []
    for mistake in code.check_functions(config):
        owner = Path(mistake.file).stem if Path(mistake.file).parent.name == "clients" else ""
        if not owner and pipelines & {*map(str, mistake.key[:4])}:
            shared.append(str(mistake))
        elif owner and (owner, str(mistake.key[1])) in pairs:
            own.append(str(mistake))
            left_out.add((owner, str(mistake.key[1])))
    if shared or (own and len(left_out) == len({*pairs})):
        raise mistaken((*shared, *own), config.path)
    for line in own:
        echo(f"rq-etl: {line}", err=True)
    return left_out


def moment_before(span: str | None) -> float | None:
    """Return the moment a span such as `24h`, `90m` or `7d` ago, in seconds since the epoch; None for no span."""
    from etl.config.values import duration
    from etl.errors import ConfigError

    if not span:
        return None
    try:
        return time.time() - float(duration(span))
    except ValueError:
        raise ConfigError(f"{span} is not a span of time", "write 30m, 24h or 7d") from None


def check_state(state: str | None) -> None:
    """Refuse what is no state of a run."""
    from etl.errors import ConfigError
    from jobs.store.runs import STATES

    if state and state not in STATES:
        raise ConfigError(f"{state} is not a state of a run", f"states are {', '.join(STATES)}")

"""A claim on a run: one process at a time withdraws its staging and submits it, and no other has changed anything.

The run's record stays as it is until the submission is written, in one transaction that also ends the claim. A process
that dies with a claim leaves a run that can be retried once the claim has run out.
"""

import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NoReturn

from redis import Redis
from redis.exceptions import RedisError

from etl.errors import AlreadyRunning, BrokerUnreachable, EtlError
from jobs.store import keys, redis_errors, scripts
from jobs.store.run_json import text_of

LASTS = keys.CLAIMED  # seconds; it is renewed while its process lives


class Changed(EtlError):
    """A run is not as it was read: someone else has begun, ended or retried it."""


@dataclass(frozen=True)
class Claim:
    """The right to change a run's staging and to submit it.

    Args:
        holder: Key of the holder that is kept free for the run, or ''.
    """

    connection: Redis
    run: str
    token: str
    holder: str

    def check(self) -> None:
        """Renew the claim.

        Raises:
            Changed: It has run out, as after a long sleep of this process.
        """
        if not self._extend(LASTS):
            raise Changed(f"run {self.run} was not submitted in time; another may have done it", "look at rq-etl runs")

    def is_ours(self) -> bool:
        """Renew the claim; whether no one else can have it by now."""
        with suppress(RedisError):
            return self._extend(LASTS)
        return False

    def _extend(self, seconds: float) -> bool:
        ms = int(seconds * 1000)
        key = keys.claim_key(self.run)
        return bool(scripts.renew_claim(self.connection, key, self.token, ms, self.run, self.holder))


@contextmanager
def claimed(
    connection: Redis, run: str, known: Mapping[str, str], client: str, pipeline: str, holder: str = ""
) -> Iterator[Claim]:
    """Hold a claim on a run; compared, set and given back in one step each.

    Args:
        known: The run's hash as it was read, empty for a new one.
        client, pipeline: Whose run it is.
        holder: Key of the holder that must be free, and is kept for the run; '' where none is needed.

    Raises:
        Changed: The run is not as it was read.
        AlreadyRunning: Another has the claim, or a run is active.
        BrokerUnreachable: Redis has no room.
    """
    claim = Claim(connection, run, secrets.token_hex(8), holder)
    was = [known.get(field, "") for field in ("state", "attempt", "ended")]
    key, ms = keys.claim_key(run), int(LASTS * 1000)
    try:
        kind, value = scripts.claim(connection, key, claim.token, ms, keys.run_key(run), *was, run, holder)
    except redis_errors.FULL as exc:
        raise no_room(exc, client, pipeline) from exc
    if text_of(kind) == "changed":
        raise Changed(f"run {run} is {text_of(value) or 'gone'} by now")
    if text_of(kind) == "held":
        refuse_second(text_of(value) or "", client, pipeline)
    over = threading.Event()

    def keep() -> None:
        while not over.wait(LASTS / 4):
            claim.is_ours()

    threading.Thread(target=keep, daemon=True).start()
    try:
        yield claim
    finally:
        over.set()
        with suppress(RedisError):  # it runs out by itself
            claim._extend(0)


def refuse_second(run: str, client: str, pipeline: str) -> NoReturn:
    """Refuse a run, as one of the same client and pipeline has not ended."""
    raise AlreadyRunning(
        f"{client}/{pipeline} is running already as run {run}",
        f"wait for it (rq-etl wait {run}), queue behind it (rq-etl run --queue) or cancel it (rq-etl cancel {run})",
        run=run,
    )


def no_room(exc: Exception, client: str, pipeline: str) -> BrokerUnreachable:
    """Return the error for a run that Redis has no room for."""
    why = redis_errors.full(exc)
    return BrokerUnreachable(f"{why.what}: run of {client}/{pipeline} is not submitted", why.cure)

"""Malformed data in Redis is set aside, so that it stops nobody: of another type or without an end, no text, no number.

Whoever meets an error that such data may explain calls `set_aside`, and so does the hourly cleanup. What is malformed
is moved to `etl:aside:<key>`, from where an operator may look at it, and listed in `etl:aside`, which `doctor` counts.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from redis import Redis
from redis.exceptions import NoPermissionError, ResponseError

from jobs.store.forms import FORMS, Form, is_field, is_id, is_text
from jobs.store.keys import ASIDE, ENTRIES, KEYS, aside_key

KEPT = 30 * 86400  # seconds
MOST = 1000  # entries of `etl:aside`
BATCH = 500  # keys that are asked for together

LOG = logging.getLogger("rq.worker")
Answer = TypeVar("Answer")


class Malformed(NamedTuple):
    """Something in Redis that is not of its shape.

    Args:
        member: Of a set or list, or a field of a hash; None where it is the whole key.
        why: In a few words, without the value.
    """

    key: bytes
    member: bytes | None
    why: str

    def text(self) -> str:
        """Return what it is as one line, whatever bytes its name has."""
        where = shown(self.key) + (f" {shown(self.member)}" if self.member is not None else "")
        return f"{where} ({self.why})"


def shown(name: bytes) -> str:
    """Return a name as printable text of bounded length."""
    text = name.decode(errors="backslashreplace")
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)[:100]


_RQ = (  # RQ's keys, as a pattern, their type, and their form
    (r"rq:queues", "set", "queues"),
    (r"rq:workers(:.+)?", "set", "workers"),
    (r"rq:job:.+:dependents|rq:job::.+:dependencies", "set", "ids"),
    (r"rq:queue:.+", "list", "ids"),
    (r"rq:(wip|finished|failed|deferred|scheduled|canceled|executions):.+", "sorted set", "ids"),
    (ENTRIES, "sorted set", "entries"),
    (r"rq:job:[^:]+", "hash", "job"),
    (r"rq:results:.+", "stream", "any"),
    (r"rq:execution:.+", "hash", "execution"),
    (r"rq:worker:.+", "hash", "worker"),
)
_KNOWN = tuple(
    (re.compile(pattern.encode()), type.replace("sorted set", "zset"), FORMS[form])
    for pattern, type, form in (*((key.expression, key.type, key.form) for key in KEYS if key.type != "any"), *_RQ)
)
_ENDING = tuple((re.compile(key.expression.encode()), key.most) for key in KEYS if key.most)
FIXED = (
    *(key.pattern for key in KEYS if "<" not in key.pattern),
    *("rq:queues", "rq:workers", ENTRIES),
)


def may_be_why(error: BaseException) -> bool:
    """Whether malformed data may be why an error was raised."""
    if isinstance(error, NoPermissionError):
        return False
    return isinstance(error, ResponseError | ValueError | LookupError | TypeError | AttributeError)


def ids(answer: Any) -> list[str]:
    """Return the members that Redis answered as text, those that are ids."""
    return [member.decode() for member in answer if is_id(member)]


def answers(pipe: Any) -> list[Any]:
    """Execute a pipeline of questions; what is asked of a key of another type is answered by None.

    Raises:
        RedisError: It can't be asked, or refuses for another reason.
    """
    found = pipe.execute(raise_on_error=False)
    for each in found:
        if isinstance(each, Exception) and "WRONGTYPE" not in str(each):
            raise each
    return [None if isinstance(each, Exception) else each for each in found]


def passing(connection: Redis, do: Callable[[], Answer]) -> Answer:
    """Do something; where malformed data prevents it, set that aside, report it, and do it once more."""
    try:
        return do()
    except Exception as error:
        if not may_be_why(error) or not set_aside(connection):
            raise
    return do()


def find(connection: Redis, names: Iterable[str] | None = None, *, only_types: bool = False) -> Iterator[Malformed]:
    """Yield what is malformed.

    Args:
        names: Keys to look at; None means all of ours and of RQ's.
        only_types: Whether to ask for the keys' types and no more: one cheap question.
    """
    chosen: Iterable[bytes]
    if names is None:
        chosen = (key for pattern in ("etl:*", "rq:*") for key in connection.scan_iter(pattern, count=BATCH))
    else:
        chosen = (name.encode() for name in names)
    batch: list[bytes] = []
    for key in chosen:
        batch.append(key)
        if len(batch) == BATCH:
            yield from _look_at(connection, batch, only_types)
            batch = []
    yield from _look_at(connection, batch, only_types)


def set_aside(connection: Redis, names: Iterable[str] | None = None, *, only_types: bool = False) -> list[Malformed]:
    """Move what is malformed out of the way, report it in the log, and return it. See `find`."""
    found = list(find(connection, names, only_types=only_types))
    for each in found:
        connection.transaction(partial(_move, each=each), each.key)
    if found:
        now = time.time()
        connection.zadd(ASIDE, {each.text(): now for each in found})
        connection.zremrangebyrank(ASIDE, 0, -MOST - 1)
        connection.expire(ASIDE, KEPT)
    for each in found:
        LOG.warning("malformed data in Redis was set aside: %s", each.text())
    return found


def count(connection: Redis) -> int:
    """Return how much has been set aside in the last month."""
    if connection.type(ASIDE) != b"zset":
        return 0
    return int(connection.zcount(ASIDE, time.time() - KEPT, "+inf"))


def _look_at(connection: Redis, names: Sequence[bytes], only_types: bool) -> Iterator[Malformed]:
    known = {key: found for key in names if (found := _known(key)) is not None}
    pipe = connection.pipeline(transaction=False)
    for key in known:
        pipe.type(key)
    right = []
    for key, is_ in zip(known, pipe.execute(), strict=True):
        type = known[key][0]
        if is_ == type.encode() and not only_types:
            right.append(key)
            _READ[type](pipe, key)
        elif is_ not in (b"none", type.encode()):
            yield Malformed(key, None, f"a {is_.decode()}, not a {type}")
    for key, content in zip(right, pipe.execute(raise_on_error=False), strict=True):
        if not isinstance(content, Exception):
            yield from _wrong(key, *known[key], content)
    ending = [(key, most) for key in right for pattern, most in _ENDING if pattern.fullmatch(key)]
    for key, _ in ending:
        pipe.pttl(key)
    for (key, most), left in zip(ending, pipe.execute(), strict=True):
        if left == -1 or left > most * 1000:
            yield Malformed(key, None, "ends too late")


_READ: dict[str, Callable[[Any, bytes], Any]] = {
    "hash": lambda pipe, key: pipe.hgetall(key),
    "set": lambda pipe, key: pipe.smembers(key),
    "zset": lambda pipe, key: pipe.zrange(key, 0, -1, withscores=True),
    "list": lambda pipe, key: pipe.lrange(key, 0, -1),
    "string": lambda pipe, key: pipe.get(key),
    "stream": lambda pipe, key: pipe.exists(key),
}


def _known(key: bytes) -> tuple[str, Form] | None:
    return next(((type, form) for pattern, type, form in _KNOWN if pattern.fullmatch(key)), None)


def _wrong(key: bytes, type: str, form: Form, content: Any) -> Iterator[Malformed]:
    if content is None or content == {}:
        return  # it is gone since its type was asked
    if type == "string" and not form.value(content):
        yield Malformed(key, None, "not what it should say")
    elif type == "zset":
        for member, score in content:
            # RQ keeps for ever what has ended at an infinite moment.
            is_kept = score > 0 and key.startswith((b"rq:finished:", b"rq:failed:"))
            if not form.member(member) or not (form.score(score) or is_kept):
                yield Malformed(key, member, "wrong score" if form.member(member) else "no id")
    elif type in ("set", "list"):
        yield from (Malformed(key, member, "no id") for member in content if not form.member(member))
    elif type == "hash":
        bad = [name for name, value in content.items() if not is_field(form, name, value)]
        if form.needed and (bad or not form.needed <= {name.decode() for name in content if is_text(name)}):
            fields = ", ".join(map(shown, bad)) or "a field that is missing"
            yield Malformed(key, None, f"malformed: {fields}")
        else:
            yield from (Malformed(key, name, "malformed") for name in bad)


def _move(pipe: Any, each: Malformed) -> None:
    """Move a key, or one member of it, to where nobody but an operator looks."""
    there, member, kind = aside_key(each.key), each.member, pipe.type(each.key)
    if kind == b"none":
        return
    value = b""
    if member is not None:
        if kind == b"hash":
            value = cast(bytes | None, pipe.hget(each.key, member)) or b""
        if pipe.type(there) not in (b"none", b"hash"):
            pipe.delete(there)
    pipe.multi()
    if member is None:
        pipe.rename(each.key, there)
    else:
        pipe.hset(there, member, value)
        if kind == b"hash":
            pipe.hdel(each.key, member)
        elif kind == b"zset":
            pipe.zrem(each.key, member)
        elif kind == b"set":
            pipe.srem(each.key, member)
        else:
            pipe.lrem(each.key, 0, member)
    pipe.expire(there, KEPT)

"""What one worker does, once in an interval, for all of them."""

from redis import Redis

from jobs.store import keys


def once_every(connection: Redis, name: str, seconds: float) -> bool:
    """Whether it is time to do something: true for one caller in so many seconds, whichever process it is."""
    return bool(connection.set(keys.once_key(name), 1, nx=True, px=int(seconds * 1000)))

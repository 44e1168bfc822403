"""`extract.rate`: how often a client's source is asked, over all workers."""

import time

from redis import Redis

from jobs.job import Snooze
from jobs.store import scripts
from jobs.store.keys import rate_key

FOREVER = 1e9  # seconds
PATIENCE = 1.0  # seconds that a worker waits itself; for longer, its job goes back to the queue


class RateLimit:
    """Waits until a client's source may be asked once more.

    Args:
        client, pipeline: Whose source it is.
        rate: Requests a second, at most.
    """

    def __init__(self, connection: Redis, client: str, pipeline: str, rate: float) -> None:
        self.connection = connection
        self.key = rate_key(client, pipeline)
        self.apart = 1 / rate
        self.has_begun = False

    def __call__(self) -> None:
        """Wait for the next request's moment.

        Raises:
            Snooze: It is far off, and this would be the first request: nothing is lost if another job goes first.
        """
        granted, wait = scripts.rate_limit(
            self.connection, self.key, self.apart, FOREVER if self.has_begun else PATIENCE
        )
        if not granted:
            raise Snooze(float(wait))
        self.has_begun = True
        time.sleep(float(wait))

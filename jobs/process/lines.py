"""What a worker and its horse say to each other: JSON values, each a line, over a pair of sockets.

The user's code can write to the socket, too. A line that is no JSON is known at once, whatever stands in it, and nobody
waits for the rest of one: a length before each message would be a promise of bytes that may never come.
"""

import json
import math
import select
import socket
import time
from typing import Any

LONGEST = 16 << 20  # bytes of what a horse may say: a result of 1 MB, written as JSON in JSON, and names of files
STEP = 1 << 18


class Lines:
    """One end of the pair.

    Args:
        end: The socket, which is this object's from now on.
        longest: Bytes of a line that is taken; it is the worker that has to be careful.
    """

    def __init__(self, end: socket.socket, longest: float = math.inf) -> None:
        end.setblocking(False)
        self.end, self._longest = end, longest
        self._poll = select.poll()
        self._taken, self._unsent = bytearray(), bytearray()

    def put(self, value: Any) -> None:
        """Say something; it is sent while `take` waits, so that who does not listen keeps nobody waiting.

        Raises:
            OSError: The other end is closed.
        """
        self._unsent += json.dumps(value).encode() + b"\n"
        self._send()

    def take(self, patience: float = math.inf) -> Any:
        """Return what the other end has said next, or None where it has said nothing, or no whole line, by then.

        Args:
            patience: Seconds to wait at most.

        Raises:
            EOFError: The other end is closed.
            OSError: The other end is gone.
            ValueError: What came is no JSON, or too long.
        """
        give_up = time.monotonic() + max(0.0, patience)
        seen = 0
        while (end := self._taken.find(b"\n", seen)) < 0:
            seen = len(self._taken)
            if seen > self._longest:
                raise ValueError("too long")
            self._poll.register(self.end, select.POLLIN | (select.POLLOUT if self._unsent else 0))
            left = give_up - time.monotonic()
            ready = self._poll.poll(None if left == math.inf else max(0, math.ceil(left * 1000)))
            if not ready:
                return None
            self._send()
            self._receive()
        line = bytes(self._taken[:end])
        del self._taken[: end + 1]
        try:
            return json.loads(line)
        except RecursionError:
            raise ValueError("too deep") from None

    def flush(self) -> None:
        """Send all that was said, however long that takes."""
        self._poll.register(self.end, select.POLLOUT)
        while self._unsent:
            self._poll.poll()
            self._send()

    @property
    def has_more(self) -> bool:
        """Whether something has come that nobody has taken, be it the other end's end."""
        self._poll.register(self.end, select.POLLIN)
        return bool(self._taken or self._poll.poll(0))

    def close(self) -> None:
        """Close this end."""
        self.end.close()

    def _send(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self.end.send(self._unsent[:STEP])]
        except BlockingIOError:
            pass

    def _receive(self) -> None:
        try:
            some = self.end.recv(STEP)
        except BlockingIOError:
            return
        if not some:
            raise EOFError
        self._taken += some

"""Where alerts go in tests: a real mail server and a real webhook on this machine, which refuse when a test says so."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller

PASSWORD = "canary-Pa55w0rd"  # must be nowhere but in the address


@dataclass
class Address:
    """A server that takes messages.

    Args:
        url: What apprise sends to.
        taken: Subjects and texts of the messages that it has taken, in order.
        calls: How many were brought to it.
        refuses: Whether it refuses a call, by its number from 0.
    """

    url: str = ""
    taken: list[tuple[str, str]] = field(default_factory=list)
    calls: int = 0
    refuses: Callable[[int], bool] = lambda number: False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def subjects(self) -> list[str]:
        """The subjects of what it has taken."""
        return [subject for subject, _ in self.taken]

    def take(self, subject: str, text: str) -> bool:
        """Take a message, or refuse it."""
        with self.lock:
            number, self.calls = self.calls, self.calls + 1
            if self.refuses(number):
                return False
            self.taken.append((subject, text))
            return True


def every_second(number: int) -> bool:
    """Refuse half of the calls."""
    return number % 2 == 0


@contextmanager
def webhook() -> Iterator[Address]:
    """A server that takes what apprise posts to `json://`."""
    address = Address()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200 if address.take(given["title"], given["message"]) else 503)
            self.end_headers()

        def do_GET(self) -> None:
            self.send_response(200 if address.take("GET", self.path) else 503)
            self.end_headers()

        def log_message(self, *about: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    address.url = f"json://ops:{PASSWORD}@127.0.0.1:{server.server_port}/hook"
    yield address
    server.shutdown()
    server.server_close()


@contextmanager
def mail_server() -> Iterator[Address]:
    """A server that takes what apprise sends to `mailto://`."""
    address = Address()

    class Handler:
        async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:
            mail = message_from_bytes(envelope.content)
            payload: Any = mail.get_payload(decode=True) or b""
            subject = str(mail["Subject"])
            return "250 OK" if address.take(subject, payload.decode()) else "451 try again later"

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    controller = Controller(Handler(), hostname="127.0.0.1", port=port)
    controller.start()
    address.url = f"mailto://127.0.0.1:{port}?from=etl@example.com&to=ops@example.com&mode=insecure"
    yield address
    controller.stop()

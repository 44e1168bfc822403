"""Eyes on a storm: a browser that asks the dashboard for one page after another."""

import base64
import socket
import threading
import urllib.error
import urllib.request
from collections import Counter

PASSWORD = "storm"
EVERY = 0.3  # seconds between pages
REGISTRIES = ("queued", "started", "deferred", "scheduled", "failed", "finished")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Browser(threading.Thread):
    """Asks for pages until it is stopped.

    Args:
        port: The dashboard's.
        queues: Whose jobs to look at.
    """

    def __init__(self, port: int, queues: list[str]) -> None:
        super().__init__(daemon=True)
        data = [f"rq/0/data/jobs/{queue}/{name}/10/asc/1.json" for queue in queues for name in REGISTRIES]
        self.paths = ["", "rq/0/data/queues.json", "rq/0/data/workers.json", *data]
        self.root = f"http://127.0.0.1:{port}/"
        self.answers: Counter[str] = Counter()
        self._stopped = threading.Event()

    def run(self) -> None:
        """Ask, and count the answers by their status."""
        number = 0
        while not self._stopped.wait(EVERY):
            self.answers[self._ask(self.paths[number % len(self.paths)])] += 1
            number += 1

    def stop(self) -> None:
        """Ask for no more."""
        self._stopped.set()
        self.join()

    def _ask(self, path: str) -> str:
        login = base64.b64encode(f"etl:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(self.root + path, headers={"Authorization": f"Basic {login}"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                return str(answer.status)
        except urllib.error.HTTPError as error:
            return str(error.code)
        except OSError:  # it is not up yet
            return "none"

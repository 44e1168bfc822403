"""A folder's private Redis: its commands share one server, which ends with the process that started it."""

import contextlib
import fcntl
import os
import signal
import stat
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from redis import Redis

from etl.errors import BrokerUnreachable
from jobs.process.spawn import Process, end, spawn
from jobs.store.dial import dial

SOCKET_PATH = 100  # bytes; the kernel takes 107
PATIENCE = 10.0  # seconds a private server may take to start


class PrivateRedis:
    """The private server of a folder, whoever has started it.

    Args:
        program: The path of redis-server.
        folder: The folder of etl.toml; what the server keeps is in its .rq-etl/redis.
    """

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.home = folder.resolve() / ".rq-etl" / "redis"
        self.socket = _socket(self.home)
        self.url = f"unix://{self.socket}"
        self._process: Process | None = None

    @property
    def owned(self) -> bool:
        """Whether it ends with this process."""
        return self._process is not None

    def connect(self, *, start: bool) -> Redis:
        """Return a connection to the server.

        Args:
            start: Whether to start it where it does not run.

        Raises:
            BrokerUnreachable: It does not run, or does not start.
        """
        if not start and not self.home.is_dir():
            raise not_running(self.folder)
        for folder in (self.home.parent, self.home):
            folder.mkdir(exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        with self._locked():  # two commands that start at once share one server
            with contextlib.suppress(BrokerUnreachable):
                return dial(self.url)
            if not start:
                raise not_running(self.folder)
            return self._start()

    def keep(self) -> None:
        """Start the server again where it is this process's own and has died.

        Raises:
            BrokerUnreachable: It does not start.
        """
        if self._process is None or self._process.poll() is None:
            return
        with self._locked():
            with contextlib.suppress(BrokerUnreachable):  # another command of this folder may have started one
                dial(self.url).close()
                return
            self._start().close()

    def stop(self) -> None:
        """Stop the server, if it is this process's own."""
        if self._process is not None:
            end([self._process], signal.SIGTERM, signal.SIGKILL)
            self._process = None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self.home / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _start(self) -> Redis:
        """Start the server and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.home),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        command = [self.program, *(word for name, value in options.items() for word in (f"--{name}", value))]
        with (self.home / "redis.log").open("wb") as log:
            process = spawn(command, signal.SIGTERM, stdout=log, stderr=log)
        try:
            connection = self._wait_for(process)
        except BaseException:
            end([process], signal.SIGTERM, signal.SIGKILL)
            raise
        self._process = process
        return connection

    def _wait_for(self, process: Process) -> Redis:
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return dial(self.url)
            except BrokerUnreachable as error:
                if process.poll() is not None or time.monotonic() > give_up:
                    why = (self.home / "redis.log").read_text(errors="replace").strip().splitlines()[-1:]
                    raise BrokerUnreachable(
                        f"the private Redis in {self.home} does not start: {why[0] if why else error.what}",
                        f"see {self.home}/redis.log, or set REDIS_URL",
                    ) from error
            time.sleep(0.01)


def not_running(folder: Path) -> BrokerUnreachable:
    """Return the error of a folder whose private Redis does not run."""
    return BrokerUnreachable(
        f"no Redis runs for {folder}", "set REDIS_URL (.env beside etl.toml may), or start rq-etl up there"
    )


def _socket(home: Path) -> Path:
    """Return where the socket is: in the folder, or, where that path is too long, in one of our own under /tmp."""
    socket = home / "redis.sock"
    if len(os.fsencode(socket)) <= SOCKET_PATH:
        return socket
    short = Path(tempfile.gettempdir()) / f"rq-etl-{os.getuid()}-{sha256(os.fsencode(home)).hexdigest()[:12]}"
    short.mkdir(mode=0o700, exist_ok=True)
    found = short.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BrokerUnreachable(f"{short} belongs to someone else", "move etl.toml to a folder with a shorter path")
    return short / "redis.sock"

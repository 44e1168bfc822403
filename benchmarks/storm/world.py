"""What a storm shakes: redis-server, PostgreSQL, workers and rqscheduler, each started again when it is dead."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from benchmarks.storm.clock import Clock
from benchmarks.storm.look import PASSWORD, Browser, free_port
from jobs.process.supervisor import worker_command
from jobs.settings import worker_variables
from tests.helpers.postgres import as_postgres, postgres_program
from tests.helpers.processes import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
HOUR = 3600


@dataclass
class Kept:
    """A process that is started again when it has died.

    Args:
        back: Not to be started before this moment (monotonic seconds).
    """

    command: list[str]
    cwd: Path
    environment: Mapping[str, str]
    log: Path
    identity: Mapping[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    back: float = 0.0
    starts: int = 0
    stopped_until: float | None = None

    @property
    def pid(self) -> int:
        """Its process id, 0 where it is dead."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def keep(self) -> None:
        """Start it where it is dead and its time has come."""
        if self.pid or time.monotonic() < self.back:
            return
        self.starts += 1
        command = [word.replace("%n", str(self.starts)) for word in self.command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.cwd, env={**self.environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=die_with_parent, **self.identity,  # type: ignore[call-overload]
            )  # fmt: skip

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self.process is not None and self.pid:
            self.process.send_signal(number)


class World:
    """All processes of a storm, in a folder.

    Args:
        clients: Whose queues are looked at.
        fsync: Redis's `appendfsync`; "off" for one that forgets everything with each restart.
        plain: Stock RQ workers instead of ours, for these queues.
        skew: Whether two workers' clocks are an hour ahead and an hour behind, and Redis's is `clock`.
    """

    def __init__(
        self,
        folder: Path,
        workers: int,
        clients: list[str],
        *,
        lease: float,
        fsync: str,
        plain: list[str] | None = None,
        skew: bool = False,
    ) -> None:
        self.folder, self.lease, self.plain = folder, lease, plain
        self.socket = folder / "redis.sock"
        self.redis_url = f"unix://{self.socket}"
        self.connection = Redis.from_url(self.redis_url, retry=Retry(NoBackoff(), 0))
        variables = worker_variables(self.redis_url, folder / "etl.toml")
        if plain:
            variables = {key: value for key, value in variables.items() if not key.endswith("_CLASS")}
        ours = {**os.environ, **variables, "PYTHONPATH": str(ROOT), "ETL_LEASE": str(lease)}
        self.environment = ours
        server = {"port": 0, "unixsocket": self.socket, "dir": folder, "appendonly": "no" if fsync == "off" else "yes"}
        if fsync != "off":
            server["appendfsync"] = fsync
        words = [word for name, value in server.items() for word in (f"--{name}", str(value))]
        self.clock = Clock(folder, "redis", 0) if skew else None
        its = self.clock.environment if self.clock else {}
        self.redis = Kept(["redis-server", *words, "--save", ""], folder, {**os.environ, **its}, folder / "redis.log")
        self.postgres = self._postgres()
        wrong = [Clock(folder, "ahead", HOUR), Clock(folder, "behind", -HOUR)] if skew else []
        clocks = [clock.environment for clock in wrong] + [{}] * (workers - len(wrong))
        self.workers = [
            Kept(self._worker(number), folder, {**ours, **clock}, folder / f"worker-{number}.log")
            for number, clock in enumerate(clocks, 1)
        ]
        cron = [
            sys.executable,
            "-P",
            "-m",
            "rq_scheduler.scripts.rqscheduler",
            "--url",
            self.redis_url,
            "--interval",
            "2",
        ]
        classes = ["--job-class", "jobs.job.EtlJob", "--queue-class", "jobs.queue.FairQueue"]
        self.cron = Kept([*cron, *classes], folder, ours, folder / "cron.log")
        # RQ's own view cleans registries whenever it is looked at.
        info = [sys.executable, "-P", "-m", "rq.cli", "info", "--interval", "0.5"]
        self.watchers = [Kept(info, folder, ours, Path(os.devnull)) for _ in range(2)]
        self.browser: Browser | None = None
        if not plain:
            port = free_port()
            command = [sys.executable, "-P", "-m", "cli", "dashboard", "--port", str(port)]
            password = {"ETL_DASHBOARD_PASSWORD": PASSWORD}
            self.watchers.append(Kept(command, folder, {**ours, **password}, folder / "dashboard.log"))
            self.browser = Browser(port, [f"etl-{client}" for client in clients])

    def _worker(self, number: int) -> list[str]:
        name = ["--name", f"w{number}-%n"]
        if not self.plain:
            return worker_command(*name)
        # As its documentation has it; the scheduler is what releases retries.
        return worker_command(*name, "--with-scheduler", "--serializer", "json", *self.plain)

    def _postgres(self) -> Kept:
        identity = as_postgres()
        home = self.folder / "pg"
        home.mkdir(mode=0o755)
        if identity:
            os.chown(home, identity["user"], identity["group"])
        data, log = home / "data", self.folder / "postgres.log"
        with log.open("ab") as out:
            subprocess.run(
                [postgres_program("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"],
                check=True, stdout=out, stderr=out, cwd="/", **identity,
            )  # fmt: skip
        settings = {"listen_addresses": "", "unix_socket_directories": str(home), "max_connections": "60"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [postgres_program("postgres"), "-D", str(data), *options]
        self.admin = f"postgresql://postgres@/postgres?host={home}"
        self.url = f"postgresql://postgres@/storm?host={home}"
        return Kept(command, Path("/"), os.environ, log, identity)

    def start(self) -> None:
        """Start the servers, make the database, then the workers."""
        for server in (self.redis, self.postgres):
            server.keep()
        self.until(self.has_postgres, self.has_redis)
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute("CREATE DATABASE storm")
        self.keep()
        if self.browser is not None:
            self.browser.start()

    def until(self, *ready: object) -> None:
        """Poll until all is so."""
        give_up = time.monotonic() + 60
        while not all(each() for each in ready):  # type: ignore[operator]
            if time.monotonic() > give_up:
                raise TimeoutError(f"{self.folder}: servers do not come up")
            self.keep(servers_only=True)
            time.sleep(0.02)

    def keep(self, *, servers_only: bool = False) -> None:
        """Start what has died, and wake what has slept long enough."""
        for each in (self.redis, self.postgres, *([] if servers_only else [*self.workers, self.cron, *self.watchers])):
            each.keep()
        for worker in self.workers:
            if worker.stopped_until is not None and time.monotonic() > worker.stopped_until:
                self.wake(worker)

    def wake(self, worker: Kept) -> None:
        """Let a stopped worker and its horse go on."""
        worker.stopped_until = None
        for pid in (horse_of(worker.pid), worker.pid):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def has_redis(self) -> bool:
        """Whether Redis answers."""
        try:
            return bool(self.connection.ping())
        except RedisError:
            return False

    def has_postgres(self) -> bool:
        """Whether PostgreSQL answers."""
        try:
            psycopg.connect(self.admin, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """End all processes."""
        if self.browser is not None and self.browser.is_alive():
            self.browser.stop()
        for worker in self.workers:
            self.wake(worker)
        for each in (*self.workers, self.cron, *self.watchers):
            for pid in (horse_of(each.pid), each.pid):
                if pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        self.redis.send(signal.SIGKILL)
        self.postgres.send(signal.SIGQUIT)
        for each in (*self.workers, self.cron, *self.watchers, self.redis, self.postgres):
            if each.process is not None:
                each.process.wait(30)


def horse_of(worker: int) -> int:
    """Return the process that runs a worker's jobs: its keeper's child that leads a group; 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):
        for keeper in _leaders_below(worker):
            for horse in _leaders_below(keeper):
                return horse
    return 0


def _leaders_below(pid: int) -> list[int]:
    found = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [child for child in found if os.getpgid(child) == child]

"""Chaos: everything dies at random while clients' runs go on; then every table is compared with the truth.

    python benchmarks/chaos.py --minutes 8 --seed 1
    python benchmarks/chaos.py --minutes 8 --seed 1 --skew          with clocks that are wrong by an hour
    python benchmarks/chaos.py --minutes 8 --seed 1 --plain-rq      the same storm over stock RQ workers

Four workers, a private redis-server (AOF), a private PostgreSQL and rqscheduler are killed, put to sleep and
started again, as a supervisor would, while appends, merges and replaces of dirty files run for several clients. Runs
that fail are retried as an operator would; runs that Redis has lost are submitted again. The truth is worked out from
the files by csv and pandas alone. Prints what was done and found as JSON; the exit code is 1 where a row is lost or
doubled, a count is wrong, a job is stuck, or a page of the dashboard is broken. Two loops of `rq info` and a browser
at the dashboard look on. With --skew one worker's clock is an hour ahead and one's an hour behind, and that of Redis
jumps: an hour ahead, right, an hour behind, ahead again, right.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis.exceptions import RedisError

from benchmarks.storm import check, data
from benchmarks.storm.kills import Killer
from benchmarks.storm.world import HOUR, World
from etl.config.pipeline import resolve
from etl.errors import EtlError
from jobs import settings
from jobs.run import schedules
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import keys, runs

CLOCKS = (HOUR, 0, -HOUR, HOUR, 0)  # of Redis with --skew, in seconds, one after the other
PATIENCE = 240.0  # seconds after the storm in which all must end


@dataclass
class Lane:
    """A client's pipeline, round after round.

    Args:
        run: The run of this round, "" before it is submitted.
        process: A submitter that is killed in the middle of its work.
    """

    client: str
    pipeline: str
    round: int = 0
    run: str = ""
    process: subprocess.Popen[bytes] | None = None
    doomed: float = 0.0
    since: float = 0.0


class Storm:
    """Runs, and what becomes of them.

    Args:
        least: Rounds of each lane, however long the storm lasts.
    """

    def __init__(self, world: World, killer: Killer, dice: random.Random, lanes: list[Lane], **sizes: int) -> None:
        self.world, self.killer, self.dice, self.lanes = world, killer, dice, lanes
        self.least, self.files, self.rows = sizes["least"], sizes["files"], sizes["rows"]
        self.truth = data.Truth()
        self.ended: dict[tuple[str, str, int], dict[str, Any]] = {}
        self.tally: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.given_up: set[str] = set()
        self.over = False

    def tick(self) -> None:
        """Move each lane on by a step, as far as Redis answers."""
        for lane in self.lanes:
            with contextlib.suppress(RedisError):
                self._move(lane)

    @property
    def is_done(self) -> bool:
        """Whether the storm is over and every lane rests."""
        return self.over and not any(lane.run or lane.process or self._is_due(lane) for lane in self.lanes)

    def _is_due(self, lane: Lane) -> bool:
        return lane.round < self.least or not self.over

    def _move(self, lane: Lane) -> None:
        if lane.process is not None:
            self._doom(lane)
        elif lane.run:
            self._look(lane)
        elif self._is_due(lane) or lane.since:
            self._submit(lane)

    def _submit(self, lane: Lane) -> None:
        """Deliver the next round and submit it, or adopt what a submission that was cut off has left."""
        if not lane.since:
            lane.round += 1
            data.deliver(self.world.folder, self.dice, lane.client, lane.pipeline, lane.round, self.files, self.rows)
            self.truth.add(self.world.folder, lane.client, lane.pipeline, lane.round)
            lane.since = time.time()
        elif self._adopt(lane):
            return
        if self.killer.wants_submitter_killed:
            self.killer.wants_submitter_killed -= 1
            command = [sys.executable, "-m", "cli", "run", lane.pipeline, "--client", lane.client]
            lane.process = subprocess.Popen(
                [*command, "--param", f"round={lane.round}"], cwd=self.world.folder, env=self.world.environment,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            lane.doomed = time.monotonic() + self.dice.uniform(0.3, 3.0)
            return
        resolved = resolve(settings.config(), lane.pipeline, lane.client, params={"round": str(lane.round)})
        try:
            lane.run = submit_run(self.world.connection, resolved)
        except EtlError as error:  # such as Redis being away
            self.errors[f"submit: {error.what}"[:100]] += 1

    def _adopt(self, lane: Lane) -> bool:
        """Take over the run that was submitted for this round, if one was."""
        for run in runs.recent(self.world.connection, client=lane.client, since=lane.since - 1):
            mine = run["pipeline"] == lane.pipeline and run["params"].get("round") == str(lane.round)
            if mine and run["run"] not in self.given_up:
                lane.run = run["run"]
                self.tally["runs whose submitter never heard of them"] += 1
                return True
        return False

    def _doom(self, lane: Lane) -> None:
        assert lane.process is not None
        if time.monotonic() > lane.doomed or lane.process.poll() is not None:
            lane.process.kill()
            lane.process.wait()
            lane.process = None
            self._adopt(lane)

    def _look(self, lane: Lane) -> None:
        """See whether the lane's run has ended; retry one that failed, run one again that Redis has lost."""
        connection = self.world.connection
        if connection.sismember(keys.ACTIVE, lane.run):
            return
        found = runs.snapshot(connection, [lane.run])
        if not found or found[0]["state"] not in runs.ENDED:
            if not connection.sismember(keys.ACTIVE, lane.run):
                self.tally["runs lost from Redis, run again"] += 1
                lane.run = ""
            return
        run = found[0]
        if run["state"] == "succeeded":
            self.ended[lane.client, lane.pipeline, lane.round] = run
            self.tally["runs succeeded"] += 1
            self.tally["partitions"] += run["partitions"]["total"]
            lane.run, lane.since = "", 0.0
            return
        self.errors.update(
            failure["error"].split("\n")[0][:100] for failure in run["failures"] or [{"error": run["error"]}]
        )
        try:
            retry_run(settings.config(), connection, lane.run)
            self.tally["runs retried by the operator"] += 1
        except EtlError as error:
            self.errors[f"retry: {error.what}"[:100]] += 1
            if connection.sismember(keys.ACTIVE, lane.run):
                return
            self.tally["runs that could not be retried, run again"] += 1
            self.given_up.add(lane.run)
            lane.run = ""


def chaos(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], bool]:
    """Make a storm in a folder; answers what it has shown, and whether nothing is wrong."""
    dice = random.Random(options.seed)
    clients = [f"c{number}" for number in range(1, options.clients + 1)]
    queues = [f"etl-{client}" for client in (*clients, "cron")] if options.plain_rq else None
    world = World(
        folder, 4, [*clients, "cron"], lease=options.lease, fsync=options.fsync, plain=queues, skew=options.skew
    )
    data.write_project(folder, world.url, clients, options.drag)
    os.environ["ETL_CONFIG"] = str(folder / "etl.toml")
    settings.use(None)
    lanes = [Lane(client, pipeline) for pipeline in data.PIPELINES for client in clients]
    try:
        if world.clock:
            world.clock.set(CLOCKS[0])
        world.start()
        began = time.monotonic()
        killer = Killer(world, dice, sleep=options.sleep, count=options.kills, seconds=options.minutes * 60)
        storm = Storm(world, killer, dice, lanes, least=options.rounds, files=options.files, rows=options.rows)
        if not options.plain_rq:
            data.deliver(folder, dice, "cron", "nightly", 1, 3, options.rows)
            storm.truth.add(folder, "cron", "nightly", 1)
            schedules.sync(settings.config(), world.connection)
        jumps = 0
        while not killer.is_over and time.monotonic() - began < options.minutes * 120:
            part = int((time.monotonic() - began) / (options.minutes * 60 / len(CLOCKS)))
            if world.clock and jumps < min(part, len(CLOCKS) - 1):
                jumps += 1
                world.clock.set(CLOCKS[jumps])
            world.keep()
            killer.tick()
            storm.tick()
            time.sleep(0.02)
        seconds = time.monotonic() - began
        storm.over = True
        give_up = time.monotonic() + options.patience
        while not (storm.is_done and world.has_redis() and world.has_postgres()) and time.monotonic() < give_up:
            world.keep()
            killer.tick()
            storm.tick()
            time.sleep(0.02)
        left = time.monotonic() - began - seconds
        drain(world, killer, nightly=not options.plain_rq)
        verdict = check.judge(world.url, world.connection, storm.truth, storm.ended)
        stuck = [*verdict.stuck, *(f"{lane.client}/{lane.pipeline} round {lane.round}" for lane in lanes if lane.run)]
        recovered = killer.recoveries
        report = {
            "seed": options.seed,
            "seconds": round(seconds),
            "seconds until all had ended": round(left, 1),
            "jumps of Redis's clock": jumps,
            "strikes": killer.kills.total(),
            "of them SIGKILL": killer.sigkills,
            "strikes by kind": dict(sorted(killer.kills.items())),
            **storm.tally,
            "scheduled runs": len(runs.recent(world.connection, client="cron")),
            "recoveries": sum(len(spans) for spans in recovered.seconds.values()),
            "slowest recovery by kind": {
                kind: round(max(spans), 1) for kind, spans in sorted(recovered.seconds.items())
            },
            "slowest recovery": round(recovered.slowest(outage=False), 1),
            "slowest recovery after Redis was away": round(recovered.slowest(outage=True), 1),
            "slowest of all": recovered.worst(),
            "never went on": [struck.job for struck in recovered.waiting],
            "errors of failed partitions": dict(storm.errors.most_common(12)),
            "pages of the dashboard by status": dict(sorted(world.browser.answers.items())) if world.browser else {},
            "worker starts": sum(worker.starts for worker in world.workers),
            "shadow tables left": check.shadows(world.url),
            "wrong": verdict.wrong[:20],
            "stuck": stuck[:20],
            "lost rows": verdict.lost,
            "doubled rows": verdict.doubled,
            "stuck jobs": len(stuck),
        }
        broken = bool(world.browser and world.browser.answers["500"])
        return report, verdict.is_clean and not stuck and not broken
    finally:
        world.stop()


def drain(world: World, killer: Killer, *, nightly: bool) -> None:
    """Let what is being written down be written, and what the schedule has started end."""
    if nightly and not world.connection.hexists("etl:due", "cron/nightly"):  # Redis has lost it
        schedules.sync(settings.config(), world.connection)
    world.cron.back = float("inf")  # no more of them
    world.cron.send(signal.SIGTERM)
    if nightly:
        later = datetime.now(UTC) + timedelta(minutes=1)  # at least one, however short the storm
        schedules.start_due(settings.config(), world.connection, "cron", "nightly", later)
    give_up = time.monotonic() + 90
    while check.stuck(world.connection) and time.monotonic() < give_up and nightly:
        world.keep()
        killer.recoveries.look(world.connection)
        time.sleep(0.1)
    killer.recoveries.look(world.connection)


def main() -> int:
    """Make the storm and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, help="how many strikes (32 a minute)")
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--files", type=int, default=20, help="partitions of a run")
    parser.add_argument("--rows", type=int, default=120, help="rows of a file")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each client's pipeline at least")
    parser.add_argument("--drag", type=float, default=0.4, help="seconds a transform sleeps at most")
    parser.add_argument("--lease", type=float, default=settings.lease(), help="ETL_LEASE of the workers")
    parser.add_argument("--sleep", type=float, default=30, help="seconds that a stopped worker sleeps")
    parser.add_argument(
        "--fsync", default="everysec", choices=("always", "everysec", "off"), help="Redis's appendfsync"
    )
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds for all to end after it")
    parser.add_argument("--skew", action="store_true", help="clocks wrong by an hour, and Redis's jumps (needs cc)")
    parser.add_argument("--plain-rq", action="store_true", help="stock RQ workers with the same stages")
    parser.add_argument("--keep", action="store_true", help="keep the folder with its logs")
    options = parser.parse_args()
    options.kills = options.kills or round(options.minutes * 32)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.chmod(0o755)
    report, clean = chaos(options, folder)
    print(json.dumps(report, indent=1))
    if options.keep or not clean:
        print(f"logs are in {folder}", file=sys.stderr)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())

"""What is left in Redis of 10,000 runs when their retention is over: nothing.

    python benchmarks/retention.py [--runs 10000] [--clients 100]

Small runs go through two workers on a private redis-server: of 20 one fails for its file, one is canceled when it has
been submitted, and some of the failed are retried. Then 180 days pass in steps of one and of ten: each key's life and
each moment in a sorted set is shortened by them, and maintenance and cleanup are done as workers do them. Prints the
keys by kind before and after; the exit code is 1 where a key is left that docs/redis.md does not list among the "Keys
that stay", or more of those than one for each client.
"""

import argparse
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from redis import Redis

from benchmarks import servers
from etl.config.pipeline import resolve
from jobs import settings
from jobs.process import cleanup
from jobs.process.maintenance import UPKEEP, maintain
from jobs.run.cancel import cancel_run
from jobs.run.retry import retry_run
from jobs.run.submit import submit_run
from jobs.store import runs
from jobs.store.keys import PREFIX

DAY = 86400
STEPS = (*[1] * 10, *[10] * 17)  # days: twice the history in all, since `etl:since` lives so long
CONFIG = """
[settings]
staging = "staging"
[targets.warehouse]
url = "sqlite:///warehouse.db"
[pipelines.claims]
extract = {{ type = "csv", path = "inbox/{{client}}/claims.csv", settle = 0 }}
transform = []
load = {{ target = "warehouse", table = "claims", mode = "merge", key = ["claim_id"] }}
retries = 0
[pipelines.claims.columns]
claim_id = {{ type = "string", required = true }}
amount = {{ type = "decimal", min = 0 }}
[defaults]
pipelines = ["claims"]
{clients}
"""
# ARGV: seconds. What is due by then expires.
LET_PASS = """
local cursor, seconds = '0', tonumber(ARGV[1])
repeat
  local found = redis.call('SCAN', cursor, 'COUNT', '1000')
  cursor = found[1]
  for _, key in ipairs(found[2]) do
    local left = redis.call('PTTL', key)
    if left >= 0 then redis.call('PEXPIRE', key, string.format('%d', left - seconds * 1000)) end
    if redis.call('TYPE', key).ok == 'zset' then
      local members = redis.call('ZRANGE', key, '0', '-1', 'WITHSCORES')
      for i = 1, #members, 2 do
        local score = tonumber(members[i + 1])
        if score > 0 then redis.call('ZADD', key, string.format('%.3f', score - seconds), members[i]) end
      end
    end
  end
until cursor == '0'
"""


def main() -> int:
    """Make the runs, let time pass, and print what there was and is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=100)
    options = parser.parse_args()
    os.environ.pop("REDIS_URL", None)
    names = [f"client_{number:03d}" for number in range(options.clients)]
    with servers.folder() as folder:
        (folder / "etl.toml").write_text(CONFIG.format(clients="".join(f"[clients.{name}]\n" for name in names)))
        settings.use(folder / "etl.toml")
        with servers.redis_server(folder) as url:
            connection = Redis.from_url(url)
            began = time.monotonic()
            with servers.workers(url, 2, folder):
                states = make(connection, folder, names, options.runs)
            seconds = time.monotonic() - began
            ended = ", ".join(f"{count:,} {state}" for state, count in states.items())
            print(f"{options.runs:,} runs have ended in {seconds:.0f} s: {ended}", flush=True)
            show("before", connection)
            for days in STEPS:
                let_pass(connection, names, days)
            connection.eval(LET_PASS, 0, DAY)
            left = show(f"{sum(STEPS)} days later", connection)
    kinds, clients = staying(), options.clients
    wrong = [kind for kind, count in left.items() if kind not in kinds or count > clients]
    print(f"left, and should not be: {', '.join(wrong)}" if wrong else "nothing is left but what stays for each client")
    return int(bool(wrong))


def make(connection: Redis, folder: Path, names: list[str], count: int) -> Counter[str]:
    """Submit runs, a new file for each, and return how they ended."""
    states: Counter[str] = Counter()
    number = 0
    while number < count:
        batch = []
        for name in names[: min(len(names), count - number)]:
            number += 1
            file = folder / "inbox" / name / "claims.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            head = "number" if number % 20 == 7 else "claim_id"
            file.write_text(f"{head},amount\nA1,{number}.50\nA2,x\n")
            batch.append(submit_run(connection, resolve(settings.config(), "claims", name)))
            if number % 20 == 13:
                cancel_run(connection, batch[-1])
        wait(connection, batch)
        for run in runs.snapshot(connection, batch):
            if run["state"] == "failed" and number % 400 == 0:
                retry_run(settings.config(), connection, run["run"])
        wait(connection, batch)
        states.update(run["state"] for run in runs.snapshot(connection, batch))
    return states


def wait(connection: Redis, batch: list[str]) -> None:
    """Wait until runs have ended."""
    servers.until(lambda: not {*batch} & {*runs.active(connection)}, "runs", seconds=120)


def let_pass(connection: Redis, names: list[str], days: int) -> None:
    """Move time on, and do what workers do meanwhile."""
    connection.eval(LET_PASS, 0, days * DAY)
    maintain(connection, [*(PREFIX + name for name in names), UPKEEP], all_tasks=True)
    cleanup.clean(connection, settings.config(), time.time())


def show(moment: str, connection: Redis) -> Counter[str]:
    """Print and return how many keys there are, by kind."""
    found = Counter(kind(raw.decode()) for raw in connection.scan_iter(count=1000))
    print(f"\n{moment}: {found.total():,} keys, {connection.info('memory')['used_memory'] / 1e6:,.1f} MB")
    for name, count in found.most_common():
        print(f"  {count:>9,}  {name}")
    return found


def kind(key: str) -> str:
    """Return a key as docs/redis.md has it: names and ids in brackets."""
    key = re.sub(r"client_\d+", "<client>", key)
    key = re.sub(r"(rq:[a-z]+:)etl-\S+", r"\1<queue>", key)
    key = re.sub(r"(:+)[0-9a-z]{10}-\d+-[a-z]+-\d+|(:+)[0-9a-f]{8}-[0-9a-f-]{27}", r"\1\2<id>", key)
    key = re.sub(r"(etl:run:)[0-9a-z]{10}", r"\1<id>", key)
    return re.sub(r":[0-9a-f]{32}|(?<=etl:use):\S+", ":<id>", key)


def staying() -> set[str]:
    """Return the keys that docs/redis.md says stay."""
    text = (servers.ROOT / "docs" / "redis.md").read_text().partition("## Keys that stay\n")[2].partition("\n## ")[0]
    return {*re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)}


if __name__ == "__main__":
    sys.exit(main())

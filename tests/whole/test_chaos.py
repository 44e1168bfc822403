"""The storm in its short form: everything dies at random, and every table is what csv and pandas say it must be."""

import json
import subprocess
import sys

import pytest

from tests.helpers.processes import ROOT
from tests.helpers.redis_server import RedisServer

SHORT = (
    "--minutes 0.35 --kills 14 --seed 7 --clients 2 --rounds 1 --rows 40 --drag 0.3 --lease 3 --sleep 5 --patience 60"
)


@pytest.mark.slow
def test_nothing_is_lost_doubled_or_stuck_whatever_dies(redis_server: RedisServer, postgres_url: str) -> None:
    command = [sys.executable, "benchmarks/chaos.py", *SHORT.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["strikes"] >= 14, report["of them SIGKILL"] >= 8) == (True, True)
    assert report["pages of the dashboard by status"]["200"] > 0
    assert "500" not in report["pages of the dashboard by status"]
    assert (report["lost rows"], report["doubled rows"], report["stuck jobs"], report["wrong"]) == (0, 0, 0, [])
    assert report["runs succeeded"] >= 6

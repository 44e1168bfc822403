"""Many clients at once, through real workers: every run succeeds and RQ's own views show nothing left behind."""

import json
import shutil
import subprocess
import sys

import pytest

from jobs.broker import SERVERS
from tests.helpers.processes import ROOT, give_up


@pytest.mark.slow
def test_a_round_of_thirty_clients_leaves_nothing_behind() -> None:
    if not any(map(shutil.which, SERVERS)):
        give_up("no redis-server or valkey-server on PATH")
    command = [sys.executable, "benchmarks/soak.py", "--clients", "30", "--rounds", "1", "--workers", "4"]
    done = subprocess.run([*command, "--rows", "20"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [line, said] = done.stdout.splitlines()
    shown = json.loads(line)
    assert shown["states"] == {"succeeded": 30}
    assert set(shown["left"].values()) == {0}
    assert shown["trouble"] == []
    assert said == "1 of 1 rounds clean"

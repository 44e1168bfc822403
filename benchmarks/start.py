"""How long commands take to start, and planning and validating at size, each in a process of its own.

python -m benchmarks.start [--rounds 5]
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import claims, servers


def project(where: Path) -> None:
    """Write 2,000 files of one client, and 2,000 clients in files of their own."""
    claims.project(where, "sqlite:///target.db", 1)
    inbox = where / "inbox" / "c000"
    inbox.mkdir(parents=True)
    for number in range(2000):
        (inbox / f"claims-{number:04d}.csv").write_text(claims.HEADER + claims.rows(3, number, f"C{number:04d}"))
    clients = where / "clients"
    clients.mkdir()
    for number in range(2000):
        text = f'timezone = "America/Chicago"\nmax_active = 2\nparams = {{ region = "r{number % 7}" }}\n'
        (clients / f"site{number:04d}.toml").write_text(text)


def main() -> None:
    """Measure each as often as asked for; after a first time that fills the caches."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    script = Path(sys.executable).parent / "rq-etl"
    cli = [str(script)] if script.exists() else [sys.executable, "-m", "cli"]
    cases = {
        "rq-etl --help": ([*cli, "--help"], 0.2),
        "rq-etl plan, 2,000 files": ([*cli, "plan", "claims", "--client", "c000"], 2.0),
        "rq-etl validate, 2,001 clients": ([*cli, "validate"], 2.0),
    }
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(servers.ROOT)
    table: list[tuple[str, ...]] = [("", "seconds (median)", "all rounds", "goal", "of the goal")]
    with servers.folder() as where:
        project(where)
        for name, (command, goal) in cases.items():
            found = []
            for _ in range(asked.rounds + 1):
                began = time.monotonic()
                subprocess.run(command, cwd=where, env=environment, check=True, capture_output=True)
                found.append(time.monotonic() - began)
            median = statistics.median(found[1:])
            each = " ".join(f"{one:.2f}" for one in found[1:])
            table.append((name, f"{median:.2f}", each, f"{goal} s", f"{median / goal:.0%}"))
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        bare = time.monotonic() - began
    servers.report(f"Starting; a bare Python takes {bare:.2f} s", table)


if __name__ == "__main__":
    main()

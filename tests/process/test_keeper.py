"""What is below a process is known, whatever starts and ends meanwhile."""

import os
import subprocess
import threading

from jobs.process.keeper import descendants


def test_processes_that_end_while_those_below_one_are_listed_are_no_error() -> None:
    """It would end a worker that is about to kill what a job has left."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            subprocess.run(["sh", "-c", "true & true & (true; true) & wait"], check=True)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    with subprocess.Popen(["sleep", "60"]) as lasting:
        for thread in threads:
            thread.start()
        try:
            for _ in range(300):
                descendants(os.getpid())
        finally:
            over.set()
            for thread in threads:
                thread.join()
            found = descendants(os.getpid())
            lasting.kill()
    assert lasting.pid in found

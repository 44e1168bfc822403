"""./run sets itself up once, whatever happens, and then only starts. Installing is done by a stand-in for uv."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

UV = """#!/bin/sh
echo "$*" >>"$CALLS"
case $* in
    *requirements.txt*)
        if [ -f "$CALLS.kill" ]; then rm "$CALLS.kill"; kill -9 "$PPID"; fi ;;
    *--editable*)
        for argument; do last=$argument; done
        echo 'import os, sys; print(os.getcwd(), sys.argv[1:])' >"$last/.venv/bin/rq-etl" ;;
esac
"""


class Checkout:
    """A copy of ./run in a folder with a blank in its name, with a stand-in for uv on PATH."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.calls_file = folder / "calls"
        self.root.mkdir()
        for name in ("run", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        uv = folder / "bin" / "uv"
        uv.parent.mkdir()
        uv.write_text(UV)
        uv.chmod(0o755)
        self.env = {"PATH": f"{uv.parent}{os.pathsep}{os.environ['PATH']}", "CALLS": str(self.calls_file)}

    def start(
        self, *args: str, script: Path | None = None, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ./run, without HOME."""
        command = [str(script or self.root / "run"), *args]
        return subprocess.run(
            command, cwd=cwd or self.root, env=env or self.env, capture_output=True, text=True, check=False
        )

    @property
    def set_ups(self) -> int:
        """How often the requirements were installed."""
        calls = self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
        return sum("--require-hashes" in call for call in calls)

    @property
    def calls(self) -> int:
        """How often anything was installed."""
        return len(self.calls_file.read_text().splitlines())


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout that nobody has started yet."""
    return Checkout(tmp_path)


def test_the_second_start_installs_nothing(checkout: Checkout) -> None:
    """And it says nothing, so that --json stays clean."""
    first = checkout.start("demo", "a b")
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"{checkout.root} ['demo', 'a b']\n"
    calls = checkout.calls
    second = checkout.start("demo")
    assert (second.stdout, second.stderr, checkout.calls) == (f"{checkout.root} ['demo']\n", "", calls)


def test_it_works_through_a_link_and_from_any_folder(checkout: Checkout, tmp_path: Path) -> None:
    """The command runs where the user is, not where the checkout is."""
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "etl"
    link.symlink_to("../a checkout/run")
    ran = checkout.start("status", script=link, cwd=link.parent)
    assert ran.stdout == f"{link.parent} ['status']\n"


def test_a_set_up_that_was_killed_is_done_again(checkout: Checkout) -> None:
    """Only a set-up that came to its end counts."""
    Path(f"{checkout.calls_file}.kill").touch()
    assert checkout.start("demo").returncode == 128 + signal.SIGKILL
    assert checkout.start("demo").returncode == 0
    assert checkout.set_ups == 2


def test_two_starts_at_once_make_one_set_up(checkout: Checkout) -> None:
    """The second waits for the first and finds it done."""
    command = [str(checkout.root / "run"), "demo"]
    both = [
        subprocess.Popen(command, env=checkout.env, stderr=subprocess.DEVNULL, stdout=subprocess.PIPE) for _ in "12"
    ]
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0]
    assert checkout.set_ups == 1


@pytest.mark.parametrize(("name", "set_ups"), [("requirements.txt", 2), ("pyproject.toml", 1)])
def test_what_has_changed_is_installed(checkout: Checkout, name: str, set_ups: int) -> None:
    """Other requirements need a new environment; a changed pyproject.toml only a new link to the checkout."""
    checkout.start("demo")
    with (checkout.root / name).open("a") as file:
        file.write("# changed\n")
    calls = checkout.calls
    assert checkout.start("demo").returncode == 0
    assert checkout.set_ups == set_ups
    assert checkout.calls > calls


def test_a_moved_checkout_is_set_up_again(checkout: Checkout, tmp_path: Path) -> None:
    """Scripts in an environment name their interpreter's path."""
    checkout.start("demo")
    checkout.root = checkout.root.rename(tmp_path / "moved")
    assert checkout.start("demo").returncode == 0
    assert checkout.set_ups == 2


def test_an_environment_without_its_python_is_made_anew(checkout: Checkout) -> None:
    """The system's Python was upgraded, and the old one removed."""
    checkout.start("demo")
    python = checkout.root / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(checkout.root / "gone")
    assert checkout.start("demo").returncode == 0
    assert checkout.set_ups == 2


def test_an_old_python_is_reported(checkout: Checkout, tmp_path: Path) -> None:
    """With the version found and what to install."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "dirname", "readlink", "cksum", "cat"):
        (tools / name).symlink_to(str(shutil.which(name)))
    old = tools / "python3"
    old.write_text("#!/bin/sh\ncase $2 in *platform*) echo 3.8.10 ;; *) exit 1 ;; esac\n")
    old.chmod(0o755)
    ran = checkout.start("demo", env={"PATH": str(tools)})
    assert ran.returncode == 2
    assert "needs Python 3.11 or newer; python3 here is 3.8.10" in ran.stderr
    assert "apt install" in ran.stderr

"""The operator's morning: mend, retry, cancel; and commands for all clients at once."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import settings
from tests.commands.test_contract import CONTRACT, check_run
from tests.commands.test_contract import house as house
from tests.commands.test_contract import url as url
from tests.helpers.project import Project


def test_a_file_that_was_fixed_is_read_again_by_retry(house: Project, url: str, work: Callable[[], bool]) -> None:
    """The files that are loaded are not."""
    [path] = list((house.root / "inbox").rglob("claims-2.csv"))
    good = path.read_bytes()
    house.write(str(path.relative_to(house.root)), b"something\nelse\n")
    house("run claims --client acme")
    work()
    failed = house("show acme/claims --json").json
    assert [failure["file"] for failure in failed["failures"]] == [str(path.relative_to(house.root))]
    house.write(str(path.relative_to(house.root)), good)
    assert house("retry acme/claims").code == 0
    work()
    check_run(house("show acme/claims --json").json)


def test_files_with_too_many_rejects_are_read_again_by_retry_once_they_are_fixed(
    house: Project, url: str, work: Callable[[], bool]
) -> None:
    """All of the run waited in the target; what was mended takes the place of what waited."""
    [path] = list((house.root / "inbox").rglob("claims-2.csv"))
    house.config(CONTRACT, ('max_rejects = "5%"', "max_rejects = 25"))
    good = path.read_bytes()
    head, *lines = good.splitlines()
    house.write(str(path.relative_to(house.root)), b"\n".join([head, *(line.split(b";")[0] for line in lines)]))
    house("run claims --client acme")
    work()
    assert house("show acme/claims --json").json["rows"]["loaded"] == 0
    house.write(str(path.relative_to(house.root)), good)
    assert house("retry acme/claims").code == 0
    work()
    check_run(house("show acme/claims --json").json)


def test_cancel_client_ends_also_what_is_held(house: Project, url: str, work: Callable[[], bool]) -> None:
    """Of this client; and nothing held starts in the place of what was active."""
    for _ in range(3):
        house("run claims --client acme --queue")
    said = house("cancel --client acme --json")
    assert [run["state"] for run in said.json] == ["canceled"] * 3
    work()
    assert {run["state"] for run in house("runs --json").json} == {"canceled"}
    assert house("cancel --client acme").out == "no run of acme is active\n"
    assert house("retry --failed").out == "nothing is retried\n"


@pytest.mark.parametrize("command", ["plan claims --all-clients", "run claims --all-clients", "status"])
def test_the_files_of_many_clients_are_looked_at_a_few_times_only(
    house: Project, url: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not once for each client, which makes millions of looks of two thousand clients."""
    for number in range(40):
        house.write(f"clients/c{number:02}.toml", "max_active = 2\n")
        house.write(f"inbox/c{number:02}/claims-1.csv", "claim_id\n")
    looks: list[Path] = []
    looked = settings._clients_changed

    def look(folder: Path) -> int:
        looks.append(folder)
        return looked(folder)

    monkeypatch.setattr(settings, "_clients_changed", look)
    assert house(command).code == 0
    assert 0 < len(looks) < 10

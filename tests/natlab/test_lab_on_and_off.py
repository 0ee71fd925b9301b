"""There is one lab at a time, and nothing is left of it, however its process ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab_sockets import WAIT_FOR_LAB_S
from nat_lab import LabError, LinkQuality, NatLab
from nat_lab.lock import holder
from nat_lab.namespaces import existing

SCRIPTS = Path(__file__).parents[2] / "scripts"
ENDS_WITHIN_S = 20.0
A_LAB_OF_ANOTHER = f"""
import subprocess, sys, signal
from nat_lab import LinkQuality, NatLab
with NatLab(link=LinkQuality(), wait_s={WAIT_FOR_LAB_S}) as lab:
    child = subprocess.Popen(lab.command("a1", ["sleep", "600"]))
    print(child.pid, flush=True)
    signal.pause()
"""

pytestmark = pytest.mark.usefixtures("lab_can_be_built")


@contextmanager
def lab_of_another_process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that has a lab, and the id of one that runs on a host in it."""
    with subprocess.Popen(
        [sys.executable, "-c", A_LAB_OF_ANOTHER], cwd=SCRIPTS, stdout=subprocess.PIPE, text=True
    ) as other:
        try:
            assert other.stdout is not None
            yield other, int(other.stdout.readline())
        finally:
            other.kill()


def natlab(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the lab's command line to its end."""
    return subprocess.run(
        [sys.executable, "-m", "nat_lab", *arguments],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        timeout=ENDS_WITHIN_S + WAIT_FOR_LAB_S,
        check=False,
    )


def wait_until_ended(pid: int) -> None:
    """Wait until a process that is not ours has ended, or is a zombie that nobody asks for."""
    until = time.monotonic() + ENDS_WITHIN_S
    while _runs(pid):
        assert time.monotonic() < until, f"process {pid} goes on"
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()]


def test_nothing_is_left_after_a_lab_in_which_something_failed() -> None:
    processes = []

    def fail_in_a_lab() -> None:
        with NatLab(link=LinkQuality(), wait_s=WAIT_FOR_LAB_S) as lab:
            processes.append(subprocess.Popen(lab.command("a1", ["sleep", "600"])))
            assert existing()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_a_lab()
    (process,) = processes
    assert process.wait(ENDS_WITHIN_S) == -signal.SIGKILL
    assert existing() == []
    assert holder() is None


def test_a_lab_whose_process_was_killed_is_taken_over() -> None:
    with lab_of_another_process() as (other, sleeper):
        cables = [child for child in _children(other.pid) if child != sleeper]
        assert len(cables) == 2
        other.kill()
        other.wait()
        for cable in cables:
            wait_until_ended(cable)
        assert existing()
        with NatLab(wait_s=WAIT_FOR_LAB_S) as lab:
            wait_until_ended(sleeper)
            assert lab.run("a1", ["true"]).returncode == 0
    assert existing() == []


def test_a_second_lab_is_refused_with_the_name_of_the_process_that_has_the_first() -> None:
    with lab_of_another_process() as (other, _):
        with pytest.raises(LabError, match=f"process {other.pid} has the NAT lab"):
            NatLab().__enter__()
        # Nor is it taken down under the feet of its process.
        refused = natlab("down")
        assert refused.returncode == 1
        assert str(other.pid) in refused.stderr
        assert other.poll() is None
    natlab("down")


def test_the_command_line_builds_changes_and_takes_down() -> None:
    up = natlab("up", "--site", "a=symmetric", "--delay-ms", "3")
    assert up.returncode == 0, up.stderr
    table = [line.split() for line in up.stdout.splitlines()]
    try:
        assert ["a3", "10.0.11.2", "a-inner", "(10.0.1.9),", "a", "(45.80.1.21)"] in table
        assert natlab("link", "a", "--delay-ms", "1").returncode == 0
        address = natlab("exec", "b1", "--", "ip", "-brief", "address")
        assert "10.0.2.2" in address.stdout
        unknown = natlab("nat", "a", "conical")
        assert unknown.returncode == 1
        assert "no NAT of kind conical" in unknown.stderr
    finally:
        down = natlab("down")
    assert down.returncode == 0, down.stderr
    assert existing() == []
    assert "no lab stands" in natlab("exec", "a1", "--", "true").stderr

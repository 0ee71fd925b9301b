"""One lab on a machine at a time, as its names and addresses are fixed.

The lock is the kernel's (flock), so that one whose holder died is free at once; the file tells others who holds it.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nat_lab.errors import LabError

FOLDER = Path("/run/sedmad-natlab")
LOCK_PATH = FOLDER / "lock"
POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that has the lab.

    Args:
        pid: of it.
        keeps: it does nothing else, and may be ended to have the lab taken down.
    """

    pid: int
    keeps: bool


class Lock:
    """The right to have a lab.

    Args:
        keeps: this process does nothing but keep it.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self._keeps = keeps
        self._file = -1

    def acquire(self, timeout_s: float = 0.0) -> None:
        """Take the lock, or wait for it.

        Raises:
            LabError: another process has it still.
        """
        FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(LOCK_PATH, os.O_RDWR | os.O_CREAT, 0o600)
        until = time.monotonic() + timeout_s
        while not _locked(file):
            if time.monotonic() >= until:
                os.close(file)
                pid = found.pid if (found := holder()) else "unknown"
                raise LabError(
                    f"process {pid} has the NAT lab, and there is one at a time: scripts/natlab down, "
                    "or wait for the tests that use it"
                )
            time.sleep(POLL_S)
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()} {'keeps' if self._keeps else 'uses'}\n".encode())
        self._file = file

    def release(self) -> None:
        """Give the lock to whoever wants it; nothing where this process does not have it."""
        if self._file >= 0:
            os.ftruncate(self._file, 0)
            os.close(self._file)
            self._file = -1


def holder() -> Holder | None:
    """Return who has the lab, or None where nobody has."""
    with suppress(FileNotFoundError, ValueError):
        pid, purpose = LOCK_PATH.read_text("ascii").split()
        # A holder that was killed left its words behind, and its number may be somebody else's by now.
        if _has_open(int(pid), LOCK_PATH):
            return Holder(int(pid), purpose == "keeps")
    return None


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _has_open(pid: int, path: Path) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            if descriptor.samefile(path):
                return True
    return False

"""A cable between two machines of the lab: a process of its own (`copying.py`) that copies frames between two TAPs.

It ends when its stdin does, hence with whoever laid the cable. Over a Unix socket any process may tell it what to be
like, and ask how many frames it carried.
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from nat_lab.errors import LabError
from nat_lab.link import FrameCounts, LinkQuality
from nat_lab.lock import FOLDER

QUESTION_BYTES_MAX = 1024
# Cable and asker are on one machine; the cable stands still while it answers.
ANSWER_TIMEOUT_S = 5.0
READY_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class End:
    """One end of a cable: a device that it makes on a machine."""

    machine: str
    device: str

    @classmethod
    def parse(cls, text: str) -> End:
        machine, _, device = text.partition("/")
        return cls(machine, device)

    def __str__(self) -> str:
        return f"{self.machine}/{self.device}"


class Cable:
    """A cable that this process lays and takes away.

    Args:
        name: unique among those that are laid.
        near, far: its ends.
        quality: what it is like at first.
        seed: of jitter and loss.
    """

    def __init__(self, name: str, near: End, far: End, quality: LinkQuality, seed: int = 0) -> None:
        command = [sys.executable, "-m", "nat_lab.copying", name, str(near), str(far), "--seed", str(seed)]
        self._process = subprocess.Popen(
            [*command, "--quality", json.dumps(asdict(quality))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is for whoever laid it
            cwd=Path(__file__).parents[1],
        )
        self._name = name

    def wait_ready(self) -> None:
        """Wait until both devices are there. Raises LabError."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        ready, _, _ = select.select([self._process.stdout], [], [], READY_TIMEOUT_S)
        if not ready or not self._process.stdout.readline():
            self._process.kill()
            raise LabError(f"cable {self._name} cannot be laid: {self._process.stderr.read().strip()}")

    def remove(self) -> None:
        """Take the cable away, with its devices."""
        self._process.kill()
        self._process.communicate()
        socket_path(self._name).unlink(missing_ok=True)


def change(name: str, quality: LinkQuality) -> None:
    """Have a cable be like this from now on; frames under way arrive when they were due. Raises LabError."""
    _ask(name, asdict(quality))


def frame_counts(name: str) -> tuple[FrameCounts, FrameCounts]:
    """Return what a cable did with frames: sent into its near end, and into its far end. Raises LabError."""
    there, back = _ask(name, {})
    return FrameCounts(**there), FrameCounts(**back)


def _ask(name: str, question: dict[str, float]) -> list[dict[str, int]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asker:
        asker.settimeout(ANSWER_TIMEOUT_S)
        try:
            asker.connect(str(socket_path(name)))
            asker.send(json.dumps(question).encode())
            answer: list[dict[str, int]] = json.loads(asker.recv(QUESTION_BYTES_MAX))
        except OSError as error:
            raise LabError(f"there is no cable {name}, or it does not answer: {error}") from error
    return answer


def socket_path(name: str) -> Path:
    return FOLDER / f"cable-{name}"

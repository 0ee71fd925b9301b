"""Real daemons as processes, for tests that need them: started, watched, paused, killed, and never left behind.

Whatever a test waits for is bounded, and what the daemons logged is shown where it fails (conftest.py).
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import sedmad
from sedmad.home import Home
from sedmad.wire.messages import NodeState

COMMAND = (sys.executable, "-m", "sedmad.cli.main")
LISTEN = "/ip4/127.0.0.1/tcp/0"
# Four partitions of 8 MiB and no more: larger matrices lie on several nodes, however fast each of them is.
MEMORY, DISK = "32MiB", "256MiB"
# A busy machine is slow and a broken daemon is slower; tests fail by these bounds alone, never because of them.
VERB_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.05
LOG_BYTES_SHOWN = 6000

# Every daemon that was started, for their logs and for ending them whatever happens.
_started: list[Daemon] = []


def patched(module: str, **values: float) -> tuple[str, ...]:
    """Return the command of a daemon in which names of a module have other values."""
    setting = "\n".join(f"module.{name} = {value!r}" for name, value in values.items())
    return (
        sys.executable,
        "-c",
        f"import sys, {module} as module\n{setting}\nfrom sedmad.cli.main import main\nsys.exit(main())",
    )


def wait_until(happened: Callable[[], object], what: str, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Wait until `happened()` is true; AssertionError if it takes too long."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(POLL_S)


@contextmanager
def short_directory() -> Iterator[Path]:
    """A temporary directory whose path leaves room for a socket's; pytest's own are long."""
    directory = Path(tempfile.mkdtemp(prefix="sedmad-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run_verb(
    home: Path, *arguments: str, timeout_s: float = VERB_TIMEOUT_S
) -> subprocess.CompletedProcess[str]:
    """Run `sedmad ARGUMENTS` on a home to its end, as a person would type it."""
    return subprocess.run(
        [*COMMAND, "--home", str(home), *arguments],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def home_of(directory: Path) -> Home:
    return Home.locate(str(directory), {})


class Daemon:
    """A node: its home, and its daemon while that runs.

    Args:
        name: what the mesh calls it.
        home: its state; the log lies beside it.
        memory: pledge for resident copies.
        disk: pledge for all copies.
        command: what `sedmad` is.
    """

    def __init__(
        self,
        name: str,
        home: Path,
        *,
        memory: str = MEMORY,
        disk: str = DISK,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self.name = name
        self.home = home
        self.command = command
        self.log_path = home.with_name(f"{home.name}.log")
        self.peer_id = ""
        self.addresses: list[str] = []
        self.memory = memory
        self.disk = disk
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self.addresses[0].split("/")[4])

    @property
    def socket(self) -> Path:
        return home_of(self.home).control_socket

    def run(self, *arguments: str) -> str:
        """Run a verb that has to succeed; return what it printed."""
        done = run_verb(self.home, *arguments)
        assert done.returncode == 0, f"sedmad {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Return the document that a verb prints."""
        return json.loads(self.run(*arguments, "--json"))

    def connect(self) -> sedmad.Mesh:
        return sedmad.connect(home=self.home)

    def launch(self, *options: str, listen: str = LISTEN) -> Self:
        """Start the daemon's process; `wait_ready` waits until it serves."""
        assert not self.runs
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        arguments = ["--home", str(self.home), "start", "--listen", listen]
        arguments += ["--memory", self.memory, "--disk", self.disk, *options]
        self._process = self._spawn(arguments, self.log_path)
        if self not in _started:
            _started.append(self)
        return self

    def _spawn(self, arguments: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [*_bound_to_this_process(), *self.command, *arguments],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def wait_ready(self) -> Self:
        """Wait until the daemon serves clients and takes part in its mesh."""

        def ready() -> bool:
            assert self.runs, f"the daemon of {self.name} ended by itself:\n{self.log_tail()}"
            for event in self.events():
                if event["event"] == "ready":
                    self.peer_id, self.addresses = event["peer_id"], event["addresses"]
                    return True
            return False

        wait_until(ready, f"{self.name} to be ready")
        with self.connect() as mesh:
            wait_until(lambda: mesh.status().state == NodeState.NODE_STATE_READY, f"{self.name} to take part")
        return self

    def start(self, *options: str, listen: str = LISTEN) -> Self:
        """Start the daemon and wait until it serves."""
        return self.launch(*options, listen=listen).wait_ready()

    def wait_exit(self) -> int:
        """Return the exit code of a daemon that is about to end."""
        return self.process.wait(STOP_TIMEOUT_S)

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal."""
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End the daemon as a power cut would; nothing where it does not run."""
        if self.runs:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def pause(self) -> None:
        """Freeze the daemon: its connections stay open and it says nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen daemon go on."""
        self.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Have the daemon end in order."""
        self.signal(signal.SIGTERM)
        assert self.wait_exit() == 0, f"{self.name} did not end well:\n{self.log_tail()}"

    def events(self) -> list[dict[str, Any]]:
        """Return what the daemon logged since it was started last."""
        text = self.log_path.read_bytes()[self._log_start :].decode(errors="replace")
        found = []
        # A line without its end is still being written.
        for line in text.split("\n")[:-1]:
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def log_tail(self) -> str:
        """Return the end of the log, for people."""
        return self.log_path.read_bytes()[-LOG_BYTES_SHOWN:].decode(errors="replace")

    def blob_bytes(self) -> int:
        """Return the bytes of all files below the daemon's blobs, temporary ones included."""
        sizes = 0
        for path in home_of(self.home).blobs.rglob("*"):
            with suppress(FileNotFoundError):
                sizes += path.stat().st_size if path.is_file() else 0
        return sizes


def logs() -> dict[str, str]:
    """Return the end of each log that is still there, by the daemon's name."""
    return {daemon.name: daemon.log_tail() for daemon in _started if daemon.log_path.exists()}


def _environment() -> dict[str, str]:
    """Return this environment without the user's own settings of a node."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SEDMAD_")}


def _bound_to_this_process() -> tuple[str, ...]:
    """Return what has the kernel kill a child when the tests themselves are killed, where there is such a program."""
    program = shutil.which("setpriv")
    return (program, "--pdeathsig", "KILL", "--") if program else ()


@atexit.register
def _kill_all() -> None:
    for daemon in _started:
        daemon.kill()

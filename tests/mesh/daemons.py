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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sedmad
from sedmad.home import Home
from sedmad.net.credentials import Credentials
from sedmad.net.identity import Identity
from sedmad.node.bootstrap import BOOTSTRAP_FILE, save_bootstrap
from sedmad.node.clock import wall_time_s
from sedmad.wire.messages import NodeState, PeerState

COMMAND = (sys.executable, "-m", "sedmad.cli.main")
LISTEN = "/ip4/127.0.0.1/tcp/0"
MEMORY, DISK = "64MiB", "256MiB"
# A busy machine is slow and a broken daemon is slower; tests fail by these bounds alone, never because of them.
VERB_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
POLL_S = 0.05
LOG_BYTES_SHOWN = 6000

# Every daemon that was started, for their logs and for ending them whatever happens.
_started: list[Daemon] = []


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
        self._pledges = ("--memory", memory, "--disk", disk)
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
        return _home(self.home).control_socket

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
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *_bound_to_this_process(),
                    *self.command,
                    "--home",
                    str(self.home),
                    "start",
                    "--listen",
                    listen,
                    *self._pledges,
                    *options,
                ],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        if self not in _started:
            _started.append(self)
        return self

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
        for path in _home(self.home).blobs.rglob("*"):
            with suppress(FileNotFoundError):
                sizes += path.stat().st_size if path.is_file() else 0
        return sizes


class MeshOfDaemons:
    """Nodes of one mesh, on this machine; leaving its `with` block ends all of them.

    Their homes are made as `init` and `join` make them, without the seconds that real ones take (test_set_up.py has
    those).

    Args:
        folder: an empty directory with a short path.
        names: of the nodes; the first one founds the mesh.
    """

    def __init__(self, folder: Path, names: Iterable[str], *, memory: str = MEMORY, disk: str = DISK) -> None:
        self.daemons = {name: Daemon(name, folder / name, memory=memory, disk=disk) for name in names}
        self.founder = next(iter(self.daemons.values()))
        self._make_homes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self.daemons.values():
            daemon.kill()

    def __getitem__(self, name: str) -> Daemon:
        return self.daemons[name]

    def __iter__(self) -> Iterator[Daemon]:
        return iter(self.daemons.values())

    def called(self, peer_id: str) -> Daemon:
        """Return the daemon of a peer id."""
        return next(daemon for daemon in self if daemon.peer_id == peer_id)

    def start(self) -> Self:
        """Start all daemons, and wait until each knows all others."""
        self.founder.start()
        for daemon in self:
            if daemon is not self.founder:
                self.introduce(daemon)
                daemon.launch()
        for daemon in self:
            daemon.wait_ready()
        self.wait_complete()
        return self

    def introduce(self, daemon: Daemon) -> None:
        """Tell a node where the founder listens now, as the token of its invitation did."""
        path = _home(daemon.home).certificates / BOOTSTRAP_FILE
        save_bootstrap(path, {self.founder.peer_id: tuple(self.founder.addresses)})

    def wait_complete(self) -> None:
        """Wait until every daemon that runs has a session with every other that does."""
        running = [daemon for daemon in self if daemon.runs]
        for daemon in running:
            others = {other.peer_id for other in running if other is not daemon}
            with daemon.connect() as mesh:
                wait_until(partial(_has_met, mesh, others), f"{daemon.name} to meet the others")

    def wait_state(self, of: Daemon, state: PeerState.ValueType) -> None:
        """Wait until every other daemon that runs sees one in this state."""
        for daemon in self:
            if daemon is not of and daemon.runs:
                with daemon.connect() as mesh:
                    wait_until(
                        lambda: any(p.peer_id == of.peer_id and p.state == state for p in mesh.peers()),
                        f"{daemon.name} to see {of.name} as {PeerState.Name(state)}",
                    )

    def _make_homes(self) -> None:
        now_s = int(wall_time_s())
        identity = Identity.make()
        founded = Credentials.found_mesh(identity, self.founder.name, now_s=now_s)
        for daemon in self:
            home = _home(daemon.home)
            home.create()
            if daemon is self.founder:
                identity.save(home.identity_key)
                founded.save(home.certificates)
                continue
            member = Identity.make()
            chain = founded.admit(identity, member.public_key, daemon.name, now_s=now_s)
            member.save(home.identity_key)
            Credentials(founded.root_public_key, chain).save(home.certificates)


def attached(mesh: sedmad.Mesh) -> set[str]:
    """Return the peer ids of the living with whom a node has a session."""
    return {peer.peer_id for peer in mesh.peers() if peer.state == PeerState.PEER_STATE_ALIVE and peer.path}


def _has_met(mesh: sedmad.Mesh, others: set[str]) -> bool:
    return others <= attached(mesh)


def logs() -> dict[str, str]:
    """Return the end of each log that is still there, by the daemon's name."""
    return {daemon.name: daemon.log_tail() for daemon in _started if daemon.log_path.exists()}


def _home(directory: Path) -> Home:
    return Home.locate(str(directory), {})


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

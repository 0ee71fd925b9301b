"""Nodes on this machine: daemons as child processes, set up with the same verbs that a person would type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import sedmad
from sedmad.errors import DaemonNotRunning, LocalError, OperationalError
from sedmad.wire.messages import NodeState, PeerState

COMMAND = (sys.executable, "-m", "sedmad.cli.main")
# The demo's own bounds: a machine that needs longer than this is too busy to show anything.
VERB_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
POLL_S = 0.05
LOG_LINES_SHOWN = 5


class LocalNode:
    """One node: its name, its home, and its daemon while that runs.

    Args:
        name: what the mesh calls it.
        folder: where its home and its log are made; a short path, because its socket is below it.
        memory: pledge for resident copies.
        disk: pledge for all copies.
    """

    def __init__(self, name: str, folder: Path, *, memory: str, disk: str = "2GiB") -> None:
        self.name = name
        self.home = folder / name
        self.memory = memory
        self.log_path = folder / f"{name}.log"
        self._pledges = ("--memory", memory, "--disk", disk)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int:
        """The daemon's; LookupError if it does not run."""
        if self._process is None:
            raise LookupError(f"{self.name} does not run")
        return self._process.pid

    def run(self, *arguments: str) -> str:
        """Run a verb on this node's home to its end, and return what it printed.

        Raises:
            OperationalError: it failed, or took too long.
        """
        process: subprocess.Popen[str] | None = None
        try:
            with _interrupt_held_back():
                process = subprocess.Popen(
                    [*COMMAND, *arguments],
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            output, errors = process.communicate(timeout=VERB_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise OperationalError(
                f"sedmad {arguments[0]} did not end on {self.name}", why=f"{VERB_TIMEOUT_S:g} s were allowed"
            ) from error
        finally:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            raise OperationalError(
                f"sedmad {arguments[0]} failed on {self.name}", why=errors.strip(), node=self.name
            )
        return output.strip()

    def start(self) -> None:
        """Start the daemon; `wait_ready` says when it listens."""
        with self.log_path.open("ab") as log, _interrupt_held_back():
            self._process = subprocess.Popen(
                [*COMMAND, "start", *self._address_options(), *self._pledges],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for whoever started the nodes, who then stops them in order.
                process_group=0,
            )

    def wait_ready(self) -> None:
        """Wait until the daemon answers.

        Raises:
            LocalError: it ended instead; the error shows the end of its log.
            OperationalError: it takes too long.
        """

        def ready() -> bool:
            if self._process is not None and self._process.poll() is not None:
                lines = self.log_path.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:]
                raise LocalError(
                    f"the daemon of {self.name} ended by itself", why="\n".join(lines), node=self.name
                )
            try:
                with self.connect() as mesh:
                    return mesh.status().state == NodeState.NODE_STATE_READY
            except DaemonNotRunning:
                return False

        _wait_for(ready, f"{self.name} to answer")

    def connect(self) -> sedmad.Mesh:
        return sedmad.connect(home=self.home)

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon a signal: SIGSTOP freezes it, SIGCONT lets it go on."""
        os.kill(self.process_id, number)

    def kill(self) -> None:
        """End the daemon as a power cut would: it can say and save nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End the daemon in order, or by force where it does not react."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_TIMEOUT_S)
            self.kill()

    def _address_options(self) -> tuple[str, ...]:
        """Return the options that say where the daemon listens from now on."""
        return ("--listen", "/ip4/127.0.0.1/tcp/0")

    def _environment(self) -> dict[str, str]:
        """Return the environment without this user's own settings of a node."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SEDMAD_")}
        return kept | {"SEDMAD_HOME": str(self.home)}


@contextmanager
def _interrupt_held_back() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block: in mid-start it would leave a process that nobody knows of."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if held:
            signal.raise_signal(signal.SIGINT)


class LocalMesh:
    """Nodes that form one mesh; leaving its `with` block ends all of them.

    Args:
        nodes: without a mesh yet; the first one founds it.
    """

    def __init__(self, nodes: Iterable[LocalNode]) -> None:
        self.nodes = {node.name: node for node in nodes}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self.nodes.values():
            node.stop()

    def __getitem__(self, name: str) -> LocalNode:
        return self.nodes[name]

    def form(self, tell: Callable[[LocalNode, str], None] = lambda node, verb: None) -> None:
        """Found the mesh, have every node join it, and wait until all know each other.

        Args:
            tell: called before every step with the node and the verb that it runs.

        Raises:
            SedmadError: a verb failed, or a daemon did not come up.
        """
        founder, *others = self.nodes.values()
        tell(founder, "init")
        founder.run("init", "--name", founder.name)
        tell(founder, "start")
        founder.start()
        founder.wait_ready()
        for node in others:
            token = founder.run("invite")
            tell(node, "join")
            node.run("join", token, "--name", node.name)
            tell(node, "start")
            node.start()
        self.wait_complete()

    def wait_complete(self) -> None:
        """Wait until every node answers and has a session with every other."""
        for node in self.nodes.values():
            node.wait_ready()
        for node in self.nodes.values():
            _wait_for(lambda node=node: self._knows_all(node), f"{node.name} to meet the others")  # type: ignore[misc]

    def _knows_all(self, node: LocalNode) -> bool:
        with node.connect() as mesh:
            known = [
                peer
                for peer in mesh.peers()
                if peer.state == PeerState.PEER_STATE_ALIVE
                and peer.node_state == NodeState.NODE_STATE_READY
                and peer.path
            ]
        return len(known) == len(self.nodes) - 1


def _wait_for(happened: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + READY_TIMEOUT_S
    while not happened():
        if time.monotonic() > until:
            raise OperationalError(f"waited in vain for {what}", why=f"{READY_TIMEOUT_S:g} s have passed")
        time.sleep(POLL_S)

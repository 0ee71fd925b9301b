"""A run from the first daemon to the last: forms a mesh, loads it, breaks it, and judges what came of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sedmad.cli.demo.nodes import LocalMesh
from sedmad.errors import UsageError
from sedmad.testing.chaos.catalogue import Catalogue, steady_bytes
from sedmad.testing.chaos.changes import Changes
from sedmad.testing.chaos.clients import Client
from sedmad.testing.chaos.faults import FaultKind, plan
from sedmad.testing.chaos.history import History
from sedmad.testing.chaos.injection import Injection
from sedmad.testing.chaos.inspection import inspect
from sedmad.testing.chaos.network import Network
from sedmad.testing.chaos.nodes import ChaosNode
from sedmad.testing.chaos.repairs import Repairs
from sedmad.testing.chaos.slow_disk import SlowDisk, SlowDiskUnavailable

NODE_NAMES = "abcdefghijklmnopqrstuvwxyz"
# All others together hold everything once, and half as much again, when `survive` nodes are away.
ROOM = 1.5
DISK = "2GiB"
NAMES_TIMEOUT_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Settings:
    """What to run.

    Attributes:
        nodes: how many daemons.
        seconds, products: when it is over, whichever comes first.
        fault_every_s: from the beginning of a fault to that of the next.
        seed: faults, matrices, questions and changes are drawn from it.
        kinds: of faults.
        survive: of all matrices.
        in_flight: products at a time, of each client.
        clients: how many users. One alone keeps its node to itself: that is not hit.
        at_once: how many faults may be under way at a time.
        longest_s: no fault lasts longer.
    """

    nodes: int = 5
    seconds: float = float("inf")
    products: float = float("inf")
    fault_every_s: float = 60.0
    seed: int = 0
    kinds: tuple[FaultKind, ...] = tuple(FaultKind)
    survive: int = 1
    in_flight: int = 4
    clients: int = 1
    at_once: int = 1
    longest_s: float = 30.0

    def check(self) -> None:
        """Raises:
        UsageError: it cannot be run.
        """
        if not self.survive + 2 <= self.nodes <= len(NODE_NAMES):
            raise UsageError(
                f"{self.nodes} nodes will not do",
                why=f"survive {self.survive} and a node that is hit need {self.survive + 2} to {len(NODE_NAMES)}",
            )
        if min(self.in_flight, self.clients, self.at_once) < 1 or self.fault_every_s <= 0:
            raise UsageError(
                "a number is too small", why="in flight, clients, faults at once and seconds are above 0"
            )


class Run:
    """One run.

    Args:
        settings: what to run; checked.
        folder: empty; homes and logs are made in it, and stay. A short path: sockets are below it.
        tell: is told what happens, for people.
    """

    def __init__(self, settings: Settings, folder: Path, tell: Callable[[str], None]) -> None:
        self.settings = settings
        self.history = History()
        self.catalogue = Catalogue(settings.seed)
        self._tell = tell
        self._network = Network(self._name_of)
        names = NODE_NAMES[: settings.nodes]
        memory_bytes = int(ROOM * steady_bytes() / (settings.nodes - settings.survive))
        self.nodes = {
            name: ChaosNode(name, folder, self._network, memory=f"{memory_bytes >> 20}MiB", disk=DISK)
            for name in names
        }
        self.repairs = Repairs(self.nodes, self.history)
        self._folder = folder

    def run(self, watch: Callable[[], None]) -> None:
        """Run it all. Ctrl-C ends it in order, and what happened until then is in the history.

        Args:
            watch: called several times a second while products are asked for.

        Raises:
            SedmadError: the mesh cannot be formed or filled.
        """
        with ExitStack() as stack:
            stack.callback(self._network.close)
            mesh = stack.enter_context(LocalMesh(self.nodes.values()))
            slow_disk = self._slow_disk(stack)
            self._tell(f"{len(self.nodes)} daemons are being set up in {self._folder}")
            mesh.form()
            changes = Changes(
                self.nodes,
                self.catalogue,
                self.history,
                seed=self.settings.seed,
                survive=self.settings.survive,
            )
            changes.store_all()
            self._wait_for_names()
            self.history.started_s = time.monotonic()
            self.repairs.start()
            try:
                self._load(changes, slow_disk, watch)
                self._tell("looking whether everything is still there")
                inspect(self.nodes, self.catalogue, self.history, survive=self.settings.survive)
            finally:
                self.repairs.stop()

    def logged_errors(self) -> dict[str, Counter[str]]:
        """Return how often each node logged each event as an error."""
        return {name: node.logged_errors() for name, node in self.nodes.items()}

    def _load(self, changes: Changes, slow_disk: SlowDisk | None, watch: Callable[[], None]) -> None:
        settings, history = self.settings, self.history
        clients = [
            Client(
                number,
                self.nodes,
                self.catalogue,
                history,
                seed=settings.seed,
                in_flight=settings.in_flight,
            )
            for number in range(settings.clients)
        ]
        injection = Injection(
            self.nodes,
            self._network,
            slow_disk,
            history,
            every_s=settings.fault_every_s,
            at_once=settings.at_once,
            survive=settings.survive,
            tell=lambda text: self._tell(f"{history.elapsed_s():6.1f} s  {text}"),
        )
        kinds = [kind for kind in settings.kinds if kind not in history.skipped]
        spared = 1 if settings.clients == 1 else 0
        try:
            for client in clients:
                client.start()
            changes.start()
            if kinds:
                names = list(self.nodes)[spared:]
                faults = plan(
                    settings.seed,
                    kinds,
                    names,
                    survive=settings.survive,
                    everybody=list(self.nodes),
                    longest_s=settings.longest_s,
                )
                injection.start(faults)
            while history.elapsed_s() < settings.seconds and history.product_count() < settings.products:
                time.sleep(POLL_S)
                self._restart_ended()
                watch()
        except KeyboardInterrupt:
            self._tell("interrupted")
        finally:
            if kinds:
                injection.stop()
            changes.stop()
            for client in clients:
                client.stop()
            history.ended_s = time.monotonic()

    def _restart_ended(self) -> None:
        """Note daemons that ended though nobody killed them, and start them again."""
        for node in self.nodes.values():
            if node.ended_by_itself and node.name not in self.history.hit():
                self.history.note_problem(
                    f"the daemon of {node.name}", f"it ended by itself; see {node.log_path}"
                )
                node.start()

    def _wait_for_names(self) -> None:
        """Wait until every node has heard of every name."""
        until_s = time.monotonic() + NAMES_TIMEOUT_S
        for node in self.nodes.values():
            with node.connect() as mesh:
                while len(mesh.summaries()) < len(self.catalogue.entries) and time.monotonic() < until_s:
                    time.sleep(POLL_S)

    def _slow_disk(self, stack: ExitStack) -> SlowDisk | None:
        if FaultKind.SLOW_DISK not in self.settings.kinds:
            return None
        try:
            slow_disk = SlowDisk(self._folder)
        except SlowDiskUnavailable as error:
            self.history.skipped[FaultKind.SLOW_DISK] = str(error)
            self._tell(f"no slow disks: {error}")
            return None
        stack.callback(slow_disk.close)
        return slow_disk

    def _name_of(self, port: int) -> str:
        return next((name for name, node in self.nodes.items() if node.owns_port(port)), "")

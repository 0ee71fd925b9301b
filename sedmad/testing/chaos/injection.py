"""Does what the plan says: one fault after the other, undone in time, and watched until the nodes are back."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping

from sedmad.errors import SedmadError
from sedmad.testing.chaos.faults import Fault, FaultKind
from sedmad.testing.chaos.history import History, Injury, told
from sedmad.testing.chaos.inspection import what_is_lacking
from sedmad.testing.chaos.network import Network
from sedmad.testing.chaos.nodes import ChaosNode
from sedmad.testing.chaos.slow_disk import SlowDisk

# While connections are cut they are cut this often.
CUT_EVERY_S = 0.5
# A node that took no part for 30 s was given up by all others; to be heard of again takes them some of their turns.
BACK_TIMEOUT_S = 60.0
# What a repair put off, and what a node with an empty disk has to hear of, takes some rounds of comparing.
WHOLE_TIMEOUT_S = 180.0
POLL_S = 0.1
WHOLE_POLL_S = 0.5


class Injection:
    """Faults in a row, on a thread each.

    Args:
        nodes: all of them, by name.
        network: between them.
        slow_disk: None where disks cannot be slowed down, and the plan holds no such fault.
        history: is told of every fault.
        every_s: from the beginning of a fault to that of the next; longer where one lasts longer.
        at_once: how many may be under way at a time.
        survive: of all matrices; a disk is not emptied before everything has so many copies more than one.
        tell: is told of every fault when it begins and when it is over.
    """

    def __init__(
        self,
        nodes: Mapping[str, ChaosNode],
        network: Network,
        slow_disk: SlowDisk | None,
        history: History,
        *,
        every_s: float,
        at_once: int,
        survive: int,
        tell: Callable[[str], None],
    ) -> None:
        self._nodes = nodes
        self._network = network
        self._slow_disk = slow_disk
        self._history = history
        self._every_s = every_s
        self._at_once = at_once
        self._survive = survive
        self._tell = tell
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, plan: Iterator[Fault]) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(plan,), name="faults", daemon=True))
        self._threads[0].start()

    def stop(self) -> None:
        """Undo what is under way, begin nothing more, and wait until all nodes are back."""
        self._done.set()
        # The first thread adds others until it ends.
        for thread in self._threads:
            thread.join()

    def _run(self, plan: Iterator[Fault]) -> None:
        for fault in plan:
            if self._done.wait(self._every_s):
                return
            while not self._may_begin(fault):
                if self._done.wait(POLL_S):
                    return
            if fault.kind.is_alone and not self._wait_whole(f"before {fault}"):
                continue
            if self._done.is_set():
                return
            injury = self._history.begin(fault)
            thread = threading.Thread(target=self._inflict, args=(injury,), name=str(fault), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _may_begin(self, fault: Fault) -> bool:
        under_way = [injury for injury in self._history.injuries if injury.ended_s is None]
        if under_way and (fault.kind.is_alone or any(injury.fault.kind.is_alone for injury in under_way)):
            return False
        return len(under_way) < self._at_once and not self._history.hit() & set(fault.nodes)

    def _inflict(self, injury: Injury) -> None:
        fault = injury.fault
        self._tell(f"{fault}")
        try:
            self._do(fault)
            injury.undone_s = time.monotonic()
            self._wait_back(fault)
            if fault.kind.is_alone:
                self._wait_whole(f"after {fault}")
        except SedmadError as error:
            self._history.note_problem(f"after {fault}", told(error), injury.began_s)
        injury.ended_s = time.monotonic()
        undone_s = injury.undone_s or injury.ended_s
        self._tell(f"#{fault.number} is over, back {injury.ended_s - undone_s:.1f} s after it was undone")

    def _do(self, fault: Fault) -> None:
        """Let a fault happen, and undo it after its time, or at once when nothing shall happen any more."""
        node = self._nodes[fault.nodes[0]]
        match fault.kind:
            case FaultKind.KILL | FaultKind.OFF | FaultKind.DISK:
                nodes = [self._nodes[name] for name in fault.nodes]
                for node in nodes:
                    node.kill()
                if fault.kind is FaultKind.DISK:
                    node.wipe()
                self._done.wait(fault.duration_s)
                for node in nodes:
                    node.start()
                for node in nodes:
                    node.wait_ready()
            case FaultKind.STOP:
                node.signal(signal.SIGSTOP)
                self._done.wait(fault.duration_s)
                node.signal(signal.SIGCONT)
            case FaultKind.SPLIT:
                with self._network.split(frozenset(fault.nodes)):
                    self._done.wait(fault.duration_s)
            case FaultKind.CUT:
                until_s = time.monotonic() + fault.duration_s
                self._network.cut(node.name)
                while time.monotonic() < until_s and not self._done.wait(CUT_EVERY_S):
                    self._network.cut(node.name)
            case FaultKind.SLOW_DISK:
                assert self._slow_disk is not None, "the plan must not hold what cannot be done"
                with self._slow_disk.slowing(node.process_id):
                    self._done.wait(fault.duration_s)

    def _wait_whole(self, when: str) -> bool:
        """Wait until every copy that manifests speak of is there; note the problem, and return False, if never.

        Only then may a disk be emptied, and another one after it.
        """
        until_s = time.monotonic() + WHOLE_TIMEOUT_S
        while lacking := what_is_lacking(self._nodes, survive=self._survive):
            if time.monotonic() > until_s:
                self._history.note_problem(f"not whole after {WHOLE_TIMEOUT_S:g} s, {when}", lacking)
                return False
            time.sleep(WHOLE_POLL_S)
        return True

    def _wait_back(self, fault: Fault) -> None:
        """Wait until the nodes that were hit, and those that are not hit now, see each other.

        Raises:
            SedmadError: a daemon does not answer.
        """
        until_s = time.monotonic() + BACK_TIMEOUT_S
        while missing := self._missing(fault):
            if time.monotonic() > until_s:
                what = ", ".join(f"{one} does not see {other}" for one, other in sorted(missing))
                self._history.note_problem(f"{BACK_TIMEOUT_S:g} s after {fault} was undone", what)
                return
            time.sleep(POLL_S)

    def _missing(self, fault: Fault) -> set[tuple[str, str]]:
        """Return the pairs of which the first does not see the second, as far as both should."""
        ours = set(fault.nodes)
        present = set(self._nodes) - (self._history.hit() - ours)
        return {
            (name, other)
            for name in present
            for other in present - {name} - self._nodes[name].neighbours()
            if name in ours or other in ours
        }

"""Watches what the daemons copy to make good what was lost. A node counts from its last start: here it is added up."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from sedmad.errors import SedmadError
from sedmad.testing.chaos.history import History
from sedmad.testing.chaos.nodes import ChaosNode
from sedmad.wire.messages import GetStatusResponse

POLL_S = 0.5


class Repairs:
    """Asks every node that is not hit what its repairs are at.

    Args:
        nodes: all of them, by name.
        history: says who is hit.

    Attributes:
        restored_bytes: copied by all repairs that were seen to end.
        longest_s: for how long one matrix was under repair without a pause; None where none was.
        longest_of: its names.
    """

    def __init__(self, nodes: Mapping[str, ChaosNode], history: History) -> None:
        self.restored_bytes = 0
        self.longest_s: float | None = None
        self.longest_of = ""
        self._nodes = nodes
        self._history = history
        self._counted: dict[str, int] = {}
        # When the repair of a matrix was seen first, by owner and names.
        self._since_s: dict[tuple[str, str], float] = {}
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="repairs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look once more, and not again."""
        self._done.set()
        self._thread.join()
        self._look()

    def take_in(self, node: str, status: GetStatusResponse, now_s: float) -> None:
        """Count what a node tells of its repairs."""
        before = self._counted.get(node, 0)
        # Fewer than before: it has been started again.
        new = status.restored_bytes - (before if status.restored_bytes >= before else 0)
        self.restored_bytes += new
        self._counted[node] = status.restored_bytes
        under_repair = {(node, ", ".join(repair.names)) for repair in status.repairs if repair.step_bytes}
        for key in [key for key in self._since_s if key[0] == node and key not in under_repair]:
            del self._since_s[key]
        for key in under_repair:
            took_s = now_s - self._since_s.setdefault(key, now_s)
            if self.longest_s is None or took_s > self.longest_s:
                self.longest_s, self.longest_of = took_s, key[1]

    def _run(self) -> None:
        while not self._done.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        for name in self._nodes.keys() - self._history.hit():
            try:
                with self._nodes[name].connect() as mesh:
                    status = mesh.status()
            except SedmadError:
                # It has just been hit.
                continue
            self.take_in(name, status, time.monotonic())

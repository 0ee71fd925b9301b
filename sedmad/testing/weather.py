"""Lets the faults of a run happen: splits, clogs, crashes and pauses, at times drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sedmad.testing.faults import Faults
from sedmad.testing.network import Network
from sedmad.testing.simulator import Simulator


class Weather:
    """Troubles a network and its nodes from now on for `faults.duration_s`, then calms everything down.

    Args:
        crash, pause: called with a node id, and for pauses the seconds. Whether a node runs is their affair.
    """

    def __init__(
        self,
        simulator: Simulator,
        network: Network,
        faults: Faults,
        node_ids: Sequence[str],
        *,
        crash: Callable[[str], None],
        pause: Callable[[str, float], None],
    ) -> None:
        self._simulator = simulator
        self._network = network
        self._faults = faults
        self._node_ids = list(node_ids)
        self._ends_at = simulator.now + faults.duration_s
        network.faults = faults
        simulator.call_at(self._ends_at, self._calm)
        rng = simulator.rng
        if faults.split != "none":
            self._every(faults.split_every_s, self._split)
        if faults.clog_per_s:
            self._every(1.0 / faults.clog_per_s, self._clog)
        if faults.crash_every_s:
            self._every(faults.crash_every_s, lambda: crash(rng.choice(self._node_ids)))
        if faults.pause_every_s:
            longest_s = faults.pause_maximum_s
            self._every(
                faults.pause_every_s, lambda: pause(rng.choice(self._node_ids), rng.uniform(0.5, longest_s))
            )

    def _every(self, mean_s: float, action: Callable[[], None]) -> None:
        """Do something at random times until the weather calms down."""

        def happen() -> None:
            if self._simulator.now < self._ends_at:
                action()
                self._every(mean_s, action)

        self._simulator.call_later(self._simulator.rng.expovariate(1.0 / mean_s), happen)

    def _split(self) -> None:
        rng, nodes = self._simulator.rng, list(self._node_ids)
        rng.shuffle(nodes)
        size = {"one": 1, "halves": len(nodes) // 2}.get(self._faults.split, rng.randint(1, len(nodes) - 1))
        groups = sorted(nodes[:size]), sorted(nodes[size:])
        arrow = "->" if self._faults.split_one_way else "|"
        self._simulator.note(f"network split: {' '.join(groups[0])} {arrow} {' '.join(groups[1])}")
        self._network.split(*groups, one_way=self._faults.split_one_way)
        self._simulator.call_later(self._faults.split_seconds, self._heal)

    def _heal(self) -> None:
        self._simulator.note("network healed")
        self._network.heal()

    def _clog(self) -> None:
        rng = self._simulator.rng
        sender, receiver = rng.sample(self._node_ids, 2)
        self._network.clog(sender, receiver, rng.uniform(0.0, self._faults.clog_maximum_s))

    def _calm(self) -> None:
        self._simulator.note("no more faults")
        self._network.heal()
        self._network.faults = self._faults.calm()

"""A network that loses, delays, repeats and reorders messages, and falls apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sedmad.testing.faults import Faults
from sedmad.testing.simulator import Simulator

Deliver = Callable[[str, Any], None]  # (sender, message)

SLOWEST_TIMES = 10.0  # how much longer than others a reordered message waits, at most


class Network:
    """Carries messages between named nodes as `faults` has it; assign another `faults` to change the weather.

    >>> simulator = Simulator(seed=1)
    >>> network = Network(simulator)
    >>> network.attach("b", lambda sender, message: print(f"{sender} says {message}"))
    >>> network.send("a", "b", "hello")
    >>> simulator.run_for(1.0)
    a says hello
    >>> network.split(["a"], ["b"])
    >>> network.send("a", "b", "are you there?")
    >>> simulator.run_for(1.0)
    """

    def __init__(self, simulator: Simulator, faults: Faults | None = None) -> None:
        self.faults = faults or Faults()
        self._simulator = simulator
        self._nodes: dict[str, Deliver] = {}
        self._cut: set[tuple[str, str]] = set()
        self._clogged_until: dict[tuple[str, str], float] = {}
        self.messages_sent = 0
        self.messages_lost = 0

    def attach(self, node_id: str, deliver: Deliver) -> None:
        """Deliver what is sent to this node by calling `deliver`."""
        self._nodes[node_id] = deliver

    def detach(self, node_id: str) -> None:
        """Lose what is sent to this node, and what is on its way to it."""
        self._nodes.pop(node_id, None)

    def send(self, sender: str, receiver: str, message: Any) -> None:
        """Put a message on its way; it may arrive late, twice, or never."""
        rng, faults = self._simulator.rng, self.faults
        self.messages_sent += 1
        if (sender, receiver) in self._cut or rng.random() < faults.loss:
            self.messages_lost += 1
            return
        deliveries = 2 if rng.random() < faults.duplication else 1
        for _ in range(deliveries):
            arrives_at = (
                max(self._simulator.now, self._clogged_until.get((sender, receiver), 0.0)) + self._delay_s()
            )
            self._simulator.call_at(arrives_at, lambda: self._arrive(sender, receiver, message))

    def cut(self, sender: str, receiver: str) -> None:
        """Lose everything from `sender` to `receiver` until `heal`."""
        self._cut.add((sender, receiver))

    def split(self, *groups: Iterable[str], one_way: bool = False) -> None:
        """Let nothing pass between groups; with `one_way` nothing from an earlier group to a later one."""
        members = [list(group) for group in groups]
        for place, group in enumerate(members):
            for later in members[place + 1 :]:
                for one in group:
                    for other in later:
                        self.cut(one, other)
                        if not one_way:
                            self.cut(other, one)

    def heal(self) -> None:
        """Undo all cuts and splits."""
        self._cut.clear()
        self._clogged_until.clear()

    def clog(self, sender: str, receiver: str, seconds: float) -> None:
        """Hold back what goes from `sender` to `receiver` for a while."""
        self._clogged_until[sender, receiver] = self._simulator.now + seconds

    def _arrive(self, sender: str, receiver: str, message: Any) -> None:
        deliver = self._nodes.get(receiver)
        if deliver is None or (sender, receiver) in self._cut:
            self.messages_lost += 1
        else:
            deliver(sender, message)

    def _delay_s(self) -> float:
        rng, faults = self._simulator.rng, self.faults
        delay_s = faults.delay_minimum_s + rng.expovariate(1.0) * faults.delay_mean_s
        if rng.random() < faults.reordering:
            delay_s *= rng.uniform(1.0, SLOWEST_TIMES)
        return delay_s

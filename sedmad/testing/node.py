"""A node of the simulation: a core, driven as its daemon would, that can crash, restart and stall."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from sedmad.testing.network import Network
from sedmad.testing.simulator import Simulator


class Batch(Protocol):
    """What a core hands out: messages as (receiver, message), and events."""

    @property
    def messages(self) -> Sequence[tuple[str, Any]]: ...

    @property
    def events(self) -> Sequence[Any]: ...


class Core(Protocol):
    """The one shape of every protocol core."""

    def receive(self, sender: str, message: Any, now: float) -> None: ...

    def next_timeout(self) -> float | None: ...

    def handle_timeout(self, now: float) -> None: ...

    def collect(self) -> Batch: ...


CoreT = TypeVar("CoreT", bound=Core)


class SimulatedNode(Generic[CoreT]):
    """Drives one core on the simulator's clock and network.

    Args:
        make: builds the core of one life from (boot counter, the node's time).
        clock_offset_s: what the node's monotonic clock shows when the simulator's shows 0. Cores that compare
            their times with other nodes' will fail for it.
        on_message: called with (receiver, message) before each message is sent.
        on_event: called with each event of the core.
    """

    def __init__(
        self,
        node_id: str,
        simulator: Simulator,
        network: Network,
        make: Callable[[int, float], CoreT],
        *,
        clock_offset_s: float = 0.0,
        on_message: Callable[[str, Any], None] | None = None,
        on_event: Callable[[Any], None] | None = None,
    ) -> None:
        self.node_id = node_id
        self.core: CoreT | None = None
        self.boot_counter = 0
        self.paused = False
        self._simulator = simulator
        self._network = network
        self._make = make
        self._clock_offset_s = clock_offset_s
        self._on_message = on_message
        self._on_event = on_event
        self._inbox: list[tuple[str, Any]] = []
        self._timer_at: float | None = None

    @property
    def now(self) -> float:
        """The node's own time."""
        return self._simulator.now + self._clock_offset_s

    @property
    def running(self) -> bool:
        return self.core is not None

    def start(self) -> CoreT:
        """Begin a life."""
        assert self.core is None, f"{self.node_id} runs already"
        self.boot_counter += 1
        self.core = self._make(self.boot_counter, self.now)
        self._network.attach(self.node_id, self._deliver)
        self.pump()
        return self.core

    def crash(self) -> None:
        """End a life in the middle of everything."""
        self.core = None
        self.paused = False
        self._inbox.clear()
        self._timer_at = None
        self._network.detach(self.node_id)

    def pause(self, seconds: float) -> None:
        """Stop, as by SIGSTOP; what arrives meanwhile is found on waking."""
        if self.core is None or self.paused:
            return
        self.paused = True
        life = self.boot_counter
        self._simulator.call_later(seconds, lambda: self._resume(life))

    def pump(self) -> None:
        """Do what the core wants done; to be called after each input given to `core` directly."""
        if self.core is None:
            return
        batch = self.core.collect()
        for event in batch.events:
            if self._on_event is not None:
                self._on_event(event)
        for receiver, message in batch.messages:
            if self._on_message is not None:
                self._on_message(receiver, message)
            self._network.send(self.node_id, receiver, message)
        self._set_timer()

    def _deliver(self, sender: str, message: Any) -> None:
        if self.paused:
            self._inbox.append((sender, message))
        elif self.core is not None:
            self.core.receive(sender, message, self.now)
            self.pump()

    def _resume(self, life: int) -> None:
        if not self.paused or life != self.boot_counter:
            return
        self.paused = False
        waiting, self._inbox = self._inbox, []
        for sender, message in waiting:
            self._deliver(sender, message)
        self._tick()

    def _set_timer(self) -> None:
        assert self.core is not None
        timeout = self.core.next_timeout()
        if timeout is None:
            return
        # Timers that were set earlier for a later time find nothing to do, and that is cheaper than finding
        # them.
        at = max(timeout - self._clock_offset_s, self._simulator.now)
        if self._timer_at is None or at < self._timer_at:
            self._timer_at = at
            life = self.boot_counter
            self._simulator.call_at(at, lambda: self._ring(life, at))

    def _ring(self, life: int, at: float) -> None:
        if self.core is None or life != self.boot_counter or at != self._timer_at:
            return
        self._timer_at = None
        if not self.paused:
            self._tick()

    def _tick(self) -> None:
        if self.core is None:
            return
        timeout = self.core.next_timeout()
        # A clock with an offset rounds; what is due within a microsecond is due.
        if timeout is not None and timeout <= self.now + 1e-6:
            self.core.handle_timeout(max(self.now, timeout))
        self.pump()

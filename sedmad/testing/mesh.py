"""A mesh of membership cores in the simulator, and what must hold of it whatever happens."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from sedmad.core.membership import (
    LAN,
    Advert,
    AdvertChanged,
    Claim,
    Event,
    Membership,
    MembershipSettings,
    Message,
    PeerDead,
    PeerJoined,
    SignedRecord,
    first_sequence,
)
from sedmad.testing.faults import Faults
from sedmad.testing.network import Network
from sedmad.testing.node import SimulatedNode
from sedmad.testing.simulator import Simulator
from sedmad.testing.wire_stand_in import Meter, describe, sign, size_of

UNIX_TIME_S = 1_760_000_000.0  # when the simulation begins
DIAL_EVERY_SECONDS = 10.0
SEEDS_PER_NODE = 2  # peers that a starting node is told of, as by its configuration
# A lone survivor of sixteen, with nobody to confirm its suspicions, takes 30 s until the others are dead to
# it; then come the probes of the dead (5 s) and two rounds of anti-entropy.
SETTLE_SECONDS = 60.0
SETTLE_STEP_SECONDS = 5.0


class InvariantBroken(AssertionError):
    """Something happened that must not; the message says what, when, and how to replay it."""


class SimulatedMesh:
    """N membership cores on one simulator.

    >>> mesh = SimulatedMesh(seed=1, node_ids=["a", "b", "c"])
    >>> for node_id in mesh.node_ids:
    ...     mesh.start(node_id)
    >>> mesh.run_for(5.0)
    >>> mesh.states("a")
    {'b': 'alive', 'c': 'alive'}
    >>> mesh.crash("c")
    >>> mesh.run_for(10.0)
    >>> mesh.states("a")
    {'b': 'alive', 'c': 'dead'}
    """

    def __init__(
        self,
        seed: int,
        node_ids: Sequence[str],
        faults: Faults | None = None,
        settings: MembershipSettings = LAN,
    ) -> None:
        self.seed = seed
        self.node_ids = tuple(node_ids)
        self.faults = faults or Faults()
        self.simulator = Simulator(seed)
        self.network = Network(self.simulator)
        self.false_deaths = 0
        self._settings = settings
        self._disks: dict[str, list[SignedRecord]] = {node_id: [] for node_id in self.node_ids}
        self._sequences: dict[tuple[str, int, str], int] = {}
        self._meters: dict[str, Meter] = {}
        self._skews_s = {node_id: self._draw_skew_s() for node_id in self.node_ids}
        self._offsets_s = {node_id: self.simulator.rng.uniform(0.0, 1e6) for node_id in self.node_ids}
        self.nodes = {node_id: self._make_node(node_id) for node_id in self.node_ids}

    def start(self, node_id: str, *, seeds: Sequence[str] | None = None, disk_lost: bool = False) -> None:
        """Start a node with what its disk remembers, and let it contact `seeds`: by default any two."""
        rng = self.simulator.rng
        if disk_lost:
            self._disks[node_id] = []
        others = [other for other in self.node_ids if other != node_id]
        if seeds is None:
            seeds = rng.sample(others, min(SEEDS_PER_NODE, len(others)))
        node = self.nodes[node_id]
        self._meters[node_id] = Meter(self._settings.bytes_per_second)  # the budget is one of each life
        node.start()
        self.simulator.note(f"{node_id} starts, knowing {' '.join(seeds) or 'nobody'}")
        self._dial(node_id, node.boot_counter, seeds)

    def crash(self, node_id: str) -> None:
        """Stop a node without warning; its disk keeps what it knew."""
        core = self.core(node_id)
        self._disks[node_id] = core.known_records()
        self.nodes[node_id].crash()
        self.simulator.note(f"{node_id} crashes")

    def pause(self, node_id: str, seconds: float) -> None:
        self.simulator.note(f"{node_id} stops for {seconds:.1f} s")
        self.nodes[node_id].pause(seconds)

    def run_for(self, seconds: float) -> None:
        self.simulator.run_for(seconds)

    def core(self, node_id: str) -> Membership:
        """Return the core of a running node."""
        core = self.nodes[node_id].core
        assert core is not None, f"{node_id} does not run"
        return core

    def running(self) -> list[str]:
        return [node_id for node_id in self.node_ids if self.nodes[node_id].running]

    def states(self, observer: str) -> dict[str, str]:
        """Return what a node believes of its peers: alive, suspect or dead."""
        return {row.peer_id: row.state for row in self.core(observer).peers()}

    def names(self, observer: str) -> dict[str, str]:
        """Return what names mean to a node: `version@owner` each."""
        return {
            name: f"v{claim.version}@{claim.owner}" for name, claim in self.core(observer).directory.entries()
        }

    def write(self, node_id: str, name: str, *, remove: bool = False) -> Claim:
        """Let a node publish the next version of a name, or remove the version it published."""
        core, node = self.core(node_id), self.nodes[node_id]
        wall_time_s = self.simulator.now + UNIX_TIME_S
        digest = hashlib.sha256(f"{node_id} {name} {self.simulator.now}".encode()).digest()
        claim = Claim(name, 0, digest, first_owner=node_id, owner=node_id, wall_time_s=wall_time_s)
        existing = core.directory.find(name, node_id)
        if remove and existing is not None and isinstance(existing.record, Claim):
            claim = existing.record.tombstone(wall_time_s)
        else:
            claim = core.directory.next_version(claim)
        core.publish_claim(claim, node.now)
        self.simulator.note(f"{node_id} {'removes' if claim.removed else 'claims'} {name} v{claim.version}")
        node.pump()
        return claim

    def disagreement(self) -> str:
        """Return what the running nodes do not agree on, or nothing when all is well."""
        running = self.running()
        for observer in running:
            expected = {peer: "alive" for peer in running if peer != observer}
            states = self.states(observer)
            believed = {peer: state for peer, state in states.items() if state != "dead"}
            if believed != expected:
                wrong = {peer: state for peer, state in states.items() if expected.get(peer, "dead") != state}
                missing = sorted(expected.keys() - states.keys())
                return f"{observer} believes {wrong} and does not know {missing}; running are {running}"
        listings = {
            observer: [f"{name} {claim.order}" for name, claim in self.core(observer).directory.entries()]
            for observer in running
        }
        for observer in running:
            if listings[observer] != listings[running[0]]:
                differing = set(listings[observer]) ^ set(listings[running[0]])
                return f"{observer} and {running[0]} differ on names: {sorted(differing)}"
        return ""

    def settle(self) -> float:
        """Let time pass until all agree, and keep agreeing; return after how many seconds.

        Raises:
            InvariantBroken: they do not within SETTLE_SECONDS.
        """
        waited_s = 0.0
        while self.disagreement():
            if waited_s >= SETTLE_SECONDS:
                raise self.broken(
                    f"no agreement {waited_s:.0f} s after the last fault: {self.disagreement()}"
                )
            self.run_for(SETTLE_STEP_SECONDS)
            waited_s += SETTLE_STEP_SECONDS
        self.run_for(SETTLE_STEP_SECONDS)
        if lapse := self.disagreement():
            raise self.broken(f"they agreed and do not any more: {lapse}")
        return waited_s

    def broken(self, what: str) -> InvariantBroken:
        """Return the error for a broken invariant, with the way to replay it and the end of the story."""
        replay = f"python -m sedmad.testing.swarm --seed {self.seed} --trace"
        return InvariantBroken(
            f"seed {self.seed} at {self.simulator.now:.3f} s: {what}\n"
            f"{self.faults}\nreplay: {replay}\n{self.simulator.story(lines=30)}"
        )

    def _dial(self, node_id: str, life: int, seeds: Sequence[str]) -> None:
        """Do as the session layer, which keeps trying the addresses that a node was configured with."""
        node = self.nodes[node_id]
        if node.core is None or node.boot_counter != life:
            return
        if not node.paused:
            for seed in seeds:
                node.core.link_up(seed, node.now)
            node.pump()
        self.simulator.call_later(DIAL_EVERY_SECONDS, lambda: self._dial(node_id, life, seeds))

    def _make_node(self, node_id: str) -> SimulatedNode[Membership]:
        return SimulatedNode(
            node_id,
            self.simulator,
            self.network,
            lambda boot_counter, now: self._make_core(node_id, boot_counter, now),
            clock_offset_s=self._offsets_s[node_id],
            on_message=lambda _receiver, message: self._measure(node_id, message),
            on_event=lambda event: self._watch(node_id, event),
        )

    def _make_core(self, node_id: str, boot_counter: int, now: float) -> Membership:
        advert = Advert(node_id, node_id, first_sequence(boot_counter), state="ready")
        return Membership(
            advert,
            sign=sign,
            size_of=size_of,
            rng=random.Random(self.simulator.rng.getrandbits(64)),  # noqa: S311
            now=now,
            settings=self._settings,
            known=self._disks[node_id],
            wall_offset_s=UNIX_TIME_S + self._skews_s[node_id] - self._offsets_s[node_id],
        )

    def _draw_skew_s(self) -> float:
        return self.simulator.rng.uniform(-self.faults.clock_skew_s, self.faults.clock_skew_s)

    def _measure(self, node_id: str, message: Message) -> None:
        if not self._meters[node_id].add(size_of(message), self.simulator.now):
            raise self.broken(f"{node_id} sends more than {self._settings.bytes_per_second} bytes a second")

    def _watch(self, node_id: str, event: Event) -> None:
        self.simulator.note(f"{node_id}: {describe(event)}")
        if isinstance(event, PeerJoined | AdvertChanged) and isinstance(event.signed.record, Advert):
            life = (node_id, self.nodes[node_id].boot_counter, event.peer_id)
            sequence = event.signed.record.sequence
            if sequence < self._sequences.get(life, 0):
                raise self.broken(f"{node_id} went back to an older advert of {event.peer_id}")
            self._sequences[life] = sequence
        elif isinstance(event, PeerDead) and self.nodes[event.peer_id].running:
            self.false_deaths += 1

"""Swarms of whole nodes under weather drawn from seeds: no byte that was promised is lost, whoever crashes when.

python -m sedmad.testing.store_swarm --seed 17             # replay a seed; --trace shows every event
python -m sedmad.testing.store_swarm --seed 0 --count 500  # many seeds

Real cores of membership, ownership, placement, repair, routing and capacity; around them the steps of the daemon's
services (`sedmad.testing.store`), on disks that keep what was persisted and sometimes are lost.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sedmad.core.membership.directory import MAX_AUTHORS_PER_NAME
from sedmad.errors import SedmadError
from sedmad.testing.faults import Faults
from sedmad.testing.mesh import UNIX_TIME_S, InvariantBroken
from sedmad.testing.network import Network
from sedmad.testing.node import SimulatedNode
from sedmad.testing.simulator import Simulator
from sedmad.testing.store.calls import Answer
from sedmad.testing.store.disk import Disk
from sedmad.testing.store.node import StoreNode
from sedmad.testing.store.settling import unsettled
from sedmad.testing.store.truth import Truth, Version
from sedmad.testing.weather import Weather

NAMES = ("encoder/w1", "encoder/w2", "decoder/w1", "words")
# What there is to store, and of how many partitions: few, so that the same is stored again, by others as well.
CONTENTS = {f"c{place}": 1 + place % 3 for place in range(8)}
ROOM_MEMORY, ROOM_DISK = (3, 8), (5, 16)  # partitions; tight enough to be refused now and then
LOSSES_MAX = 3
# A death that nobody confirms takes 30 s, then come the takeover, repairs one after the other, and rounds of comparing.
SETTLE_SECONDS = 180.0
SETTLE_STEP_SECONDS = 5.0
PRODUCT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went: what was asked for and what came of it, and how long it took to settle."""

    seed: int
    nodes: int
    counts: dict[str, int]
    settled_after_s: float


class StoreSwarm:
    """Nodes, their disks, clients, and the truth about it all."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.seed, self.trace = seed, trace
        self.rng = random.Random(f"store swarm {seed}")  # noqa: S311  (replayable chance is the point)
        self.faults = _longer(Faults.draw(self.rng), self.rng)
        self.simulator = Simulator(seed)
        self.network = Network(self.simulator)
        self.node_ids = [f"n{place}" for place in range(self.rng.randint(3, 9))]
        self.disks = {node_id: Disk() for node_id in self.node_ids}
        self.truth = Truth(self.simulator, self.disks, self.broken)
        self.rooms = {
            node_id: (self.rng.randint(*ROOM_MEMORY), self.rng.randint(*ROOM_DISK))
            for node_id in self.node_ids
        }
        # As many as a directory remembers for one name.
        authors = min(MAX_AUTHORS_PER_NAME, len(self.node_ids))
        self.authors = {name: self.rng.sample(self.node_ids, authors) for name in NAMES}
        self.nodes = {node_id: self._make_node(node_id) for node_id in self.node_ids}
        self.counts: Counter[str] = Counter()
        self.simulator.note(f"{self.faults}")

    def start(self, node_id: str) -> None:
        if node_id not in self.disks or self.nodes[node_id].running:
            return
        self.simulator.note(f"{node_id} starts")
        node = self.nodes[node_id]
        node.start()
        self._dial(node_id, node.boot_counter)

    def crash(self, node_id: str) -> None:
        """Stop a node without warning; it comes back, sometimes without its bytes, and sometimes it does not."""
        node, rng = self.nodes[node_id], self.simulator.rng
        if node.core is None:
            return
        self.simulator.note(f"{node_id} crashes")
        core = node.core
        node.crash()
        core.tasks.close()
        self.counts["crashes"] += 1
        if rng.random() < self.faults.disk_lost and self.counts["losses"] < self._losses_max():
            self._lose(node_id, forever=rng.random() < 0.3)
        self.simulator.call_later(rng.uniform(0.1, self.faults.down_maximum_s), lambda: self.start(node_id))

    def close(self) -> None:
        """End all that is under way; nothing can be asked of the nodes any more."""
        for node in self.nodes.values():
            if node.core is not None:
                node.core.tasks.close()

    def pause(self, node_id: str, seconds: float) -> None:
        if self.nodes[node_id].running:
            self.simulator.note(f"{node_id} stops for {seconds:.1f} s")
            self.nodes[node_id].pause(seconds)

    def awake(self) -> dict[str, StoreNode]:
        """Return the nodes that run and are not stopped."""
        return {
            node_id: node.core
            for node_id, node in self.nodes.items()
            if node.core is not None and not node.paused
        }

    def ask_for_something(self) -> None:
        """Be a client of some node."""
        rng, awake = self.simulator.rng, self.awake()
        if not awake:
            return
        name, content = rng.choice(NAMES), rng.choice(list(CONTENTS))
        survive = rng.choice((0, 1, 1, 2))
        kind = rng.choice(("put", "put", "replace", "remove", "multiply", "multiply", "multiply"))
        authors = [node_id for node_id in self.authors[name] if node_id in awake]
        core = awake[rng.choice(list(awake))]
        if kind == "multiply":
            self._do(core, kind, self._multiply(core, name))
        elif kind == "remove":
            claim = core.directory.get(name)
            if claim is None or claim.owner not in awake:
                return
            owner = awake[claim.owner]
            claim = owner.directory.get(name)
            if claim is not None and claim.owner == owner.peer_id:
                self.simulator.note(f"{owner.peer_id}: remove {name}")
                self._do(owner, kind, owner.removing.remove_own(claim))
        elif authors:
            core = awake[rng.choice(authors)]
            self.simulator.note(f"{core.peer_id}: {kind} {name} {content} survive {survive}")
            put = core.putting.put(name, content, CONTENTS[content], survive, replaces=kind == "replace")
            self._do(core, kind, put)

    def ask_everywhere(self) -> list[str]:
        """Multiply with everything that is promised on every node; return what fails."""
        failures: list[str] = []

        async def multiply(core: StoreNode, version: Version) -> None:
            claim = version.claim
            winner = core.directory.get(claim.name)
            won = winner is not None and winner.first_owner == claim.first_owner
            try:
                await self._multiply(core, claim.name if won else f"{claim.name}@{claim.first_owner}")
            except SedmadError as error:
                failures.append(f"{core.peer_id} fails to multiply with {version}: {error} {error.why or ''}")

        for core in self.awake().values():
            for version in self.truth.versions:
                if version.wanted and self.truth.can_be_owned(version.key):
                    self._do(core, "multiply", multiply(core, version))
        self.simulator.run_for(PRODUCT_SECONDS)
        return failures

    def broken(self, what: str) -> InvariantBroken:
        """Return the error for a broken invariant, with the way to replay it and the end of the story."""
        replay = f"python -m sedmad.testing.store_swarm --seed {self.seed} --trace"
        return InvariantBroken(
            f"seed {self.seed} at {self.simulator.now:.3f} s: {what}\n"
            f"{self.faults}\nreplay: {replay}\n{self.simulator.story(lines=20_000 if self.trace else 40)}"
        )

    async def _multiply(self, core: StoreNode, name: str) -> None:
        claim, contents = await core.asking.multiply(name)
        self.truth.answered(claim, contents)

    def _do(self, core: StoreNode, kind: str, work: object) -> None:
        async def attempt() -> None:
            try:
                await work  # type: ignore[misc]
                self.counts[kind] += 1
            except SedmadError as error:
                self.counts[f"{kind} failed"] += 1
                self.simulator.note(f"{core.peer_id}: {kind} fails: {error} {error.why or ''}")

        node = self.nodes[core.peer_id]
        core.do(attempt(), node.now)
        node.pump()

    def _lose(self, node_id: str, *, forever: bool) -> None:
        if not self.truth.may_lose_a_disk() or (forever and len(self.disks) <= 3):
            return
        self.simulator.note(f"{node_id} loses its disk{' for good' if forever else ''}")
        self.counts["losses"] += 1
        self.truth.lose(node_id, forever=forever)
        # The disk that is put in its place is smaller, now and then too small.
        memory, disk = self.rooms[node_id]
        self.rooms[node_id] = (memory, max(1, disk // 6))

    def _losses_max(self) -> int:
        return min(LOSSES_MAX, len(self.node_ids) - 2)

    def _dial(self, node_id: str, life: int) -> None:
        """Do as the session layer, which keeps trying the addresses that a node was configured with."""
        node = self.nodes[node_id]
        if node.core is None or node.boot_counter != life:
            return
        if not node.paused:
            for peer_id in self.disks:
                node.core.link_up(peer_id, node.now)
            node.pump()
        self.simulator.call_later(10.0, lambda: self._dial(node_id, life))

    def _make_node(self, node_id: str) -> SimulatedNode[StoreNode]:
        offset_s = self.rng.uniform(0.0, 1e4)
        skew_s = self.rng.uniform(-self.faults.clock_skew_s, self.faults.clock_skew_s)

        def make(life: int, now: float) -> StoreNode:
            return StoreNode(
                node_id,
                self.disks[node_id],
                life=life,
                life_of=self._life_of,
                partitions=self.rooms[node_id],
                rng=random.Random(self.simulator.rng.getrandbits(64)),  # noqa: S311
                now=now,
                wall_offset_s=UNIX_TIME_S + skew_s - offset_s,
                watch=self.truth,
            )

        def on_message(receiver: str, message: object) -> None:
            if isinstance(message, Answer):
                self.truth.sent(node_id, receiver, message)

        return SimulatedNode(
            node_id, self.simulator, self.network, make, clock_offset_s=offset_s, on_message=on_message
        )

    def _life_of(self, node_id: str) -> int:
        node = self.nodes[node_id]
        return node.boot_counter + (not node.running)


def run(seed: int, *, trace: bool = False) -> tuple[StoreSwarm, Report]:
    """Run one seed: clients store, replace, remove and multiply in bad weather; when it is over, all is well.

    Raises:
        InvariantBroken: something happened that must not.
    """
    swarm = StoreSwarm(seed, trace=trace)
    try:
        settled_after_s = _run(swarm)
    finally:
        swarm.close()
    return swarm, Report(seed, len(swarm.node_ids), dict(sorted(swarm.counts.items())), settled_after_s)


def _run(swarm: StoreSwarm) -> float:
    """Let a swarm have its day; return how long it took to settle."""
    simulator, faults = swarm.simulator, swarm.faults

    def ask() -> None:
        swarm.ask_for_something()
        if simulator.now < faults.duration_s:
            simulator.call_later(simulator.rng.expovariate(1.0 / faults.write_every_s), ask)

    for node_id in swarm.node_ids:
        swarm.start(node_id)
    simulator.run_for(3.0)
    Weather(simulator, swarm.network, faults, swarm.node_ids, crash=swarm.crash, pause=swarm.pause)
    simulator.call_later(0.0, ask)
    last_fault_s = faults.duration_s + max(
        faults.down_maximum_s if faults.crash_every_s else 0.0,
        faults.pause_maximum_s if faults.pause_every_s else 0.0,
    )
    simulator.run_for(last_fault_s + 1.0)
    return settle(swarm)


def settle(swarm: StoreSwarm) -> float:
    """Let time pass until all is as it should be, and every product is answered."""
    waited_s = 0.0
    while faults := list(unsettled(swarm.awake(), swarm.truth)):
        if waited_s >= SETTLE_SECONDS:
            told = "\n  ".join(faults[:8])
            raise swarm.broken(f"{waited_s:.0f} s after the last fault:\n  {told}")
        swarm.simulator.run_for(SETTLE_STEP_SECONDS)
        waited_s += SETTLE_STEP_SECONDS
    if failures := swarm.ask_everywhere():
        raise swarm.broken("products fail when all is settled:\n  " + "\n  ".join(failures[:8]))
    return waited_s


def _longer(faults: Faults, rng: random.Random) -> Faults:
    """Return a longer day with more clients, on which what happens happens more often."""
    return replace(
        faults,
        duration_s=rng.uniform(20.0, 60.0),
        crash_every_s=rng.uniform(4.0, 20.0) if faults.crash_every_s else 0.0,
        pause_every_s=rng.uniform(4.0, 20.0) if faults.pause_every_s else 0.0,
        split_every_s=rng.uniform(5.0, 15.0),
        write_every_s=rng.uniform(0.3, 2.0),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds from the command line; exit status 1 if an invariant was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m sedmad.testing.store_swarm", description="Run swarms of whole nodes."
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--trace", action="store_true", help="show everything that happened")
    options = parser.parse_args(arguments)
    for seed in range(options.seed, options.seed + options.count):
        try:
            swarm, report = run(seed, trace=options.trace)
        except InvariantBroken as failure:
            print(failure)
            return 1
        if options.trace:
            print(swarm.simulator.story())
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Swarms of guardians under weather drawn from seeds: nothing established is lost, and every matrix finds an owner.

python -m sedmad.testing.ownership_swarm --seed 17             # replay a seed; --trace shows every event
python -m sedmad.testing.ownership_swarm --seed 0 --count 500  # many seeds

Real membership cores say who is dead, as wrongly as they do under loss, splits, crashes and stops; real
ownership cores act upon it.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sedmad.core.membership import LAN, Advert, Membership, first_sequence
from sedmad.core.ownership import (
    Deposed,
    OwnershipSettings,
    Standing,
    Won,
    has_majorities,
)
from sedmad.testing.faults import Faults
from sedmad.testing.guardian import Disk, Guardian, Stored, first_standing
from sedmad.testing.ledger import Ledger
from sedmad.testing.member import Member
from sedmad.testing.mesh import InvariantBroken
from sedmad.testing.network import Network
from sedmad.testing.node import SimulatedNode
from sedmad.testing.simulator import Simulator
from sedmad.testing.weather import Weather
from sedmad.testing.wire_stand_in import sign, size_of

# Quicker than in earnest, so that a run sees several owners.
SETTINGS = OwnershipSettings(
    takeover_after_s=1.0,
    unheard_after_s=8.0,
    rank_s=1.0,
    vote_timeout_s=2.0,
    retry_s=1.0,
    retry_maximum_s=8.0,
    elections=4,
)
HASTY = replace(LAN, suspicion_multiplier=2, suspicion_maximum_multiplier=2)  # and with more mistakes
ALWAYS_BACK = 2  # this many nodes always come back from a crash, so that something is left to look at
# A death that nobody confirms takes 30 s, then come the waits above and some elections.
SETTLE_SECONDS = 120.0
SETTLE_STEP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went."""

    seed: int
    nodes: int
    matrices: int
    written: int
    won: int
    deposed: int
    unowned: int
    settled_after_s: float


class OwnershipSwarm:
    """Nodes, matrices, and a ledger of each."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(f"ownership swarm {seed}")  # noqa: S311  (replayable chance is the point)
        self.faults = _worse(Faults.draw(self.rng), self.rng)
        self.simulator = Simulator(seed)
        self.network = Network(self.simulator)
        self.node_ids = [f"n{place}" for place in range(self.rng.randint(3, 9))]
        self.disks = {node_id: Disk() for node_id in self.node_ids}
        self.ledgers = {
            f"w{place}": Ledger(self._first(f"w{place}")) for place in range(self.rng.randint(1, 6))
        }
        for ledger in self.ledgers.values():
            for guardian in ledger.established.guardians:
                self.disks[guardian].kept[ledger.established.key] = ledger.established
        self.nodes = {node_id: self._make_node(node_id) for node_id in self.node_ids}
        self.counts = dict.fromkeys(("written", "won", "deposed"), 0)
        self.simulator.note(f"{self.faults}")

    def start(self, node_id: str) -> None:
        self.simulator.note(f"{node_id} starts")
        node = self.nodes[node_id]
        node.start()
        self._dial(node_id, node.boot_counter)

    def crash(self, node_id: str) -> None:
        self.simulator.note(f"{node_id} crashes")
        self.nodes[node_id].crash()

    def guardian(self, node_id: str) -> Guardian | None:
        """Return the guardian of a node that runs and is not stopped."""
        node = self.nodes[node_id]
        return node.core.guardian if node.core is not None and not node.paused else None

    def write(self, key: str, *, guardians: tuple[str, ...] | None = None) -> bool:
        """Let whoever believes to own a matrix write its next manifest; several may, and one at most succeeds."""
        written = False
        for node_id in self.node_ids:
            guardian = self.guardian(node_id)
            if guardian is None or not guardian.owns(key):
                continue
            change = guardians
            if change is not None and (not guardian.disk.kept[key].established or node_id not in change):
                change = None
            self.simulator.note(f"{node_id} writes {key} {' '.join(change or ())}")
            written |= guardian.write(key, self.nodes[node_id].now, change)
            self.nodes[node_id].pump()
        self.counts["written"] += written
        return written

    def some_guardians(self) -> tuple[str, ...]:
        return tuple(self.rng.sample(self.node_ids, self._guardian_count()))

    def unowned_matrices(self) -> list[str]:
        """Return what is wrong with matrices that could have an owner that writes, and have not."""
        return [fault for key in self.ledgers if self.can_be_owned(key) and (fault := self._unowned(key))]

    def can_be_owned(self, key: str) -> bool:
        """Say whether enough of those that matter run: nothing is promised where a majority is gone."""
        running = {node_id for node_id in self.node_ids if self.nodes[node_id].running}
        standings = [disk.kept[key] for disk in self.disks.values() if key in disk.kept]
        newest = max(standings, key=lambda standing: standing.order)
        concerned = [
            standing for standing in standings if standing.order >= self.ledgers[key].established.order
        ]
        return newest in [self.disks[node_id].kept.get(key) for node_id in running] and all(
            has_majorities(running, standing) for standing in concerned
        )

    def broken(self, what: str) -> InvariantBroken:
        """Return the error for a broken invariant, with the way to replay it and the end of the story."""
        replay = f"python -m sedmad.testing.ownership_swarm --seed {self.seed} --trace"
        return InvariantBroken(
            f"seed {self.seed} at {self.simulator.now:.3f} s: {what}\n"
            f"{self.faults}\nreplay: {replay}\n{self.simulator.story(lines=30)}"
        )

    def _unowned(self, key: str) -> str:
        kept = [self.disks[node_id].kept.get(key) for node_id in self.node_ids if self.nodes[node_id].running]
        newest = max((standing for standing in kept if standing), key=lambda standing: standing.order)
        owner = self.guardian(newest.owner)
        if owner is None or not owner.owns(key):
            return f"{key}: {newest.owner} is its owner, and does not run or does not know"
        if not owner.disk.kept[key].established:
            return f"{key}: manifest {owner.disk.kept[key].order} of {newest.owner} is not established"
        return ""

    def _first(self, key: str) -> Standing:
        return first_standing(key, self.some_guardians())

    def _guardian_count(self) -> int:
        return 5 if len(self.node_ids) >= 5 and self.rng.random() < 0.5 else 3

    def _dial(self, node_id: str, life: int) -> None:
        """Do as the session layer, which keeps trying the addresses that a node was configured with."""
        node = self.nodes[node_id]
        if node.core is None or node.boot_counter != life:
            return
        if not node.paused:
            for peer_id in self.node_ids:
                node.core.link_up(peer_id, node.now)
            node.pump()
        self.simulator.call_later(10.0, lambda: self._dial(node_id, life))

    def _make_node(self, node_id: str) -> SimulatedNode[Member]:
        offset_s = self.rng.uniform(0.0, 1e4)
        return SimulatedNode(
            node_id,
            self.simulator,
            self.network,
            lambda boot_counter, now: self._make_member(node_id, boot_counter, now),
            clock_offset_s=offset_s,
            on_event=lambda event: self._watch(node_id, event),
        )

    def _make_member(self, node_id: str, boot_counter: int, now: float) -> Member:
        chance = [random.Random(self.simulator.rng.getrandbits(64)) for _ in range(2)]  # noqa: S311
        advert = Advert(node_id, node_id, first_sequence(boot_counter), state="ready")
        membership = Membership(advert, sign=sign, size_of=size_of, rng=chance[0], now=now, settings=HASTY)
        guardian = Guardian(
            node_id, self.disks[node_id], rng=chance[1], now=now, settings=SETTINGS, peers=self.node_ids
        )
        return Member(membership, guardian)

    def _watch(self, node_id: str, event: object) -> None:
        match event:
            case Stored(standing=standing):
                self.simulator.note(f"{node_id} keeps {_short(standing)}")
                if fault := self.ledgers[str(standing.key)].add(event):
                    raise self.broken(f"{standing.key}: {fault}")
                return
            case Won():
                self.counts["won"] += 1
            case Deposed():
                self.counts["deposed"] += 1
        self.simulator.note(f"{node_id}: {type(event).__name__} {getattr(event, 'key', '')}")


def run(seed: int) -> tuple[OwnershipSwarm, Report]:
    """Run one seed: owners write, die, return and are replaced; when it is over, every matrix can be written.

    Raises:
        InvariantBroken: something happened that must not.
    """
    swarm = OwnershipSwarm(seed)
    simulator, faults = swarm.simulator, swarm.faults

    def crash(node_id: str) -> None:
        if swarm.nodes[node_id].running:
            swarm.crash(node_id)
            if node_id in swarm.node_ids[:ALWAYS_BACK] or simulator.rng.random() < 0.8:
                simulator.call_later(
                    simulator.rng.uniform(0.1, faults.down_maximum_s), lambda: swarm.start(node_id)
                )

    def pause(node_id: str, seconds: float) -> None:
        if swarm.nodes[node_id].running:
            simulator.note(f"{node_id} stops for {seconds:.1f} s")
            swarm.nodes[node_id].pause(seconds)

    def write() -> None:
        changes = swarm.some_guardians() if simulator.rng.random() < 0.2 else None
        swarm.write(simulator.rng.choice(list(swarm.ledgers)), guardians=changes)
        if simulator.now < faults.duration_s:
            simulator.call_later(simulator.rng.expovariate(1.0 / faults.write_every_s), write)

    for node_id in swarm.node_ids:
        swarm.start(node_id)
    Weather(simulator, swarm.network, faults, swarm.node_ids, crash=crash, pause=pause)
    simulator.call_later(1.0, write)
    last_fault_s = faults.duration_s + max(
        faults.down_maximum_s if faults.crash_every_s else 0.0,
        faults.pause_maximum_s if faults.pause_every_s else 0.0,
    )
    simulator.run_for(last_fault_s + 1.0)
    settled_after_s = settle(swarm)
    unowned = sum(not swarm.can_be_owned(key) for key in swarm.ledgers)
    counts = swarm.counts
    report = Report(
        seed,
        len(swarm.node_ids),
        len(swarm.ledgers),
        counts["written"],
        counts["won"],
        counts["deposed"],
        unowned,
        settled_after_s,
    )
    return swarm, report


def settle(swarm: OwnershipSwarm) -> float:
    """Let time pass until every matrix that can have one has an owner whose manifests are established."""
    waited_s = 0.0
    for _ in range(2):  # the second time after everybody wrote once more
        while faults := swarm.unowned_matrices():
            if waited_s >= SETTLE_SECONDS:
                raise swarm.broken(f"no owner {waited_s:.0f} s after the last fault: {'; '.join(faults)}")
            swarm.simulator.run_for(SETTLE_STEP_SECONDS)
            waited_s += SETTLE_STEP_SECONDS
        for key in swarm.ledgers:
            swarm.write(key)
        swarm.simulator.run_for(SETTLE_STEP_SECONDS)
    return waited_s


def _worse(faults: Faults, rng: random.Random) -> Faults:
    """Return a longer day on which what happens happens more often: an owner has to be missed for some time."""
    return replace(
        faults,
        duration_s=rng.uniform(20.0, 60.0),
        crash_every_s=rng.uniform(4.0, 20.0) if faults.crash_every_s else 0.0,
        pause_every_s=rng.uniform(4.0, 20.0) if faults.pause_every_s else 0.0,
        split_every_s=rng.uniform(5.0, 15.0),
        split_seconds=rng.uniform(3.0, 30.0),
    )


def _short(standing: Standing) -> str:
    established = " established" if standing.established else ""
    return f"{standing.key} {standing.epoch}.{standing.seq} of {standing.owner}{established}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds from the command line; exit status 1 if an invariant was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m sedmad.testing.ownership_swarm", description="Run swarms of guardians."
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--trace", action="store_true", help="show everything that happened")
    options = parser.parse_args(arguments)
    for seed in range(options.seed, options.seed + options.count):
        try:
            swarm, report = run(seed)
        except InvariantBroken as failure:
            print(failure)
            return 1
        if options.trace:
            print(swarm.simulator.story())
        print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Swarm testing: meshes under weather drawn from seeds; every failure names its seed and replays alike.

python -m sedmad.testing.swarm --seed 17            # replay a seed; --trace shows every event
python -m sedmad.testing.swarm --seed 0 --count 500 # many seeds
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sedmad.core.membership import LAN
from sedmad.testing.faults import Faults
from sedmad.testing.mesh import InvariantBroken, SimulatedMesh
from sedmad.testing.weather import Weather

# Every node is configured with these, and they always come back; without a common acquaintance two halves of
# a mesh that never met could not find each other.
ANCHORS = ("n00", "n01")
BYTE_BUDGETS = (8 << 10, 64 << 10)  # one that binds, and the usual one
NAMES = ("encoder/w1", "encoder/w2", "decoder/w1", "words")


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went."""

    seed: int
    nodes: int
    settled_after_s: float
    messages: int
    false_deaths: int


def run(seed: int) -> tuple[SimulatedMesh, Report]:
    """Run one seed: a mesh of 3 to 16 nodes forms under bad weather, and settles when it is over.

    Raises:
        InvariantBroken: something happened that must not.
    """
    rng = random.Random(f"swarm {seed}")  # noqa: S311  (replayable chance is the point)
    faults = Faults.draw(rng)
    nodes = 3 + int(14 * rng.random() ** 3)  # mostly few: small meshes are quick, and as telling
    node_ids = [f"n{place:02}" for place in range(nodes)]
    settings = replace(LAN, bytes_per_second=rng.choice(BYTE_BUDGETS))
    mesh = SimulatedMesh(seed, node_ids, faults, settings)
    simulator = mesh.simulator
    simulator.note(f"{faults}")

    def crash(node_id: str) -> None:
        if not mesh.nodes[node_id].running or len(mesh.running()) == 1:
            return
        mesh.crash(node_id)
        if node_id in ANCHORS or simulator.rng.random() < 0.8:
            simulator.call_later(simulator.rng.uniform(0.1, faults.down_maximum_s), lambda: start(node_id))

    def start(node_id: str) -> None:
        mesh.start(
            node_id,
            seeds=[anchor for anchor in ANCHORS if anchor != node_id],
            disk_lost=simulator.rng.random() < faults.disk_lost,
        )

    def pause(node_id: str, seconds: float) -> None:
        if mesh.nodes[node_id].running:
            mesh.pause(node_id, seconds)

    def write() -> None:
        awake = [node_id for node_id in mesh.running() if not mesh.nodes[node_id].paused]
        if awake:
            mesh.write(
                simulator.rng.choice(awake), simulator.rng.choice(NAMES), remove=simulator.rng.random() < 0.2
            )
        if simulator.now < faults.duration_s:
            simulator.call_later(simulator.rng.expovariate(1.0 / faults.write_every_s), write)

    for node_id in node_ids:
        simulator.call_later(rng.uniform(0.0, 3.0), lambda node_id=node_id: start(node_id))  # type: ignore[misc]
    Weather(simulator, mesh.network, faults, node_ids, crash=crash, pause=pause)
    simulator.call_later(4.0, write)
    # Nodes that are down or stopped at the end come back after it; that is the last fault.
    last_fault_s = faults.duration_s + max(
        faults.down_maximum_s if faults.crash_every_s else 0.0,
        faults.pause_maximum_s if faults.pause_every_s else 0.0,
    )
    mesh.run_for(last_fault_s + 1.0)
    settled_after_s = mesh.settle()
    report = Report(seed, len(node_ids), settled_after_s, mesh.network.messages_sent, mesh.false_deaths)
    return mesh, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Run seeds from the command line; exit status 1 if an invariant was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m sedmad.testing.swarm", description="Run swarms of nodes."
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--trace", action="store_true", help="show everything that happened")
    options = parser.parse_args(arguments)
    for seed in range(options.seed, options.seed + options.count):
        try:
            mesh, report = run(seed)
        except InvariantBroken as failure:
            print(failure)
            return 1
        if options.trace:
            print(mesh.simulator.story())
        print(
            f"seed {seed}: {report.nodes} nodes agreed {report.settled_after_s:.0f} s after the last fault, "
            f"{report.messages} messages, {report.false_deaths} times a living node was held for dead"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

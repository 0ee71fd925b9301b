"""The simulator: protocol cores on a seeded heap instead of a network, a clock and a disk.

    mesh = SimulatedMesh(seed=1, node_ids=["a", "b", "c"], faults=Faults(loss=0.2))
    for node_id in mesh.node_ids:
        mesh.start(node_id)
    mesh.run_for(60.0)
    mesh.states("a")

`simulator.py` has the clock, `network.py` the messages, `node.py` drives any core of the common shape;
`faults.py` and `weather.py` say what goes wrong. `mesh.py` puts membership cores into it, `swarm.py` runs
them by the hundred, and `scenario.py` reads the stories under tests/core/scenarios. `guardian.py` and
`member.py` put ownership cores into it, `ledger.py` watches them, `ownership_swarm.py` runs them by the
hundred, and `ownership_model.py` explores small ones to the end by `exploration.py`. `store/` has whole nodes, their
services as coroutines (`tasks.py`) around the cores, and `store_swarm.py` runs them by the hundred.
"""

from __future__ import annotations

from sedmad.testing.faults import Faults
from sedmad.testing.mesh import InvariantBroken, SimulatedMesh
from sedmad.testing.network import Network
from sedmad.testing.node import Core, SimulatedNode
from sedmad.testing.simulator import Simulator

__all__ = ["Core", "Faults", "InvariantBroken", "Network", "SimulatedMesh", "SimulatedNode", "Simulator"]

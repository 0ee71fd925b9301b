"""Meshes in bad weather, by the hundred. SEDMAD_SWARM_SEEDS=1000 runs more; SEDMAD_SWARM_FIRST=5000 runs others."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from sedmad.core.membership.membership import Membership
from sedmad.core.membership.messages import Gossip
from sedmad.testing.faults import Faults
from sedmad.testing.mesh import InvariantBroken, SimulatedMesh
from sedmad.testing.swarm import main, run

SEEDS = int(os.environ.get("SEDMAD_SWARM_SEEDS", "100"))
FIRST_SEED = int(os.environ.get("SEDMAD_SWARM_FIRST", "0"))
CHUNK = 10


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEEDS, CHUNK))
def test_swarm(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(seed)  # the error names the seed and how to replay it


def test_a_seed_replays_alike_in_another_process() -> None:
    stories = [
        subprocess.run(
            [sys.executable, "-m", "sedmad.testing.swarm", "--seed", "1", "--trace"],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert stories[0] == stories[1]
    assert "PeerJoined" in stories[0]


def test_a_broken_invariant_says_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A node that hears no gossip learns of names too late, if ever.
    receive = Membership.receive

    def deaf(self: Membership, sender: str, message: object, now: float) -> None:
        if not isinstance(message, Gossip):
            receive(self, sender, message, now)  # type: ignore[arg-type]

    monkeypatch.setattr(Membership, "receive", deaf)
    assert main(["--seed", "0", "--count", "20"]) == 1
    said = capsys.readouterr().out
    assert "python -m sedmad.testing.swarm --seed " in said
    assert "Faults(" in said


def test_a_flooding_node_breaks_the_budget() -> None:
    mesh = SimulatedMesh(1, ["a", "b"])
    mesh.start("a")
    core = mesh.core("a")
    core.collect = lambda: type("Batch", (), {"messages": [("b", Gossip())] * 2_000, "events": []})()  # type: ignore[method-assign]
    with pytest.raises(InvariantBroken, match="bytes a second"):
        mesh.nodes["a"].pump()


NODES = ["a", "b", "c", "d", "e"]
node_ids = st.sampled_from(NODES)


class MeshInTrouble(RuleBasedStateMachine):
    """Whatever happens in whatever order: once it is over, all running nodes agree."""

    def __init__(self) -> None:
        super().__init__()
        self.mesh = SimulatedMesh(1, NODES)
        for node_id in NODES[:3]:
            self.start(node_id, disk_lost=False)

    @rule(seconds=st.floats(0.1, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.mesh.run_for(seconds)

    @rule(node_id=node_ids, disk_lost=st.booleans())
    def start(self, node_id: str, disk_lost: bool) -> None:
        if not self.mesh.nodes[node_id].running:
            others = [other for other in NODES if other != node_id]
            self.mesh.start(node_id, seeds=others, disk_lost=disk_lost)

    @precondition(lambda self: len(self.mesh.running()) > 1)
    @rule(node_id=node_ids)
    def crash(self, node_id: str) -> None:
        if self.mesh.nodes[node_id].running:
            self.mesh.crash(node_id)

    @rule(node_id=node_ids, seconds=st.floats(0.5, 20.0))
    def pause(self, node_id: str, seconds: float) -> None:
        if self.mesh.nodes[node_id].running:
            self.mesh.pause(node_id, seconds)

    @rule(alone=st.sets(node_ids, min_size=1, max_size=4), one_way=st.booleans())
    def split(self, alone: set[str], one_way: bool) -> None:
        others = [node_id for node_id in NODES if node_id not in alone]
        self.mesh.network.split(sorted(alone), others, one_way=one_way)

    @rule()
    def heal(self) -> None:
        self.mesh.network.heal()

    @rule(loss=st.floats(0.0, 0.3), duplication=st.floats(0.0, 0.5))
    def weather(self, loss: float, duplication: float) -> None:
        self.mesh.network.faults = Faults(loss=loss, duplication=duplication)

    @rule(node_id=node_ids, name=st.sampled_from(["w", "v"]), remove=st.booleans())
    def write(self, node_id: str, name: str, remove: bool) -> None:
        node = self.mesh.nodes[node_id]
        if node.running and not node.paused:
            self.mesh.write(node_id, name, remove=remove)

    def teardown(self) -> None:
        self.mesh.network.heal()
        self.mesh.network.faults = Faults()
        self.mesh.run_for(21.0)  # until all that were stopped run again
        self.mesh.settle()


TestMeshInTrouble = MeshInTrouble.TestCase
TestMeshInTrouble.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)

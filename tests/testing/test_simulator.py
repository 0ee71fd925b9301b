"""The simulator itself: order, replay, and what the network does to messages."""

from __future__ import annotations

import doctest
import random

import pytest

import sedmad.testing.mesh
import sedmad.testing.network
import sedmad.testing.scenario
import sedmad.testing.simulator
from sedmad.testing.faults import Faults
from sedmad.testing.network import Network
from sedmad.testing.node import SimulatedNode
from sedmad.testing.simulator import TRACE_LINES, Simulator


@pytest.mark.parametrize(
    "module",
    [sedmad.testing.simulator, sedmad.testing.network, sedmad.testing.mesh, sedmad.testing.scenario],
    ids=lambda module: module.__name__,
)
def test_the_examples_in_the_documentation_hold(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert tried > 0
    assert failed == 0


def test_actions_of_one_instant_run_in_the_order_of_asking() -> None:
    simulator, done = Simulator(1), []
    for number in range(5):
        simulator.call_at(1.0, lambda number=number: done.append(number))  # type: ignore[misc]
    simulator.call_at(0.5, lambda: simulator.call_at(0.0, lambda: done.append("late")))
    simulator.run_until(1.0)
    assert done == ["late", 0, 1, 2, 3, 4]


def test_the_trace_is_bounded() -> None:
    simulator = Simulator(1)
    for number in range(TRACE_LINES + 1):
        simulator.note(str(number))
    assert len(simulator.trace) == TRACE_LINES
    assert simulator.story(lines=1).endswith(str(TRACE_LINES))


def traffic(faults: Faults, seed: int = 1, messages: int = 1_000) -> tuple[list[int], Network]:
    simulator = Simulator(seed)
    network, arrived = Network(simulator, faults), []
    network.attach("b", lambda _sender, message: arrived.append(message))
    for number in range(messages):
        simulator.call_at(number * 0.01, lambda number=number: network.send("a", "b", number))  # type: ignore[misc]
    simulator.run_for(messages * 0.01 + 60.0)
    return arrived, network


def test_a_good_network_delivers_everything_once() -> None:
    arrived, network = traffic(Faults())
    assert sorted(arrived) == list(range(1_000))
    assert network.messages_lost == 0


def test_loss_duplication_and_reordering_come_in_their_dose() -> None:
    lossy, network = traffic(Faults(loss=0.3))
    assert 600 < len(lossy) < 800
    assert len(lossy) + network.messages_lost == 1_000
    repeated, _ = traffic(Faults(duplication=0.5))
    assert 1_400 < len(repeated) < 1_600
    reordered, _ = traffic(Faults(delay_mean_s=0.05, reordering=0.1))
    assert reordered != sorted(reordered)
    assert sorted(reordered) == list(range(1_000))


def test_the_same_seed_gives_the_same_run() -> None:
    faults = Faults(loss=0.2, duplication=0.2, delay_mean_s=0.1)
    assert traffic(faults, seed=7)[0] == traffic(faults, seed=7)[0]
    assert traffic(faults, seed=7)[0] != traffic(faults, seed=8)[0]


def test_cuts_have_a_direction_and_clogs_hold_back() -> None:
    simulator = Simulator(1)
    network, arrived = Network(simulator), []
    for node_id in "abc":
        network.attach(node_id, lambda sender, _message, to=node_id: arrived.append(sender + to))  # type: ignore[misc]
    network.split("a", "b", one_way=True)
    network.clog("a", "c", 5.0)
    for sender, receiver in ("ab", "ba", "ac"):
        network.send(sender, receiver, None)
    simulator.run_for(1.0)
    assert arrived == ["ba"]
    simulator.run_for(5.0)
    assert arrived == ["ba", "ac"]
    network.heal()
    network.send("a", "b", None)
    simulator.run_for(1.0)
    assert arrived == ["ba", "ac", "ab"]


class Batch:
    def __init__(self, messages: list[tuple[str, object]]) -> None:
        self.messages = messages
        self.events: list[object] = []


class Metronome:
    """The least core there is: says 'tick' to its peer every second, and writes down what it hears and when."""

    def __init__(self, peer_id: str, now: float) -> None:
        self.peer_id = peer_id
        self.heard: list[tuple[object, float]] = []
        self.due_at = now + 1.0
        self.waiting: list[tuple[str, object]] = []

    def receive(self, sender: str, message: object, now: float) -> None:
        self.heard.append((message, now))

    def next_timeout(self) -> float:
        return self.due_at

    def handle_timeout(self, now: float) -> None:
        assert now >= self.due_at
        self.due_at = now + 1.0
        self.waiting.append((self.peer_id, "tick"))

    def collect(self) -> Batch:
        waiting, self.waiting = self.waiting, []
        return Batch(waiting)


def test_nodes_live_by_their_own_clock_and_stop_and_die() -> None:
    simulator = Simulator(1)
    network = Network(simulator)
    nodes = [
        SimulatedNode(
            name,
            simulator,
            network,
            lambda _boot, now, peer=peer: Metronome(peer, now),
            clock_offset_s=offset,
        )  # type: ignore[misc]
        for name, peer, offset in (("a", "b", 0.0), ("b", "a", 5_000.3))
    ]
    for node in nodes:
        node.start()
    simulator.run_for(10.5)
    a, b = nodes
    assert a.core is not None
    assert b.core is not None
    assert len(a.core.heard) == len(b.core.heard) == 10
    assert b.core.heard[0][1] == pytest.approx(5_001.3, abs=0.1)
    b.pause(3.0)
    simulator.run_for(2.0)
    assert len(b.core.heard) == 10
    simulator.run_for(2.0)
    assert len(b.core.heard) == 14
    b.crash()
    assert not b.running
    simulator.run_for(5.0)
    b.start()
    assert b.boot_counter == 2
    simulator.run_for(1.5)
    assert b.core is not None
    assert 1 <= len(b.core.heard) <= 2


def test_drawn_faults_differ_in_kind_and_stay_in_range() -> None:
    drawn = [Faults.draw(random.Random(seed)) for seed in range(200)]
    assert {faults.split for faults in drawn} == {"none", "one", "halves", "random"}
    assert any(faults.loss == 0.0 for faults in drawn)
    assert max(faults.loss for faults in drawn) <= 0.3
    assert max(faults.duplication for faults in drawn) <= 0.5
    assert any(faults.crash_every_s for faults in drawn)
    assert all(faults.calm().loss == 0.0 for faults in drawn)

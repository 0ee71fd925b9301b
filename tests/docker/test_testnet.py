"""The testnet in containers: it comes up by itself, survives kills and restarts, and goes without a trace.

The tests follow each other on one testnet, in this order.
"""

from __future__ import annotations

import pytest
from testnet import NODES, Testnet, wait_until

pytestmark = pytest.mark.docker


def test_five_nodes_know_each_other(testnet: Testnet) -> None:
    testnet.wait_complete()
    assert len({mesh_id for _, mesh_id in testnet.identities().values()}) == 1


def test_the_client_asks_and_is_answered_right(testnet: Testnet) -> None:
    code, printed = testnet.wait_exit("client")
    assert code == 0, printed
    assert "5 nodes know each other: node1, node2, node3, node4, node5." in printed
    assert "Every answer was right." in printed


def test_nodes_are_not_root(testnet: Testnet) -> None:
    for service in ("node1", "node5"):
        assert testnet.execute(service, "id", "-u").stdout.strip() != "0"


def test_a_node_may_die_under_the_clients_questions(testnet: Testnet) -> None:
    before = testnet.identities()
    victim = max(testnet.holders(stored_matrix(testnet)) - {"node1"})
    with testnet.start_client("--seconds", "10") as client:
        assert client.stdout is not None
        printed = ""
        for line in client.stdout:
            printed += line
            if line.startswith("Asking without a pause"):
                break
        testnet.compose("kill", victim)
        rest, errors = client.communicate(timeout=120)
    assert client.returncode == 0, errors
    assert "all were answered" in rest
    assert "Every answer was right." in rest
    assert not testnet.runs(victim), "a node that was killed on purpose stays down"

    testnet.compose("start", victim)
    testnet.wait_complete()
    assert testnet.identities() == before


def test_the_whole_testnet_may_be_switched_off(testnet: Testnet) -> None:
    before = testnet.identities()
    testnet.compose("kill", *NODES)
    # In another order, so that addresses change hands.
    for node in reversed(NODES):
        testnet.compose("start", node)
    wait_until(lambda: all(testnet.runs(node) for node in NODES), "all containers to run")
    testnet.wait_complete()
    assert testnet.identities() == before
    with testnet.start_client("--seconds", "1") as client:
        printed, errors = client.communicate(timeout=120)
    assert client.returncode == 0, errors
    assert "Every answer was right." in printed


def test_it_goes_without_a_trace(testnet: Testnet) -> None:
    assert testnet.leftovers()
    testnet.down()
    assert not testnet.leftovers()


def stored_matrix(testnet: Testnet) -> str:
    """Return what the client called the words: real ones and made-up ones have different names."""
    (matrix,) = testnet.json("node1", "ls")["matrices"]
    name: str = matrix["name"]
    return name

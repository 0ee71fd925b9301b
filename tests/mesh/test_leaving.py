"""Nodes that leave in good order, and nodes that were away while something was removed or replaced."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from daemons import run_verb, wait_until
from meshes import MeshOfDaemons
from products import is_right, normal

from sedmad.errors import StateError
from sedmad.wire.messages import PeerState


@pytest.fixture(scope="module")
def four(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    return make_mesh("ann", "ben", "cyd", "dan").start()


def holders(mesh: MeshOfDaemons, name: str, asked: str) -> set[str]:
    report = mesh[asked].json("inspect", name)
    return {copy["name"] for partition in report["partitions"] for copy in partition["copies"]}


def test_who_was_away_learns_what_was_removed_and_replaced(four: MeshOfDaemons) -> None:
    old, new = normal(3000, 1024), normal(2500, 1024, seed=5)
    with four["ann"].connect() as mesh:
        for name in ("gone", "changed"):
            mesh.put(name, old, survive=3)
    four["dan"].kill()
    four.wait_state(four["dan"], PeerState.PEER_STATE_DEAD)
    with four["ann"].connect() as mesh:
        mesh.remove("gone")
        mesh.put("changed", new, survive=2, replace=True)
    four["dan"].start()
    four.wait_complete()
    wait_until(lambda: [m["name"] for m in four["dan"].json("ls")["matrices"]] == ["changed"], "dan to hear")
    with four["dan"].connect() as mesh:
        x = normal(1024, seed=1)
        assert is_right(mesh["changed"] @ x, new, x)
    # The old version goes once nobody multiplies with it any more; then nothing stays that is not needed.
    wait_until(lambda: four["dan"].blob_bytes() == 0, "dan to free what it held", timeout_s=90)
    assert four["ann"].json("verify")["clean"]


def test_a_node_that_drains_hands_over_what_it_holds_and_owns(four: MeshOfDaemons) -> None:
    w = normal(5000, 1024)
    with four["ben"].connect() as mesh:
        mesh.put("w", w, survive=1)
    done: dict[str, Any] = four["ann"].json("drain", "ben")
    assert (done["name"], done["copies_left"], done["owned_left"]) == ("ben", 0, 0)
    assert four["ben"].json("status")["node"]["state"] == "draining"
    assert "ben" not in holders(four, "w", "cyd")
    assert four["cyd"].json("inspect", "w")["owner"] != four["ben"].peer_id
    # It takes nothing new, not even after a restart.
    four["ben"].stop()
    x = normal(1024, seed=2)
    with four["cyd"].connect() as mesh:
        assert is_right(mesh["w"] @ x, w, x)
    four["ben"].launch()
    wait_until(
        lambda: (
            {peer["name"]: peer["node_state"] for peer in four["cyd"].json("peers")["peers"] if peer["path"]}
            == {"ann": "ready", "ben": "draining", "dan": "ready"}
        ),
        "ben to be back",
    )
    with four["cyd"].connect() as mesh:
        mesh.put("v", w, survive=2)
    assert "ben" not in holders(four, "v", "cyd")
    four["ben"].json("drain", "--cancel")
    wait_until(lambda: four["ben"].json("status")["node"]["state"] == "ready", "ben to stay")
    wait_until(
        lambda: (
            four["cyd"].json("peers")["peers"]
            and all(peer["node_state"] == "ready" for peer in four["cyd"].json("peers")["peers"])
        ),
        "the others to hear that ben stays",
    )
    with four["cyd"].connect() as mesh:
        mesh.put("u", w, survive=3)
    assert "ben" in holders(four, "u", "cyd")


def test_draining_nobody_is_a_mistake(four: MeshOfDaemons) -> None:
    done = run_verb(four["ann"].home, "drain", "nobody")
    assert done.returncode == 65
    assert "ann, ben, cyd, dan" in done.stderr


def test_a_drain_that_waits_ends_when_its_node_stays_after_all(four: MeshOfDaemons) -> None:
    with four["cyd"].connect() as mesh:
        mesh.put("everywhere", normal(100, 64), survive=3)
    with four["ann"].connect() as mesh:
        progress = mesh.drain("dan")
        left = next(progress).left
        assert left.copies_left
        assert "cyd moves copies" in left.waiting_for
        four["cyd"].run("drain", "dan", "--cancel")
        with pytest.raises(StateError, match="dan is not being emptied any more"):
            deque(progress)
    wait_until(lambda: four["dan"].json("status")["node"]["state"] == "ready", "dan to stay")


def test_a_node_can_leave_when_the_name_is_gone_that_promised_a_copy_on_every_node(
    four: MeshOfDaemons,
) -> None:
    w = normal(3000, 512)
    with four["ann"].connect() as mesh:
        for matrix in four["ann"].json("ls")["matrices"]:
            if matrix["survive"] == 3:
                mesh.remove(matrix["name"])
        mesh.put("thin", w, survive=1)
        mesh.put("thick", w, survive=3)
        assert len(holders(four, "thin", "ann")) == 4
        mesh.remove("thick")
        done: dict[str, Any] = four["ann"].json("drain", "dan")
        assert (done["name"], done["copies_left"]) == ("dan", 0)
        assert len(holders(four, "thin", "ann") - {"dan"}) == 2
        x = normal(512, seed=3)
        assert is_right(mesh["thin"] @ x, w, x)
    four["dan"].stop()
    with four["ann"].connect() as mesh:
        assert list(mesh.verify().matrices) == []

"""Daemons that end and start again: they find their mesh, and the mesh finds what they hold."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from meshes import MeshOfDaemons
from products import Array, is_right, normal

import sedmad
from sedmad.wire.messages import PeerState


@pytest.fixture(scope="module")
def three(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    """Three daemons; tests leave all of them running."""
    return make_mesh("ann", "ben", "cyd").start()


@pytest.fixture(scope="module")
def stored(three: MeshOfDaemons) -> Array:
    """What is stored as `w`, from ben, on all three."""
    w = normal(6000, 1024)
    with three["ben"].connect() as mesh:
        mesh.put("w", w, survive=2)
    return w


def assert_serves(mesh: sedmad.Mesh, w: Array) -> None:
    assert [matrix.name for matrix in mesh.matrices()] == ["w"]
    x, y = normal(1024, seed=1), normal(6000, seed=2)
    assert is_right(mesh["w"] @ x, w, x)
    assert is_right(mesh["w"].T @ y, w, y, transposed=True)
    assert mesh["w"].get().tobytes() == w.tobytes()


@pytest.mark.parametrize("name", ["ann", "ben"], ids=["founder", "owner"])
def test_a_node_stopped_and_started_takes_part_again(name: str, three: MeshOfDaemons, stored: Array) -> None:
    daemon = three[name]
    used_bytes = daemon.json("status")["memory"]["used_bytes"]
    daemon.stop()
    # It listens somewhere else now.
    daemon.start()
    three.wait_complete()
    assert daemon.json("status")["memory"]["used_bytes"] == used_bytes
    for other in three:
        with other.connect() as mesh:
            assert_serves(mesh, stored)


def test_a_node_killed_and_started_takes_part_again(three: MeshOfDaemons, stored: Array) -> None:
    three["ben"].kill()
    three.wait_state(three["ben"], PeerState.PEER_STATE_DEAD)
    three["ben"].start()
    three.wait_complete()
    for daemon in three:
        with daemon.connect() as mesh:
            assert_serves(mesh, stored)


def test_a_mesh_switched_off_and_on_again_has_lost_nothing(three: MeshOfDaemons, stored: Array) -> None:
    for daemon in three:
        daemon.kill()
    for daemon in three:
        daemon.launch(listen=f"/ip4/127.0.0.1/tcp/{daemon.port}")
    for daemon in three:
        daemon.wait_ready()
    three.wait_complete()
    for daemon in three:
        with daemon.connect() as mesh:
            assert_serves(mesh, stored)

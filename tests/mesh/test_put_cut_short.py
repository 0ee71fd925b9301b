"""Nodes that die while a matrix goes in: it was not acknowledged, so nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from daemons import Daemon, wait_until
from meshes import MeshOfDaemons
from products import is_right, normal

from sedmad.client.upload import PutProgress
from sedmad.errors import OperationalError, PeerError
from sedmad.wire.messages import PeerState

NOTHING = (0, 0, 0)


@pytest.fixture(scope="module")
def three(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    """Three daemons, all of them up between tests."""
    return make_mesh("ann", "ben", "cyd").start()


def put_while_it_dies(victim: Daemon, three: MeshOfDaemons) -> None:
    """Store a matrix through ann, and kill the victim when a part of it has arrived."""

    def kill(told: PutProgress) -> None:
        if told.safe_bytes > 8 << 20:
            victim.kill()

    with three["ann"].connect() as client, pytest.raises((OperationalError, PeerError)):
        client.put("w", normal(9000, 1024), survive=2, progress=kill)
    assert not victim.runs


def assert_nothing_stays(three: MeshOfDaemons) -> None:
    wait_until(lambda: three.used() == [NOTHING] * 3, "all room to be free again")
    w, x = normal(3000, 1024, seed=1), normal(1024)
    with three["ann"].connect() as client:
        assert not client.summaries()
        stored = client.put("w", w, survive=2)
        assert is_right(stored @ x, w, x)
        client.remove("w")
    wait_until(lambda: three.used() == [NOTHING] * 3, "all room to be free again")


def test_a_holder_that_dies_fails_the_put(three: MeshOfDaemons) -> None:
    put_while_it_dies(three["cyd"], three)
    for daemon in (three["ann"], three["ben"]):
        with daemon.connect() as client:
            wait_until(
                lambda client=client: client.status().memory_used_bytes == 0, "the living to free theirs"
            )
            assert "w" not in client
    three["cyd"].start()
    three.wait_complete()
    assert_nothing_stays(three)


def test_an_owner_that_dies_leaves_nothing_with_others(three: MeshOfDaemons) -> None:
    put_while_it_dies(three["ann"], three)
    three.wait_state(three["ann"], PeerState.PEER_STATE_DEAD)
    for daemon in (three["ben"], three["cyd"]):
        with daemon.connect() as client:
            wait_until(lambda client=client: client.status().memory_used_bytes == 0, "room to be free again")
            assert not client.summaries()
    # Files follow once nobody can send their rest any more: now, or when sessions with ann are given up.
    three["ann"].start()
    three.wait_complete()
    assert_nothing_stays(three)

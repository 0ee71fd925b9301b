"""An owner dies for good: a guardian takes its matrices over, makes its copies again, and it yields when it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from daemons import wait_until
from meshes import MeshOfDaemons
from products import Array, is_right, normal

from sedmad.wire.messages import PeerState


@pytest.fixture(scope="module")
def four(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    return make_mesh("ann", "ben", "cyd", "dan").start()


def inspect(mesh: MeshOfDaemons, name: str, asked: str) -> dict[str, Any]:
    return mesh[asked].json("inspect", name)


def holders(report: dict[str, Any]) -> set[str]:
    return {copy["name"] for partition in report["partitions"] for copy in partition["copies"]}


def is_whole(report: dict[str, Any], survive: int, without: str) -> bool:
    return without not in holders(report) and all(
        len(partition["copies"]) == survive + 1
        and [copy["kind"] for copy in partition["copies"]].count("resident") == 1
        for partition in report["partitions"]
    )


def assert_serves(mesh: MeshOfDaemons, asked: str, w: Array) -> None:
    x, y = normal(w.shape[1], seed=1), normal(w.shape[0], seed=2)
    with mesh[asked].connect() as connection:
        assert is_right(connection["w"] @ x, w, x)
        assert is_right(connection["w"].T @ y, w, y, transposed=True)
        assert connection["w"].get().tobytes() == w.tobytes()


def test_ownership_passes_on_and_copies_are_made_again(four: MeshOfDaemons) -> None:
    w = normal(6000, 1024)
    with four["ann"].connect() as mesh:
        mesh.put("w", w, survive=1)
    four["ann"].kill()
    four.wait_state(four["ann"], PeerState.PEER_STATE_DEAD)
    assert_serves(four, "ben", w)
    wait_until(
        lambda: is_whole(inspect(four, "w", "ben"), survive=1, without="ann"),
        "the copies of ann to be made again",
    )
    report = inspect(four, "w", "ben")
    assert report["owner"] != four["ann"].peer_id
    assert report["epoch"] > 0
    for name in ("ben", "cyd", "dan"):
        assert_serves(four, name, w)

    # It returns, gives up what it no longer holds, and plans nothing.
    four["ann"].start()
    four.wait_complete()
    wait_until(
        lambda: (
            four["ann"].json("status")["memory"]["used_bytes"] == 0
            or "ann" in holders(inspect(four, "w", "ann"))
        ),
        "ann to yield",
    )
    assert inspect(four, "w", "ann")["owner"] == report["owner"]
    assert_serves(four, "ann", w)

    # Its new owner may end it, whoever stored it.
    four["ann"].run("rm", "w")
    wait_until(lambda: not any(daemon.blob_bytes() for daemon in four), "all copies to be freed")

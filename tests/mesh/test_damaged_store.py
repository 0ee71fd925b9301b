"""Daemons whose database is newer than they are, or damaged."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from daemons import home_of, wait_until
from meshes import MeshOfDaemons
from products import is_right, normal

from sedmad.store.schema import MIGRATIONS
from sedmad.store.snapshots import snapshot_path


@pytest.fixture(scope="module")
def lone(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    return make_mesh("ann").start()


def test_a_store_of_a_newer_sedmad_is_refused_and_left_alone(lone: MeshOfDaemons) -> None:
    ann = lone["ann"]
    ann.stop()
    path = home_of(ann.home).database
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    assert ann.launch().wait_exit() == os.EX_CONFIG
    assert "written by a newer sedmad" in ann.log_tail()
    assert str(path) in ann.log_tail()
    assert path.read_bytes() == before
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    ann.start()


@pytest.mark.parametrize("damage", ["pages", "gone"])
def test_a_damaged_database_costs_a_lone_node_nothing_that_its_snapshot_has(
    lone: MeshOfDaemons, damage: str
) -> None:
    ann = lone["ann"]
    w, x = normal(3000, 1024), normal(1024, seed=1)
    with ann.connect() as mesh:
        mesh.put(f"w-{damage}", w, survive=0)
    path = home_of(ann.home).database
    ann.stop()
    assert snapshot_path(path).exists()
    if damage == "gone":
        path.unlink()
    else:
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(8 * 4096))
    ann.start()
    assert [event for event in ann.events() if event["event"] == "database_damaged"]
    with ann.connect() as mesh:
        assert is_right(mesh[f"w-{damage}"] @ x, w, x)
        assert mesh[f"w-{damage}"].get().tobytes() == w.tobytes()
        mesh.put("another", w, survive=0)
        # Nothing is ended before it is clear that nobody else knows better.
        wait_until(lambda: not mesh.status().warnings, "the tables to be trusted again")
        mesh.remove("another")
        wait_until(lambda: "another" not in {matrix.name for matrix in mesh.matrices()}, "the removal")

"""Daemons that are killed, or freeze, while clients multiply."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from daemons import Daemon, wait_until
from meshes import MeshOfDaemons
from products import Array, is_right, normal

import sedmad
from sedmad.errors import DeadlineExceeded, HoldersUnreachable, SedmadError
from sedmad.wire.messages import CopyKind, PeerState

ROWS, COLUMNS = 8000, 1024
OWNER, ASKED = "ann", "ben"
FROZEN_S = 10.0
# Far beyond any deadline used here: a product that takes this long hangs.
HANG_S = 60.0


@pytest.fixture(scope="module")
def five(make_mesh: Callable[..., MeshOfDaemons]) -> MeshOfDaemons:
    """Five daemons; each test stores its matrix and may kill one that neither owns it nor is asked."""
    mesh = make_mesh(OWNER, ASKED, "cyd", "dan", "eve")
    for name in (OWNER, ASKED):
        # Room for one partition each: the others compute, too, however slow they are.
        mesh[name].memory = "8MiB"
    return mesh.start()


@pytest.fixture
def client(five: MeshOfDaemons) -> Iterator[sedmad.Mesh]:
    with five[ASKED].connect() as mesh:
        yield mesh
        for matrix in mesh.matrices():
            mesh.remove(matrix.name)


def store(w: Array, survive: int, five: MeshOfDaemons, client: sedmad.Mesh) -> str:
    """Store a matrix on the living, from the owner; return its name once the asked node knows it."""
    name = f"w{time.monotonic_ns()}"
    with five[OWNER].connect() as owner:
        owner.put(name, w, survive=survive)
    wait_until(lambda: name in client, "the name to arrive")
    return name


def victim_of(name: str, five: MeshOfDaemons, client: sedmad.Mesh) -> Daemon:
    """Return who of those that may be harmed computes most for a matrix."""
    residents = Counter(
        copy.peer_id
        for partition in client.inspect(name).partitions
        for copy in partition.copies
        if copy.kind == CopyKind.COPY_KIND_RESIDENT
    )
    ours = [daemon for daemon in five if daemon.runs and daemon.name not in (OWNER, ASKED)]
    victim = max(ours, key=lambda daemon: residents[daemon.peer_id])
    assert residents[victim.peer_id], "the test needs a victim that computes something"
    return victim


class Products:
    """Products in a loop, straight and transposed by turns, each one checked."""

    def __init__(self, client: sedmad.Mesh, name: str, w: Array) -> None:
        self.done = 0
        self.failures: list[str] = []
        self._matrix, self._w = client[name], w
        self._stop = threading.Event()

    def run(self) -> None:
        straight, turned = normal(COLUMNS, 3, seed=1), normal(ROWS, 2, seed=2)
        while not self._stop.is_set():
            for x, transposed in ((straight, False), (turned, True)):
                try:
                    y = self._matrix.apply(x, transpose=transposed)
                except SedmadError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                else:
                    if not is_right(y, self._w, x, transposed=transposed):
                        self.failures.append("a wrong product")
                self.done += 1

    def wait_for_more(self, count: int) -> None:
        """Wait until this many more are done."""
        until = self.done + count
        wait_until(lambda: self.done >= until or self.failures, f"{count} products", HANG_S)

    @contextmanager
    def running(self) -> Iterator[Products]:
        threads = [threading.Thread(target=self.run) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            self.wait_for_more(4)
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(HANG_S)
        assert not any(thread.is_alive() for thread in threads)


def test_a_killed_holder_costs_no_product(five: MeshOfDaemons, client: sedmad.Mesh) -> None:
    w = normal(ROWS, COLUMNS)
    name = store(w, 1, five, client)
    victim = victim_of(name, five, client)
    with Products(client, name, w).running() as products:
        victim.kill()
        products.wait_for_more(20)
        five.wait_state(victim, PeerState.PEER_STATE_DEAD)
        products.wait_for_more(20)
    assert products.failures == []
    # Its copies are made again some seconds after it was found dead; until then the matrix says what it lacks.
    report = five[ASKED].json("inspect", name)
    states = {copy["name"]: copy["state"] for part in report["partitions"] for copy in part["copies"]}
    assert states.get(victim.name, "dead") == "dead"
    assert (victim.name in states) == (victim.name in (report["degraded"] or ""))
    assert client[name].get().tobytes() == w.tobytes()
    assert {peer["name"]: peer["state"] for peer in five[ASKED].json("peers")["peers"]}[victim.name] == "dead"


def test_a_frozen_holder_costs_no_product_and_comes_back(five: MeshOfDaemons, client: sedmad.Mesh) -> None:
    w = normal(ROWS, COLUMNS)
    name = store(w, 1, five, client)
    victim = victim_of(name, five, client)
    with Products(client, name, w).running() as products:
        victim.pause()
        try:
            time.sleep(FROZEN_S)
            products.wait_for_more(1)
        finally:
            victim.resume()
        five.wait_state(victim, PeerState.PEER_STATE_ALIVE)
        five.wait_complete()
        products.wait_for_more(20)
    assert products.failures == []
    assert five[ASKED].json("inspect", name)["degraded"] is None
    # What came back answers as before.
    with victim.connect() as back:
        x = normal(COLUMNS)
        assert is_right(back[name] @ x, w, x)


def test_without_standbys_a_loss_is_a_clear_error_in_time(five: MeshOfDaemons, client: sedmad.Mesh) -> None:
    w, x = normal(ROWS, COLUMNS), normal(COLUMNS, seed=1)
    name = store(w, 0, five, client)
    matrix = client[name]
    assert is_right(matrix @ x, w, x)
    victim = victim_of(name, five, client)

    def multiply(deadline_s: float, transpose: bool) -> SedmadError:
        outcome: list[object] = []

        def run() -> None:
            try:
                outcome.append(
                    matrix.apply(normal(ROWS) if transpose else x, deadline_s=deadline_s, transpose=transpose)
                )
            except SedmadError as error:
                outcome.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(HANG_S)
        assert outcome, "the product hangs"
        error = outcome[0]
        assert isinstance(error, HoldersUnreachable | DeadlineExceeded), error
        return error

    # Frozen, it may answer yet: the product ends by its deadline.
    victim.pause()
    error = multiply(1.0, transpose=False)
    assert error.matrix == name, error
    assert victim.name in str(error)
    victim.kill()
    for transpose in (False, True):
        error = multiply(20.0, transpose=transpose)
        assert error.matrix == name, error
        assert victim.name in str(error)
    five.wait_state(victim, PeerState.PEER_STATE_DEAD)
    error = multiply(20.0, transpose=False)
    assert isinstance(error, HoldersUnreachable)
    assert victim.name in str(error)
    report = five[ASKED].json("inspect", name)
    assert "cannot be read" in report["degraded"]
    assert victim.name in report["degraded"]
    with pytest.raises(HoldersUnreachable) as caught:
        matrix.get()
    assert caught.value.matrix == name
    # It can still be removed; who could not be told is named.
    assert list(client.remove(name).unreachable) == [victim.name]

"""Connections that are cut again and again: sessions outlive them, and what runs over sessions does not notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from daemons import Daemon, patched, wait_until
from meshes import MeshOfDaemons
from products import is_right, normal
from proxies import Cuts, Proxy

from sedmad.client.upload import PutProgress
from sedmad.errors import OperationalError, PeerError

MIB = 1 << 20
ROWS, COLUMNS = 8192, 1024
CUTS_EVERY_S = 1.0
RESENT_SHARE_MAX = 0.05
# The matrix of that test takes 20 s; streams were given up at this rate while chunks travelled whole.
SLOW_BYTES_PER_S = 64e3


class CutMesh:
    """Daemons behind proxies."""

    def __init__(
        self, daemons: MeshOfDaemons, stack: ExitStack, rate_bytes_per_s: float | None = None
    ) -> None:
        self.daemons = daemons
        self.proxies: list[Proxy] = []
        for daemon in daemons:
            proxy = stack.enter_context(Proxy())
            self.proxies.append(proxy)
            if daemon is not daemons.founder:
                daemons.introduce(daemon)
            proxy.launch(daemon).wait_ready()
        daemons.wait_complete()

    def sent_and_resent(self) -> tuple[int, int]:
        """Stop the daemons; return the bytes that their sessions sent, and of those the ones they sent again."""
        for daemon in self.daemons:
            daemon.stop()
        sessions = {}
        for daemon in self.daemons:
            for event in daemon.events():
                if event["event"] == "stream_ended":
                    sessions[daemon.name, event["session"]] = event["sent_bytes"], event["resent_bytes"]
        sent, resent = zip(*sessions.values(), strict=True)
        return sum(sent), sum(resent)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def events(daemon: Daemon, name: str) -> list[dict[str, object]]:
    return [event for event in daemon.events() if event["event"] == name]


def test_puts_and_products_go_on(make_mesh: Callable[..., MeshOfDaemons], stack: ExitStack) -> None:
    daemons = make_mesh("ann", "ben", "cyd")
    for daemon in daemons:
        daemon.memory, daemon.disk = "64MiB", "512MiB"
    # The owner keeps little: most of the matrix travels.
    daemons["ann"].memory = "8MiB"
    mesh = CutMesh(daemons, stack)
    w = normal(ROWS, COLUMNS)
    straight, turned = normal(COLUMNS, 3, seed=1), normal(ROWS, 2, seed=2)
    with daemons["ann"].connect() as client, Cuts(mesh.proxies, CUTS_EVERY_S, seed=1):
        matrix = client.put("w", w, survive=1)
        for _ in range(6):
            assert is_right(matrix.apply(straight), w, straight)
            assert is_right(matrix.apply(turned, transpose=True), w, turned, transposed=True)
        assert matrix.get().tobytes() == w.tobytes()
    cuts = sum(proxy.cuts for proxy in mesh.proxies)
    assert cuts
    # Each copy is there once, and nothing else is.
    wait_until(
        lambda: (
            sum(disk for _, disk, _ in daemons.used())
            == sum(real for *_, real in daemons.used())
            == 2 * w.nbytes
        ),
        f"{daemons.used()} to be two copies of {w.nbytes} bytes",
    )
    for daemon in daemons:
        assert not events(daemon, "peer_dead"), daemon.name
        assert not events(daemon, "session_ended"), daemon.name
    sent, resent = mesh.sent_and_resent()
    print(f"{cuts} cuts, {sent} bytes sent, {resent} sent again ({resent / sent:.2%})")
    assert sent > w.nbytes
    assert resent < RESENT_SHARE_MAX * sent


def test_a_put_over_a_slow_link_is_slow_and_nothing_else(
    make_mesh: Callable[..., MeshOfDaemons], stack: ExitStack
) -> None:
    daemons = make_mesh("ann", "ben")
    mesh = CutMesh(daemons, stack)
    w, x = normal(320, 1024), normal(1024, seed=1)
    for proxy in mesh.proxies:
        proxy.rate_bytes_per_s = SLOW_BYTES_PER_S
    with daemons["ann"].connect() as client:
        matrix = client.put("w", w, survive=1)
        assert is_right(matrix @ x, w, x)
        assert client.inspect("w").partitions[0].copies[1].peer_id
    for daemon in daemons:
        assert not events(daemon, "peer_dead"), daemon.name
        assert not events(daemon, "stream_ended"), daemon.name


def test_what_a_dead_owner_was_storing_goes_with_it(
    make_mesh: Callable[..., MeshOfDaemons], stack: ExitStack
) -> None:
    """Half-fetched files go when their source is held for dead, not when its session is forgotten, here never."""
    daemons = make_mesh("ann", "ben", "cyd")
    for daemon in daemons:
        daemon.command = patched("sedmad.net.sessions", RESUME_S=10_000.0)
    mesh = CutMesh(daemons, stack)
    for proxy in mesh.proxies:
        proxy.rate_bytes_per_s = 1e6
    owner = daemons["ann"]

    def kill(told: PutProgress) -> None:
        if any(daemon.blob_bytes() for daemon in daemons if daemon is not owner):
            owner.kill()

    with owner.connect() as client, pytest.raises((OperationalError, PeerError)):
        client.put("w", normal(8000, 1024), survive=2, progress=kill)
    for daemon in daemons:
        if daemon is not owner:
            wait_until(lambda daemon=daemon: not daemon.blob_bytes(), f"{daemon.name} to delete its files")
            assert not events(daemon, "session_ended")

"""Meshes of real daemons: homes that belong together, started side by side, ended together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from daemons import DISK, MEMORY, Daemon, home_of, wait_until

import sedmad
from sedmad.net.credentials import Credentials
from sedmad.net.identity import Identity
from sedmad.node.bootstrap import BOOTSTRAP_FILE, save_bootstrap
from sedmad.node.clock import wall_time_s
from sedmad.wire.messages import NodeState, PeerState


class MeshOfDaemons:
    """Nodes of one mesh, on this machine; leaving its `with` block ends all of them.

    Their homes are made as `init` and `join` make them, without the seconds that real ones take (test_set_up.py has
    those).

    Args:
        folder: an empty directory with a short path.
        names: of the nodes; the first one founds the mesh.
        kind: of daemon.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[str],
        *,
        memory: str = MEMORY,
        disk: str = DISK,
        kind: type[Daemon] = Daemon,
    ) -> None:
        self.daemons = {name: kind(name, folder / name, memory=memory, disk=disk) for name in names}
        self.founder = next(iter(self.daemons.values()))
        self._make_homes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for daemon in self.daemons.values():
            daemon.kill()

    def __getitem__(self, name: str) -> Daemon:
        return self.daemons[name]

    def __iter__(self) -> Iterator[Daemon]:
        return iter(self.daemons.values())

    def called(self, peer_id: str) -> Daemon:
        """Return the daemon of a peer id."""
        return next(daemon for daemon in self if daemon.peer_id == peer_id)

    def start(self) -> Self:
        """Start all daemons, and wait until each knows all others."""
        self.founder.start()
        for daemon in self:
            if daemon is not self.founder:
                self.introduce(daemon)
                daemon.launch()
        for daemon in self:
            daemon.wait_ready()
        self.wait_complete()
        return self

    def introduce(self, daemon: Daemon) -> None:
        """Tell a node where the founder listens now, as the token of its invitation did."""
        path = home_of(daemon.home).certificates / BOOTSTRAP_FILE
        save_bootstrap(path, {self.founder.peer_id: tuple(self.founder.addresses)})

    def wait_complete(self) -> None:
        """Wait until every daemon that runs has a session with every other that does."""
        running = [daemon for daemon in self if daemon.runs]
        for daemon in running:
            others = {other.peer_id for other in running if other is not daemon}
            with daemon.connect() as mesh:
                wait_until(partial(_has_met, mesh, others), f"{daemon.name} to meet the others")

    def wait_state(self, of: Daemon, state: PeerState.ValueType) -> None:
        """Wait until every other daemon that runs sees one in this state."""
        for daemon in self:
            if daemon is not of and daemon.runs:
                with daemon.connect() as mesh:
                    wait_until(
                        lambda: any(p.peer_id == of.peer_id and p.state == state for p in mesh.peers()),
                        f"{daemon.name} to see {of.name} as {PeerState.Name(state)}",
                    )

    def empty(self) -> None:
        """Remove every matrix, and wait until all nodes have heard of it."""
        with self.founder.connect() as mesh:
            for matrix in mesh.matrices():
                mesh.remove(matrix.name)
        for daemon in self:
            with daemon.connect() as mesh:
                wait_until(lambda mesh=mesh: not mesh.summaries(), f"{daemon.name} to forget all names")

    def used(self) -> list[tuple[int, int, int]]:
        """Return each node's memory and disk in use as it counts them, and the bytes that really lie there."""
        found = []
        for daemon in self:
            with daemon.connect() as mesh:
                status = mesh.status()
            found.append((status.memory_used_bytes, status.disk_used_bytes, daemon.blob_bytes()))
        return found

    def wait_used(self, wanted: list[tuple[int, int, int]]) -> None:
        """Wait until the nodes use what they used when `used` returned this."""
        wait_until(lambda: self.used() == wanted, f"{self.used()} to become {wanted}")

    def _make_homes(self) -> None:
        now_s = int(wall_time_s())
        identity = Identity.make()
        founded = Credentials.found_mesh(identity, self.founder.name, now_s=now_s)
        for daemon in self:
            home = home_of(daemon.home)
            home.create()
            if daemon is self.founder:
                identity.save(home.identity_key)
                founded.save(home.certificates)
                continue
            member = Identity.make()
            chain = founded.admit(identity, member.public_key, daemon.name, now_s=now_s)
            member.save(home.identity_key)
            Credentials(founded.root_public_key, chain).save(home.certificates)


def attached(mesh: sedmad.Mesh) -> set[str]:
    """Return the peer ids of those who take part in the mesh and with whom a node has a session."""
    return {
        peer.peer_id
        for peer in mesh.peers()
        if peer.state == PeerState.PEER_STATE_ALIVE
        and peer.node_state == NodeState.NODE_STATE_READY
        and peer.path
    }


def _has_met(mesh: sedmad.Mesh, others: set[str]) -> bool:
    return others <= attached(mesh)

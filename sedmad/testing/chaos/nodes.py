"""The daemons: nodes of a local mesh that reach each other through doors, and that are watched."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import psutil

from sedmad.cli.demo.nodes import LocalNode
from sedmad.testing.chaos.network import HOST, Door, Network, free_port
from sedmad.wire.messages import NodeState, PeerState

# Who a node is, and how it finds the others; everything else of its home it has to get again.
KEPT_OF_A_HOME = frozenset({"identity.key", "root.key", "certificates", "config.toml"})


class ChaosNode(LocalNode):
    """A node behind a door.

    Args:
        name: what the mesh calls it.
        folder: where its home and its log are made.
        network: whose door it gets.
    """

    def __init__(self, name: str, folder: Path, network: Network, *, memory: str, disk: str) -> None:
        super().__init__(name, folder, memory=memory, disk=disk)
        self._door: Door = network.open_door(name)

    @property
    def ended_by_itself(self) -> bool:
        """Whether its daemon was started, was not killed, and runs no more."""
        process = self._process
        return process is not None and process.poll() is not None

    def neighbours(self) -> set[str]:
        """Return the names of those who take part in the mesh and with whom this node has a session.

        Raises:
            SedmadError: its daemon does not answer.
        """
        with self.connect() as mesh:
            return {
                peer.name
                for peer in mesh.peers()
                if peer.state == PeerState.PEER_STATE_ALIVE
                and peer.node_state == NodeState.NODE_STATE_READY
                and peer.path
            }

    def wipe(self) -> None:
        """Empty the disk of a node whose daemon does not run, but for who it is."""
        for path in self.home.iterdir():
            if path.name in KEPT_OF_A_HOME:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def owns_port(self, port: int) -> bool:
        """Whether a socket of its daemon is bound to this local TCP port."""
        try:
            connections = psutil.Process(self.process_id).net_connections("tcp")
        except (LookupError, psutil.Error):
            return False
        return any(connection.laddr and connection.laddr.port == port for connection in connections)

    def logged_errors(self) -> Counter[str]:
        """Return how often each event was logged as an error."""
        found: Counter[str] = Counter()
        if not self.log_path.exists():
            return found
        with self.log_path.open(errors="replace") as lines:
            for line in lines:
                try:
                    entry = json.loads(line)
                except ValueError:
                    # Not our own log: a crash of the interpreter, or what a library printed.
                    found.update(["Traceback"] if line.startswith("Traceback") else [])
                    continue
                if entry.get("level") in ("error", "critical"):
                    found[str(entry.get("event"))] += 1
        return found

    def _address_options(self) -> tuple[str, ...]:
        self._door.target_port = free_port()
        listen = f"/ip4/{HOST}/tcp/{self._door.target_port}"
        return ("--listen", listen, "--announce", self._door.address)

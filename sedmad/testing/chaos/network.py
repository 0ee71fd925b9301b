"""The network between daemons on one machine: a TCP proxy in front of each, so that it can split and break.

A daemon listens where only its door knows and announces the door. The door tells who dials by asking the operating
system whose socket it is, so that a split cuts pairs of nodes and not whole nodes.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HOST = "127.0.0.1"
CHUNK_BYTES = 256 << 10
# Closing with this set tells the other side by a reset, as a middlebox does that has forgotten a connection.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Network:
    """Doors, and who can speak with whom through them.

    Args:
        name_of: returns the node whose process has this local TCP port, or "" where it is none of them.
    """

    def __init__(self, name_of: Callable[[int], str]) -> None:
        self._name_of = name_of
        self._changed = threading.Condition()
        self._islands: list[frozenset[str]] = []
        self._connections: set[_Connection] = set()
        self._doors: list[Door] = []

    def open_door(self, name: str) -> Door:
        """Return a new door of a node."""
        door = Door(name, self)
        self._doors.append(door)
        return door

    @contextmanager
    def split(self, island: frozenset[str]) -> Iterator[None]:
        """Let nothing through between some nodes and all others while the block runs, as a cable that is pulled.

        What is sent meanwhile arrives afterwards, as TCP would send it again.
        """
        with self._changed:
            self._islands.append(island)
        try:
            yield
        finally:
            with self._changed:
                self._islands.remove(island)
                self._changed.notify_all()

    def cut(self, name: str) -> int:
        """Close every connection that a node has now; return how many."""
        with self._changed:
            cut = [connection for connection in self._connections if name in connection.ends]
            for connection in cut:
                connection.close(reset=True)
            self._changed.notify_all()
        return len(cut)

    def close(self) -> None:
        """Close all doors and connections."""
        for door in self._doors:
            door.close()
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def carry(self, inbound: socket.socket, from_port: int, door: Door) -> None:
        """Bring a connection to the daemon behind a door, and bytes both ways until either end closes it."""
        connection = _Connection((self._name_of(from_port), door.name), inbound)
        with self._changed:
            self._connections.add(connection)
        try:
            self._wait_open(connection)
            outbound = socket.create_connection((HOST, door.target_port))
            connection.sockets.append(outbound)
            back = threading.Thread(target=self._pump, args=(connection, outbound, inbound), daemon=True)
            back.start()
            self._pump(connection, inbound, outbound)
            back.join()
        except OSError:
            # Nobody listens behind the door.
            connection.close(reset=True)
        finally:
            connection.close()
            with self._changed:
                self._connections.discard(connection)

    def _pump(self, connection: _Connection, source: socket.socket, target: socket.socket) -> None:
        # A connection that breaks, or that is cut, ends here whichever way the system says so.
        with suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._wait_open(connection)
                target.sendall(data)
            self._wait_open(connection)
        connection.close()
        with self._changed:
            self._changed.notify_all()

    def _wait_open(self, connection: _Connection) -> None:
        """Wait while the two ends are on different sides of a split."""
        ends = frozenset(connection.ends)
        with self._changed:
            self._changed.wait_for(
                lambda: connection.closed or not any(len(ends & island) == 1 for island in self._islands)
            )


class Door:
    """The address of a node, which stays the same when its daemon starts again.

    Attributes:
        name: of the node.
        target_port: where its daemon listens now.
    """

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.target_port = 0
        self._network = network
        self._listener = socket.create_server((HOST, 0))
        threading.Thread(target=self._accept, name=f"door of {name}", daemon=True).start()

    @property
    def address(self) -> str:
        """The multiaddress that the node announces."""
        return f"/ip4/{HOST}/tcp/{self._listener.getsockname()[1]}"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                inbound, (_, from_port) = self._listener.accept()
            except OSError:
                return
            carried = (inbound, from_port, self)
            threading.Thread(target=self._network.carry, args=carried, daemon=True).start()


class _Connection:
    """Two sockets, and the names of the nodes at their far ends."""

    def __init__(self, ends: tuple[str, str], inbound: socket.socket) -> None:
        self.ends = ends
        self.sockets = [inbound]
        self.closed = False

    def close(self, *, reset: bool = False) -> None:
        """Close both, and wake the threads that read from them; the far ends see an end, or a reset."""
        self.closed = True
        for end in self.sockets:
            # Either may be closed at its far end already.
            with suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
            end.close()


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody has now."""
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port

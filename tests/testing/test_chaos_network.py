"""The network that can split: doors in front of servers that echo."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from sedmad.testing.chaos.network import HOST, Door, Network

TIMEOUT_S = 30.0
# Long enough for bytes to arrive where nothing holds them up; too short only lets a broken split pass.
SILENCE_S = 0.3


class Callers:
    """Sockets, each known by the name of the node that it plays."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.sockets: list[socket.socket] = []

    def dial(self, name: str, door: Door) -> socket.socket:
        caller = socket.socket()
        self.sockets.append(caller)
        caller.settimeout(TIMEOUT_S)
        caller.bind((HOST, 0))
        self.names[caller.getsockname()[1]] = name
        caller.connect((HOST, int(door.address.rpartition("/")[2])))
        return caller

    def name_of(self, port: int) -> str:
        return self.names.get(port, "")


@pytest.fixture
def callers() -> Iterator[Callers]:
    callers = Callers()
    yield callers
    for caller in callers.sockets:
        caller.close()


@pytest.fixture
def network(callers: Callers) -> Iterator[Network]:
    with closing(Network(callers.name_of)) as network:
        yield network


@pytest.fixture
def door(network: Network) -> Iterator[Door]:
    """The door of a node called b, which echoes."""

    def echo(stream: socket.socket) -> None:
        with stream, suppress(OSError):
            while data := stream.recv(1 << 16):
                stream.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                stream, _ = server.accept()
                threading.Thread(target=echo, args=(stream,), daemon=True).start()

    with socket.create_server((HOST, 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        door = network.open_door("b")
        door.target_port = server.getsockname()[1]
        yield door
        server.shutdown(socket.SHUT_RDWR)


def received(caller: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += caller.recv(count - len(data)) or pytest.fail("the connection ended")
    return data


def is_silent(caller: socket.socket) -> bool:
    caller.settimeout(SILENCE_S)
    try:
        caller.recv(1)
    except TimeoutError:
        return True
    finally:
        caller.settimeout(TIMEOUT_S)
    return False


def test_bytes_go_both_ways(door: Door, callers: Callers) -> None:
    caller = callers.dial("a", door)
    sent = bytes(range(256)) * 4096
    threading.Thread(target=caller.sendall, args=(sent,), daemon=True).start()
    assert received(caller, len(sent)) == sent


def test_a_split_holds_up_what_crosses_it_and_nothing_else(
    network: Network, door: Door, callers: Callers
) -> None:
    ann, cyd = callers.dial("a", door), callers.dial("c", door)
    for caller in (ann, cyd):
        caller.sendall(b"before")
        assert received(caller, 6) == b"before"
    with network.split(frozenset({"b", "c"})):
        new = callers.dial("a", door)
        for caller in (ann, cyd, new):
            caller.sendall(b"during")
        assert received(cyd, 6) == b"during"
        assert is_silent(ann)
        assert is_silent(new)
    assert received(ann, 6) == b"during"
    assert received(new, 6) == b"during"


def test_a_cut_ends_connections_and_lets_new_ones_come(
    network: Network, door: Door, callers: Callers
) -> None:
    caller = callers.dial("a", door)
    caller.sendall(b"x")
    assert received(caller, 1) == b"x"
    assert network.cut("a") == 1
    with pytest.raises(ConnectionResetError):
        caller.recv(1)
    again = callers.dial("a", door)
    again.sendall(b"y")
    assert received(again, 1) == b"y"


def test_a_connection_can_be_cut_in_a_split(network: Network, door: Door, callers: Callers) -> None:
    caller = callers.dial("a", door)
    caller.sendall(b"x")
    assert received(caller, 1) == b"x"
    with network.split(frozenset({"a"})):
        caller.sendall(b"y")
        assert is_silent(caller)
        network.cut("b")
        with pytest.raises(ConnectionResetError):
            caller.recv(1)


def test_nobody_behind_the_door_is_told_by_a_reset(network: Network, callers: Callers) -> None:
    door = network.open_door("d")
    door.target_port = 1  # reserved, and nobody's
    with suppress(ConnectionResetError):
        assert callers.dial("a", door).recv(1) == b""

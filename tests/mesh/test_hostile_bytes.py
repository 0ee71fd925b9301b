"""What anybody can do to a daemon's port and to its control socket: it serves its mesh and its clients all the same."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from daemons import Daemon
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meshes import MeshOfDaemons, attached
from products import is_right, normal

from sedmad.wire.frame import HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, PREFIX, Frame, encode
from sedmad.wire.messages import FrameHeader, FrameKind

MULTISTREAM, NOISE = b"\x13/multistream/1.0.0\n", b"\x07/noise\n"
GARBAGE = {
    "random bytes": random.Random(1).randbytes(200_000),
    "http": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + bytes(200),
    "half a handshake": MULTISTREAM + NOISE + b"\x00\x20" + bytes(10),
    "a broken handshake": MULTISTREAM + NOISE + b"\x00\x20" + bytes(32) + b"\x01\x00" + bytes(256),
    "a line without end": b"\x80\x80\x80\x80\x08" + b"a" * 1_000_000,
}
SILENT_CONNECTIONS = 200
ANSWER_TIMEOUT_S = 5.0


@pytest.fixture(scope="module")
def assailed(four: MeshOfDaemons) -> Iterator[Daemon]:
    """A daemon that holds part of a matrix, `w`, of which another is the owner."""
    with four["ann"].connect() as client:
        client.put("w", normal(3000, 1024), survive=3)
        yield four["cyd"]
    four.empty()


def assert_serves(daemon: Daemon, mesh: MeshOfDaemons) -> None:
    """A daemon answers its clients and is in touch with every other."""
    assert daemon.runs
    w, x = normal(3000, 1024), normal(1024, seed=1)
    with daemon.connect() as client:
        assert is_right(client["w"] @ x, w, x)
        assert attached(client) == {other.peer_id for other in mesh if other is not daemon}
        assert {peer.name for peer in client.peers()} == {other.name for other in mesh if other is not daemon}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_port_harms_nobody(name: str, assailed: Daemon, four: MeshOfDaemons) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", assailed.port)))
            # The daemon may hang up before all is said.
            with suppress(ConnectionError):
                connection.sendall(GARBAGE[name])
        assert_serves(assailed, four)
    assert_serves(assailed, four)


def test_silent_connections_keep_nobody_out(assailed: Daemon, four: MeshOfDaemons) -> None:
    with ExitStack() as stack:
        for _ in range(SILENT_CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", assailed.port)))
        assert_serves(assailed, four)
    assert_serves(assailed, four)


def speak(daemon: Daemon, data: bytes) -> bytes:
    """Say something on the control socket, and return what comes back until the daemon hangs up, or has no more."""
    answer = b""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_TIMEOUT_S)
        connection.connect(str(daemon.socket))
        with suppress(ConnectionError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                answer += piece
    return answer


def request(method: str, message: bytes = b"", payload: bytes = b"", **fields: int) -> bytes:
    header = FrameHeader(
        kind=FrameKind.FRAME_KIND_REQUEST, call_id=1, method=method, message=message, **fields
    )
    return b"".join(bytes(piece) for piece in encode(Frame(header, payload, end=True)))


STATUS = request("sedma.v1.NodeService/GetStatus")
METHODS = [
    "sedma.v1.MatrixService/PutMatrix",
    "sedma.v1.MatrixService/ApplyMatrix",
    "sedma.v1.MatrixService/GetMatrix",
    "sedma.v1.NodeService/ListPeers",
    "sedma.v1.HoldingService/HoldCopy",
    "sedma.v1.Nonsense/Nothing",
    "",
]


@st.composite
def mutated_requests(draw: st.DrawFn) -> bytes:
    """Well-formed requests with bytes changed, cut or repeated."""
    data = bytearray(
        request(draw(st.sampled_from(METHODS)), draw(st.binary(max_size=200)), draw(st.binary(max_size=200)))
    )
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(1, len(data)))]) + draw(st.sampled_from([b"", STATUS, bytes(data)]))


@st.composite
def any_frames(draw: st.DrawFn) -> bytes:
    """Frames of every kind, with prefixes that may lie."""
    header = FrameHeader(
        kind=draw(st.sampled_from(list(FrameKind.values()))),
        call_id=draw(st.integers(0, 2**64 - 1)),
        sequence=draw(st.integers(0, 2**64 - 1)),
        acknowledged=draw(st.integers(0, 2**64 - 1)),
        method=draw(st.sampled_from(METHODS)),
        message=draw(st.binary(max_size=50)),
        offset=draw(st.integers(0, 2**64 - 1)),
        remaining_ms=draw(st.integers(0, 2**32 - 1)),
        credit_bytes=draw(st.integers(0, 2**64 - 1)),
    ).SerializeToString()
    sizes = st.one_of(st.just(len(header)), st.integers(0, 2**32 - 1))
    prefix = PREFIX.pack(
        draw(st.sampled_from([1, 1, 1, 0, 255])),
        draw(st.integers(0, 3)),
        draw(st.sampled_from([0, 0, 0, 1])),
        draw(sizes),
        draw(st.one_of(st.just(0), st.integers(0, 2**64 - 1))),
    )
    return prefix + header + draw(st.binary(max_size=200))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=300), mutated_requests(), st.lists(any_frames(), max_size=3).map(b"".join)
    )
)
def test_whatever_is_said_on_the_control_socket_the_next_client_is_served(
    data: bytes, assailed: Daemon
) -> None:
    with suppress(TimeoutError):
        speak(assailed, data)
    with assailed.connect() as client:
        assert client.status().name == assailed.name


@pytest.mark.parametrize(
    "prefix",
    [
        PREFIX.pack(1, 0, 0, HEADER_BYTES_MAX + 1, 0),
        PREFIX.pack(1, 0, 0, 0xFFFFFFFF, 0),
        PREFIX.pack(1, 0, 0, 10, PAYLOAD_BYTES_MAX + 1),
        PREFIX.pack(1, 0, 0, 10, 2**63),
        struct.pack("<QQ", 2**64 - 1, 2**64 - 1),
    ],
    ids=["header", "largest header", "payload", "largest payload", "all ones"],
)
def test_an_oversize_frame_ends_its_connection_only(
    prefix: bytes, assailed: Daemon, four: MeshOfDaemons
) -> None:
    with assailed.connect() as client:
        matrix = client["w"]
        assert speak(assailed, prefix + bytes(1 << 16)) == b""
        w, x = normal(3000, 1024), normal(1024, seed=1)
        assert is_right(matrix @ x, w, x)
    assert_serves(assailed, four)


def test_clients_that_hang_up_in_the_middle_leave_nothing_behind(
    assailed: Daemon, four: MeshOfDaemons
) -> None:
    from sedmad.wire.messages import ApplyMatrixRequest, DataType, PutMatrixRequest

    put = PutMatrixRequest(
        name="never", rows=5000, columns=1024, data_type=DataType.DATA_TYPE_FLOAT32, survive=1
    )
    apply = ApplyMatrixRequest(name="w", columns=1)
    before = [daemon.json("status")["memory"]["used_bytes"] for daemon in four]
    for method, message in (("PutMatrix", put), ("ApplyMatrix", apply)):
        data = request(f"sedma.v1.MatrixService/{method}", message.SerializeToString(), bytes(2048))
        for _ in range(20):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(assailed.socket))
                connection.sendall(data)
    with assailed.connect() as client:
        assert "never" not in client
    assert_serves(assailed, four)
    assert [daemon.json("status")["memory"]["used_bytes"] for daemon in four] == before


def test_many_clients_at_once_are_served(assailed: Daemon) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(assailed.connect()) for _ in range(100)]
        assert all(client.status().name == assailed.name for client in clients)

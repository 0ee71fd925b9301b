"""Who is served on the port of a daemon: members, whatever their clocks say, and nobody else."""

from __future__ import annotations

import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from daemons import wait_until
from meshes import MeshOfDaemons, attached
from products import is_right, normal

from sedmad.errors import CertificateInvalid, NodeUnreachable, SedmadError, TokenInvalid
from sedmad.net.credentials import Credentials
from sedmad.net.hello import SESSION_PROTOCOL, receive_hello, send_hello
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity
from sedmad.net.join import request_join
from sedmad.net.stream import ByteStream
from sedmad.node.clock import wall_time_s
from sedmad.wire.frame import Frame, encode
from sedmad.wire.messages import (
    CertificateChain,
    FrameHeader,
    FrameKind,
    InvitationToken,
    ReserveCopiesRequest,
    SessionHello,
)

TIMEOUT_S = 10.0
HOUR_S = 3600
# The daemon as it is, on a machine whose clock is an hour ahead.
AN_HOUR_AHEAD = f"""
import sys
import sedmad.node.clock as clock
right_time_s = clock.wall_time_s
clock.wall_time_s = lambda: right_time_s() + {HOUR_S}
from sedmad.cli.main import main
sys.exit(main())
"""


class Stranger:
    """A node of a mesh of its own."""

    def __init__(self) -> None:
        self.identity = Identity.make()
        self.credentials = Credentials.found_mesh(self.identity, "mallory", now_s=int(wall_time_s()))

    def chain_for(self, mesh: MeshOfDaemons, how: str) -> CertificateChain:
        """Return what the stranger shows."""
        if how == "nothing":
            return CertificateChain()
        if how == "its own":
            return self.credentials.chain
        # A member's certificate travels through the mesh: it is no secret, and of no use without the member's key.
        return Credentials.load(mesh["ben"].home / "certificates").chain

    @asynccontextmanager
    async def stream(self, mesh: MeshOfDaemons) -> AsyncIterator[tuple[PeerHost, ByteStream]]:
        ann = mesh["ann"]
        async with open_host(self.identity, []) as host:
            await host.connect(ann.peer_id, ann.addresses, TIMEOUT_S)
            yield host, await host.open_stream(ann.peer_id, SESSION_PROTOCOL, TIMEOUT_S)


@pytest.fixture
def stranger() -> Stranger:
    return Stranger()


def assert_untouched(mesh: MeshOfDaemons, stranger: Stranger) -> None:
    """Nobody took the stranger for a member, and nothing of its is kept."""
    for daemon in mesh:
        with daemon.connect() as client:
            assert stranger.identity.peer_id not in {peer.peer_id for peer in client.peers()}
            status = client.status()
            assert attached(client) == {other.peer_id for other in mesh if other is not daemon}
        assert (status.memory_used_bytes, status.disk_used_bytes, daemon.blob_bytes()) == (0, 0, 0)


@pytest.mark.parametrize("shown", ["nothing", "its own", "a member's"])
async def test_a_stranger_is_refused(shown: str, mesh: MeshOfDaemons, stranger: Stranger) -> None:
    hello = SessionHello(
        session_id=secrets.randbits(63),
        chain=stranger.chain_for(mesh, shown),
        wall_time_s=wall_time_s(),
        software_version="0.1.0",
    )
    async with stranger.stream(mesh) as (_, stream):
        await send_hello(stream, hello)
        with pytest.raises(CertificateInvalid), trio.fail_after(TIMEOUT_S):
            await receive_hello(stream)
    assert_untouched(mesh, stranger)


async def test_requests_of_a_stranger_are_never_answered(mesh: MeshOfDaemons, stranger: Stranger) -> None:
    reserve = ReserveCopiesRequest(
        put_id=bytes(16), resident_bytes=1 << 20, disk_bytes=1 << 20, rows=256, columns=1024, data_type=1
    )
    header = FrameHeader(
        kind=FrameKind.FRAME_KIND_REQUEST,
        call_id=1,
        sequence=1,
        method="sedma.v1.HoldingService/ReserveCopies",
        message=reserve.SerializeToString(),
    )
    hello = SessionHello(session_id=secrets.randbits(63), chain=stranger.credentials.chain)
    async with stranger.stream(mesh) as (_, stream):
        answer = b""
        try:
            await send_hello(stream, hello)
            for _ in range(100):
                await stream.send_all(encode(Frame(header, end=True)))
            with trio.fail_after(TIMEOUT_S):
                while piece := await stream.receive_some(65536):
                    answer += piece
        except (SedmadError, NodeUnreachable):
            pass
        assert b"ReserveCopies" not in answer
    assert_untouched(mesh, stranger)


async def test_a_stranger_with_a_token_of_its_own_making_is_not_admitted(
    mesh: MeshOfDaemons, stranger: Stranger
) -> None:
    ann = mesh["ann"]
    root_public_key = Credentials.load(ann.home / "certificates").root_public_key
    token = InvitationToken(
        root_public_key=root_public_key,
        inviter_peer_id=ann.peer_id,
        addresses=ann.addresses,
        secret=secrets.token_bytes(32),
        expires_s=int(wall_time_s()) + HOUR_S,
    )
    async with open_host(stranger.identity, []) as host:
        with pytest.raises(TokenInvalid):
            await request_join(host, token, "mallory", now_s=wall_time_s(), timeout_s=TIMEOUT_S)
    assert_untouched(mesh, stranger)


def test_a_node_of_another_mesh_that_dials_this_one_stays_alone(
    mesh: MeshOfDaemons, make_mesh: Callable[..., MeshOfDaemons]
) -> None:
    other = make_mesh("eve", "fay")
    # They were told that a node of this mesh is their founder.
    other.founder.peer_id, other.founder.addresses = mesh["ann"].peer_id, mesh["ann"].addresses
    other.introduce(other["fay"])
    fay = other["fay"].start()
    with fay.connect() as client, mesh["ann"].connect() as ann:
        wait_until(
            lambda: any(event["event"] == "certificate_refused" for event in fay.events()),
            "the stranger to be refused",
        )
        assert not client.peers()
        assert {peer.name for peer in ann.peers()} == {"ben", "cyd", "dan"}
    fay.stop()


def test_a_clock_an_hour_off_works_and_warns(make_mesh: Callable[..., MeshOfDaemons]) -> None:
    mesh = make_mesh("ann", "ben", "cyd")
    mesh["cyd"].command = (sys.executable, "-c", AN_HOUR_AHEAD)
    mesh.start()
    w, x = normal(3000, 1024), normal(1024, seed=1)
    with mesh["ann"].connect() as ann, mesh["cyd"].connect() as cyd:
        wait_until(lambda: any("clock of cyd" in text for text in ann.status().warnings), "ann's warning")
        wait_until(lambda: len(cyd.status().warnings) == 2, "cyd's warnings")
        (warning,) = [text for text in ann.status().warnings if "cyd" in text]
        assert "ahead" in warning
        assert all("behind" in text for text in cyd.status().warnings)
        assert any(event["event"] == "clock_skewed" for event in mesh["ann"].events())

        cyd.put("w", w, survive=2)
        wait_until(lambda: "w" in ann, "the name to arrive")
        assert is_right(ann["w"] @ x, w, x)
        # Versions are told apart by counting, not by the clock: the node that is behind may replace.
        newer = normal(3000, 1024, seed=2)
        replaced = ann.put("w", newer, survive=2, replace=True)
        wait_until(lambda: cyd["w"].version == replaced.version, "the new version to arrive")
        assert is_right(cyd["w"] @ x, newer, x)
        cyd.remove("w")
        wait_until(lambda: "w" not in ann, "the name to go")

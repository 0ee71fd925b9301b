"""Joining: a stranger with an invitation becomes a member; without one it learns why not, and costs little."""

from __future__ import annotations

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sedmad.errors import (
    CertificateInvalid,
    LocalError,
    NodeUnreachable,
    Overloaded,
    ProtocolViolation,
    TokenExpired,
    TokenUsed,
)
from sedmad.net import join
from sedmad.net.credentials import Credentials
from sedmad.net.host import PeerHost, open_host
from sedmad.net.identity import Identity, public_key_of
from sedmad.net.join import JOIN_METHOD, JOIN_PROTOCOL, request_join, serve_join
from sedmad.wire.frame import STRANGER_HEADER_BYTES_MAX, Frame, FrameDecoder, encode
from sedmad.wire.messages import (
    FrameHeader,
    FrameKind,
    InvitationToken,
    JoinRequest,
    JoinResponse,
    PeerAddresses,
)

NOW_S = 1_800_000_000
LOOPBACK = ["/ip4/127.0.0.1/tcp/0"]
ADMIN = Identity.from_seed(bytes(32))
MESH = Credentials.found_mesh(ADMIN, "first", now_s=NOW_S)
SECRET = bytes(range(32))


def token_for(host: PeerHost, **changes: object) -> InvitationToken:
    token = InvitationToken(
        root_public_key=MESH.root_public_key,
        inviter_peer_id=host.peer_id,
        addresses=host.listen_addresses,
        secret=SECRET,
        expires_s=NOW_S + 3600,
    )
    for name, value in changes.items():
        setattr(token, name, value)
    return token


async def admit(request: JoinRequest, peer_id: str) -> JoinResponse:
    assert request.secret == SECRET
    chain = MESH.admit(ADMIN, public_key_of(peer_id), request.name, now_s=NOW_S)
    return JoinResponse(
        chain=chain, peers=[PeerAddresses(peer_id=peer_id, addresses=["/ip4/10.0.0.1/tcp/1"])]
    )


async def ask(host: PeerHost, answering: object = admit, **changes: object) -> JoinResponse:
    """Join through `host`, which answers as `answering` does."""
    serve_join(host, answering)
    async with open_host(Identity.make(), []) as newcomer:
        return await request_join(newcomer, token_for(host, **changes), "second", now_s=NOW_S, timeout_s=5)


async def test_a_newcomer_with_an_invitation_becomes_a_member() -> None:
    async with open_host(ADMIN, LOOPBACK) as host, open_host(Identity.make(), []) as newcomer:
        serve_join(host, admit)
        response = await request_join(newcomer, token_for(host), "second", now_s=NOW_S)
        assert MESH.verify(newcomer.peer_id, response.chain, NOW_S).name == "second"
        assert response.peers[0].addresses == ["/ip4/10.0.0.1/tcp/1"]


async def test_a_refusal_reaches_the_newcomer_as_it_was_raised() -> None:
    async def used(request: JoinRequest, peer_id: str) -> JoinResponse:
        raise TokenUsed("the token was used", why="x" * 10_000)

    async def fail(request: JoinRequest, peer_id: str) -> JoinResponse:
        raise KeyError("secret")

    async with open_host(ADMIN, LOOPBACK) as host:
        with pytest.raises(TokenUsed):
            await ask(host, used)
        with pytest.raises(LocalError) as caught:
            await ask(host, fail)
        assert "secret" not in str(caught.value)
        assert await ask(host)


async def test_an_answer_that_makes_nobody_a_member_is_not_believed() -> None:
    async def another(request: JoinRequest, peer_id: str) -> JoinResponse:
        chain = MESH.admit(ADMIN, Identity.make().public_key, request.name, now_s=NOW_S)
        return JoinResponse(chain=chain)

    async with open_host(ADMIN, LOOPBACK) as host:
        with pytest.raises(CertificateInvalid, match="another node"):
            await ask(host, another)
        with pytest.raises(CertificateInvalid, match="another mesh"):
            await ask(host, root_public_key=bytes(32))


async def test_an_expired_token_or_an_absent_inviter_is_told() -> None:
    async with open_host(ADMIN, LOOPBACK) as host:
        with pytest.raises(TokenExpired):
            await ask(host, expires_s=NOW_S - 3 * 3600)
        with pytest.raises(NodeUnreachable):
            await ask(host, inviter_peer_id=Identity.make().peer_id)


async def test_an_answer_fits_into_one_small_frame() -> None:
    async def generous(request: JoinRequest, peer_id: str) -> JoinResponse:
        response = await admit(request, peer_id)
        response.peers.extend([response.peers[0]] * 500)
        return response

    async with open_host(ADMIN, LOOPBACK) as host:
        assert 10 < len((await ask(host, generous)).peers) < 500


async def test_too_many_requests_are_refused_without_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(join, "JOINS_BURST", 2)
    monkeypatch.setattr(join, "JOINS_PER_S", 0.001)
    asked = []

    async def count(request: JoinRequest, peer_id: str) -> JoinResponse:
        asked.append(peer_id)
        return await admit(request, peer_id)

    async with open_host(ADMIN, LOOPBACK) as host, open_host(Identity.make(), []) as newcomer:
        serve_join(host, count)
        for _ in range(2):
            await request_join(newcomer, token_for(host), "second", now_s=NOW_S)
        with pytest.raises(Overloaded):
            await request_join(newcomer, token_for(host), "second", now_s=NOW_S)
        assert len(asked) == 2


async def test_an_inviter_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(request: JoinRequest, peer_id: str) -> JoinResponse:
        await trio.sleep_forever()
        raise AssertionError

    async with open_host(ADMIN, LOOPBACK) as host, open_host(Identity.make(), []) as newcomer:
        serve_join(host, never)
        with pytest.raises(NodeUnreachable, match="no answer"):
            await request_join(newcomer, token_for(host), "second", now_s=NOW_S, timeout_s=0.3)
        monkeypatch.setattr(join, "JOIN_TIMEOUT_S", 0.1)
        with pytest.raises(ProtocolViolation, match="early"):
            await ask(host, never)


def request_frame(**changes: object) -> bytes:
    header = FrameHeader(
        kind=FrameKind.FRAME_KIND_REQUEST,
        call_id=1,
        method=JOIN_METHOD,
        message=JoinRequest(secret=SECRET, name="x").SerializeToString(),
    )
    for name, value in changes.items():
        setattr(header, name, value)
    return b"".join(map(bytes, encode(Frame(header))))


WRONG = [
    b"GET / HTTP/1.1\r\n\r\n",
    request_frame(kind=FrameKind.FRAME_KIND_MESSAGE),
    request_frame() * 2,
    request_frame() + b"\x01",
    request_frame(message=bytes(STRANGER_HEADER_BYTES_MAX)),
    b"".join(map(bytes, encode(Frame(FrameHeader(kind=FrameKind.FRAME_KIND_REQUEST), b"payload")))),
]


@given(said=st.sampled_from(WRONG) | st.binary(max_size=200))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_stranger_that_sends_anything_else_is_not_answered(said: bytes) -> None:
    async def unexpected(request: JoinRequest, peer_id: str) -> JoinResponse:
        raise AssertionError(request)

    async with open_host(ADMIN, LOOPBACK) as host, open_host(Identity.make(), []) as stranger:
        serve_join(host, unexpected)
        await stranger.connect(host.peer_id, host.listen_addresses, timeout_s=5)
        stream = await stranger.open_stream(host.peer_id, JOIN_PROTOCOL, timeout_s=5)
        await stream.send_all(said)
        stream._stream.end()
        with pytest.raises(NodeUnreachable):
            await stream.receive_some()


@pytest.mark.parametrize("changes", [{"method": "sedma.v1.MatrixService/PutMatrix"}, {"message": b"\xff"}])
async def test_a_stranger_that_asks_for_anything_else_is_told_no(changes: dict[str, object]) -> None:
    async with open_host(ADMIN, LOOPBACK) as host, open_host(Identity.make(), []) as stranger:
        serve_join(host, admit)
        await stranger.connect(host.peer_id, host.listen_addresses, timeout_s=5)
        stream = await stranger.open_stream(host.peer_id, JOIN_PROTOCOL, timeout_s=5)
        await stream.send_all(request_frame(**changes))
        decoder, frames = FrameDecoder(STRANGER_HEADER_BYTES_MAX, 0), []
        while not frames:
            frames = decoder.receive_data(await stream.receive_some())
        assert frames[0].header.status.reason == "PROTOCOL_VIOLATION"

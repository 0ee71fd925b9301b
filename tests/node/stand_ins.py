"""What services see of membership, sessions and calls, in memory and as a test wants it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import trio

from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.directory import Directory
from sedmad.core.membership.membership import PeerRow
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import NodeUnreachable, SessionLost
from sedmad.net.calls import Chunk
from sedmad.net.channel import Channel
from sedmad.net.identity import Identity
from sedmad.node.records import sign_record


class FakeMembership:
    """What services use of MembershipService; news reaches everybody at once."""

    def __init__(self, identity: Identity, name: str, pledge_bytes: int) -> None:
        self._identity = identity
        self._others: dict[str, FakeMembership] = {}
        self.states: dict[str, str] = {}
        self.on_claim: Callable[[str], None] = lambda name: None
        self.core = SimpleNamespace(
            peer_id=identity.peer_id,
            directory=Directory(),
            advert=Advert(
                peer_id=identity.peer_id,
                name=name,
                sequence=1,
                state="ready",
                memory_pledged_bytes=pledge_bytes,
                disk_pledged_bytes=2 * pledge_bytes,
                compute_gflops=10.0,
                memory_bandwidth_bytes_per_s=1e10,
            ),
        )

    def meet(self, other: FakeMembership) -> None:
        self._others[other.core.peer_id] = other

    def peers(self) -> list[PeerRow]:
        return [row for peer_id in self._others if (row := self.row(peer_id)) is not None]

    def row(self, peer_id: str) -> PeerRow | None:
        other = self._others.get(peer_id)
        return PeerRow(peer_id, other.core.advert, self.state_of(peer_id), 0.001) if other else None

    def name_of(self, peer_id: str) -> str:
        if peer_id == self.core.peer_id:
            return str(self.core.advert.name)
        other = self._others.get(peer_id)
        return str(other.core.advert.name) if other else peer_id

    def state_of(self, peer_id: str) -> str:
        return self.states.get(peer_id, "alive")

    def update_advert(self, **changes: Any) -> None:
        self.core.advert = replace(self.core.advert, **changes)

    def publish_claim(self, claim: Claim) -> None:
        signed = SignedRecord(claim, sign_record(claim, self._identity))
        for membership in (self, *self._others.values()):
            membership.hear(self.core.peer_id, signed)

    def hear(self, peer_id: str, signed: SignedRecord) -> None:
        if isinstance(signed.record, Claim) and self.core.directory.accept(signed) is not None:
            self.on_claim(signed.record.name)


@dataclass(slots=True)
class _Session:
    channel: Channel
    path: str = "direct"


class FakeSessions:
    """Sessions in memory.

    Attributes:
        before: by the last word of a method, awaited with the peer id before each such call leaves.
        calls: (peer id, last word of the method) of every call that left.
    """

    def __init__(self) -> None:
        self._sessions: dict[str, _Session] = {}
        self.before: dict[str, Callable[[str], Awaitable[None]]] = {}
        self.calls: list[tuple[str, str]] = []

    def attach(self, peer_id: str, channel: Channel) -> None:
        self._sessions[peer_id] = _Session(channel)

    def detach(self, peer_id: str) -> None:
        if session := self._sessions.pop(peer_id, None):
            session.channel.close(SessionLost("the session ended", node=peer_id))

    def attached(self, peer_id: str) -> _Session | None:
        return self._sessions.get(peer_id)

    def channel(self, peer_id: str) -> Channel:
        session = self.attached(peer_id)
        if session is None:
            raise NodeUnreachable("the node is not connected", node=peer_id)
        return session.channel

    async def reach(self, peer_id: str, *, deadline: float) -> Channel:
        await trio.lowlevel.checkpoint()
        return self.channel(peer_id)

    async def call(self, peer_id: str, method: str, message: Any, **options: Any) -> bytes:
        verb = method.rpartition("/")[2]
        if before := self.before.get(verb):
            await before(peer_id)
        self.calls.append((peer_id, verb))
        return await self.channel(peer_id).call(method, message, **options)


class ClientCall:
    """A client's call that streams bytes, in chunks; it may stop in the middle and wait."""

    remote = ""
    deadline = math.inf

    def __init__(self, data: bytes, chunk_bytes: int = 1 << 20, pause_after: int | None = None) -> None:
        self._data = data
        self._chunk_bytes = chunk_bytes
        self._pause_after = pause_after
        self._offset = 0
        self.sent: list[Any] = []
        self.asked = False
        self.paused = trio.Event()
        self.go_on = trio.Event()

    async def send(self, message: Any = None, payload: bytes = b"", **options: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    def chunks(self) -> ClientCall:
        return self

    def __aiter__(self) -> ClientCall:
        return self

    async def __anext__(self) -> Chunk:
        self.asked = True
        offset = self._offset
        if offset >= len(self._data):
            raise StopAsyncIteration
        if self._pause_after is not None and offset >= self._pause_after:
            self.paused.set()
            await self.go_on.wait()
        await trio.lowlevel.checkpoint()
        payload = self._data[offset : offset + self._chunk_bytes]
        self._offset += len(payload)
        return Chunk(offset, payload)


@dataclass(slots=True)
class PeerCall:
    """A member's call, as far as handlers look at it."""

    remote: str
    deadline: float = math.inf
    payload: bytes = b""
    sent: list[bytes] = field(default_factory=list)

    async def send(self, message: Any = None, payload: bytes = b"", **options: Any) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(bytes(payload))

    async def read_into(self, view: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        view[:] = self.payload

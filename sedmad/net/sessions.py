"""All sessions of a node: whom it dials, whom it lets in, and who is connected now.

`keep` asks for a session with a peer; it is dialled again, with jittered back-off, for as long as it is kept.
Either side may dial; when both do at once, the stream that the lower peer id opened stays.

What a hello says is true when it is written. So between writing it and attaching on the answer nothing else
may attach: the lower peer id refuses the other's stream meanwhile, the higher gives up its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio
from google.protobuf.message import Message

from sedmad.errors import (
    CertificateInvalid,
    FrameInvalid,
    NodeUnreachable,
    Overloaded,
    ProtocolViolation,
    SedmadError,
)
from sedmad.net.certificates import VerifiedCertificate
from sedmad.net.channel import Channel
from sedmad.net.dialling import Dialler
from sedmad.net.hello import SESSION_PROTOCOL, receive_hello, refuse, send_hello
from sedmad.net.host import PeerHost
from sedmad.net.kept_peer import KeptPeer
from sedmad.net.rate_limit import RateLimit
from sedmad.net.session import RESET_S, Session
from sedmad.net.stream import ByteStream
from sedmad.wire.frame import Buffer
from sedmad.wire.messages import CertificateChain, SessionHello
from sedmad.wire.methods import MethodTable

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.net")

# A full mesh is 32 nodes; members that come in beyond that are refused long before memory matters (60 kB each).
SESSIONS_MAX = 512
# A session without a stream is remembered this long: a Wi-Fi change or a rebooted router takes less.
RESUME_S = 30.0
DIAL_TIMEOUT_S = 10.0
ALIVE_S = 2.0  # peers probe each other once a second
# While a stream of our own is this young, the other side's was opened at the same time.
SIMULTANEOUS_S = 3.0


class Sessions:
    """Sessions with every peer.

    Args:
        host: dials and accepts streams.
        chain: this node's certificates, shown in every hello.
        verify: checks a peer's chain against its authenticated id; raises CertificateInvalid.
        methods: what peers may ask here.
        rng: session ids and jitter.
        wall_time: Unix seconds.
        software_version: told in hellos.
        on_link: called with (peer id, whether a stream carries its session now).
        on_message: called with (peer id, method, message) for one-way messages.
        on_clock: called with (peer id, its wall clock minus ours in seconds).
    """

    def __init__(
        self,
        host: PeerHost,
        *,
        chain: CertificateChain,
        verify: Callable[[CertificateChain, str], VerifiedCertificate],
        methods: MethodTable,
        rng: random.Random,
        wall_time: Callable[[], float],
        software_version: str,
        on_link: Callable[[str, bool], None],
        on_message: Callable[[str, str, bytes], None],
        on_clock: Callable[[str, float], None],
    ) -> None:
        self._host = host
        self._chain = chain
        self._verify = verify
        self._methods = methods
        self._rng = rng
        self._wall_time = wall_time
        self._software_version = software_version
        self._on_link = on_link
        self._on_message = on_message
        self._on_clock = on_clock
        self._sessions: dict[str, Session] = {}
        self._kept: dict[str, KeptPeer] = {}
        # Around streams opened here whose hello has no answer yet.
        self._opening: dict[str, trio.CancelScope] = {}
        self._nursery: trio.Nursery | None = None
        self._dialler = Dialler(host.peer_id, self._open, self._sessions.get, rng)
        self._refusals = RateLimit(rate_per_s=1 / 60, burst=5)
        # Kept peers that are dialled and not waited for, until they are back.
        self._dead: set[str] = set()
        # Whoever waits for a session looks again: one has a stream, or will have none.
        self._waiting = trio.lowlevel.ParkingLot()

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept, dial and keep sessions until cancelled; every call ends with it."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self._host.serve(SESSION_PROTOCOL, self._accept)
                task_status.started()
                while True:
                    await trio.sleep(1.0)
                    self._forget_detached(trio.current_time())
        finally:
            self._nursery = None
            for session in list(self._sessions.values()):
                self._end(session)
            self._waiting.unpark_all()

    def keep(self, peer_id: str, addresses: tuple[str, ...]) -> None:
        """Want a session with a peer at these addresses from now on."""
        kept = self._kept.get(peer_id)
        if kept is not None:
            if addresses and kept.addresses != addresses:
                kept.move(addresses)
            return
        if peer_id == self._host.peer_id or len(self._kept) >= SESSIONS_MAX or self._nursery is None:
            return
        kept = self._kept[peer_id] = KeptPeer(addresses, self._new_session_id())
        self._nursery.start_soon(self._dialler.keep_connected, peer_id, kept)

    def release(self, peer_id: str) -> None:
        """Dial a peer no longer; a session that it opened itself goes on."""
        if kept := self._kept.pop(peer_id, None):
            kept.scope.cancel()
        self._dead.discard(peer_id)
        self._waiting.unpark_all()

    def hold_for_dead(self, peer_id: str) -> None:
        """End the session with a peer: calls fail at once, from both sides, until it comes back; it is dialled on.

        Where it is heard this very moment it lives, whatever others say, and nothing happens.
        """
        session = self._sessions.get(peer_id)
        if session and session.is_attached and trio.current_time() - session.heard_at < ALIVE_S:
            return
        if peer_id in self._kept:
            self._dead.add(peer_id)
        if session:
            self._end(session)
        self._waiting.unpark_all()

    def attached(self, peer_id: str) -> Session | None:
        """Return the session with a peer if a stream carries it now."""
        session = self._sessions.get(peer_id)
        return session if session and session.is_attached else None

    def certificate(self, peer_id: str) -> VerifiedCertificate | None:
        """Return what a peer showed last, while its session is remembered."""
        session = self._sessions.get(peer_id)
        return session.certificate if session else None

    def send_message(self, peer_id: str, method: str, message: bytes) -> None:
        """Send a one-way message if the peer is connected; it is lost otherwise."""
        if session := self.attached(peer_id):
            session.channel.send_message(method, message)

    async def reach(self, peer_id: str, *, deadline: float) -> Channel:
        """Return the channel to a peer. Where no stream carries its session now, wait for the next one.

        Args:
            deadline: trio's clock.

        Raises:
            NodeUnreachable: it is held for dead, nobody dials it, or it was not back in time.
        """
        if session := self.attached(peer_id):
            return session.channel
        with trio.CancelScope(deadline=deadline):
            while (session := self.attached(peer_id)) is None:
                if peer_id in self._dead:
                    raise NodeUnreachable("the node is held for dead", node=peer_id)
                if self._nursery is None or not (peer_id in self._kept or peer_id in self._sessions):
                    raise NodeUnreachable("the node is not connected", node=peer_id)
                await self._waiting.park()
            return session.channel
        raise NodeUnreachable("the node did not come back in time", node=peer_id)

    async def call(
        self,
        peer_id: str,
        method: str,
        message: Message,
        *,
        deadline: float,
        payload: Buffer = b"",
        into: memoryview | None = None,
    ) -> bytes:
        """Ask a peer, when it is connected; see `reach` and Channel.call."""
        channel = await self.reach(peer_id, deadline=deadline)
        return await channel.call(method, message, deadline=deadline, payload=payload, into=into)

    async def _open(self, peer_id: str, kept: KeptPeer) -> None:
        await self._host.connect(peer_id, list(kept.addresses), timeout_s=DIAL_TIMEOUT_S)
        stream = await self._host.open_stream(peer_id, SESSION_PROTOCOL, timeout_s=DIAL_TIMEOUT_S)
        try:
            hello = await self._greet(stream, peer_id, kept)
            if hello is None:
                return
            # From here to the end of attaching nothing is awaited.
            certificate = self._verify(hello.chain, peer_id)
            session = self._sessions.get(peer_id)
            if session is None:
                session = self._new_session(peer_id, kept.session_id, certificate)
            await self._carry(session, stream, hello, certificate, opened_here=True)
        finally:
            with trio.CancelScope(deadline=trio.current_time() + RESET_S, shield=True):
                await stream.reset()

    async def _greet(self, stream: ByteStream, peer_id: str, kept: KeptPeer) -> SessionHello | None:
        """Exchange hellos on a stream opened here. None: another stream has made this one superfluous."""
        if self.attached(peer_id):
            return None
        session = self._sessions.get(peer_id)
        told = self._hello(session, kept.session_id)
        hello = None
        opening = self._opening[peer_id] = trio.CancelScope()
        try:
            with opening:
                await send_hello(stream, told)
                hello = await receive_hello(stream)
        finally:
            if self._opening.get(peer_id) is opening:
                del self._opening[peer_id]
        if opening.cancel_called or self._sessions.get(peer_id) is not session:
            return None
        return hello

    async def _accept(self, stream: ByteStream, peer_id: str, remote_address: str) -> None:
        try:
            hello = await receive_hello(stream)
            certificate = self._verify(hello.chain, peer_id)
        except SedmadError as error:
            # A stream that broke says nothing of who opened it: members' do when both dial at once.
            if not isinstance(error, NodeUnreachable) and self._refusals.allow(trio.current_time()):
                log.warning("stranger_refused", peer=peer_id, address=remote_address, why=str(error))
            if isinstance(error, CertificateInvalid):
                await refuse(stream, error)
                return
            raise
        # From here to the end of attaching nothing is awaited but refusals.
        try:
            self._check_wanted(peer_id)
            session = self._sessions.get(peer_id) or self._new_session(
                peer_id, self._id_for(peer_id), certificate
            )
        except Overloaded as error:
            await refuse(stream, error)
            return
        if opening := self._opening.pop(peer_id, None):
            opening.cancel()
        await self._carry(session, stream, hello, certificate, opened_here=False)

    def _check_wanted(self, peer_id: str) -> None:
        """Refuse a peer's stream where one stands against it that is being opened, or was just opened, here."""
        session = self.attached(peer_id)
        own = peer_id in self._opening or (
            session is not None
            and session.opened_here
            and trio.current_time() - session.carried_since < SIMULTANEOUS_S
        )
        if own and not self._dialler.yields_to(peer_id):
            raise Overloaded("a stream was opened from here at the same time")

    async def _carry(
        self,
        session: Session,
        stream: ByteStream,
        hello: SessionHello,
        certificate: VerifiedCertificate,
        *,
        opened_here: bool,
    ) -> None:
        session.certificate = certificate
        self._on_clock(session.peer_id, hello.wall_time_s - self._wall_time())
        answer = None if opened_here else partial(self._hello, session, 0)
        try:
            await session.carry(stream, hello, opened_here=opened_here, answer=answer)
        except (FrameInvalid, ProtocolViolation) as error:
            # Nobody knows what else a peer got wrong that broke the rules once: nothing of it is kept.
            log.warning("session_ended", peer=session.peer_id, why=str(error))
            self._end(session)
            raise

    def _hello(self, session: Session | None, session_id: int) -> SessionHello:
        """Return what this side says now; `session_id` is for a session that there is not yet."""
        return SessionHello(
            chain=self._chain,
            session_id=session.window.session_id if session else session_id,
            peer_session_id=session.window.peer_session_id if session else 0,
            received_sequence=session.window.received_sequence if session else 0,
            wall_time_s=self._wall_time(),
            software_version=self._software_version,
        )

    def _id_for(self, peer_id: str) -> int:
        kept = self._kept.get(peer_id)
        return kept.session_id if kept else self._new_session_id()

    def _new_session_id(self) -> int:
        return self._rng.randrange(1, 1 << 64)

    def _new_session(self, peer_id: str, session_id: int, certificate: VerifiedCertificate) -> Session:
        if len(self._sessions) >= SESSIONS_MAX:
            raise Overloaded("this node has too many sessions", why=f"at most {SESSIONS_MAX}")
        if self._nursery is None:
            raise NodeUnreachable("this node is stopping")
        channel = Channel(
            self._methods, peer_id, certificate.name or peer_id, partial(self._on_message, peer_id)
        )
        session = Session(peer_id, channel, session_id, partial(self._link_changed, peer_id))
        self._sessions[peer_id] = session
        self._nursery.start_soon(session.serve)
        return session

    def _link_changed(self, peer_id: str, is_up: bool) -> None:
        if is_up:
            self._dead.discard(peer_id)
        self._waiting.unpark_all()
        self._on_link(peer_id, is_up)

    def _end(self, session: Session) -> None:
        session.close()
        self._waiting.unpark_all()
        if self._sessions.get(session.peer_id) is session:
            del self._sessions[session.peer_id]
            # The next session is another one: what is under way for this one must not find it.
            if kept := self._kept.get(session.peer_id):
                kept.session_id = self._new_session_id()

    def _forget_detached(self, now: float) -> None:
        for session in list(self._sessions.values()):
            if session.detached_at is not None and now - session.detached_at > RESUME_S:
                self._end(session)

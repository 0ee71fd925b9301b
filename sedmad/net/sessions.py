"""All sessions of a node: whom it dials, whom it lets in, and who is connected now.

`keep` asks for a session with a peer; it is dialled again, with jittered back-off, for as long as it is kept. Either side
may dial; when both do at once, the stream that the lower peer id opened stays.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio
from google.protobuf.message import Message

from sedmad.errors import CertificateInvalid, NodeUnreachable, Overloaded, SedmadError
from sedmad.net.certificates import VerifiedCertificate
from sedmad.net.channel import Channel
from sedmad.net.hello import SESSION_PROTOCOL, receive_hello, refuse, send_hello, stranger_decoder, trust
from sedmad.net.host import PeerHost
from sedmad.net.rate_limit import RateLimit
from sedmad.net.session import Session
from sedmad.net.stream import ByteStream
from sedmad.wire.frame import Buffer, FrameDecoder
from sedmad.wire.messages import CertificateChain, SessionHello
from sedmad.wire.methods import MethodTable

log = structlog.get_logger("sedmad.net")

# A full mesh is 32 nodes; members that come in beyond that are refused long before memory matters (60 kB each).
SESSIONS_MAX = 512
# A session without a stream is remembered this long: a Wi-Fi change or a rebooted router takes less.
RESUME_S = 30.0
DIAL_TIMEOUT_S = 10.0
BACKOFF_S_MIN = 0.25
BACKOFF_S_MAX = 15.0
# The higher peer id leaves the first word to the lower one, and speaks up if nothing came.
YIELD_S = 0.5
# While a stream of our own is this young, the other side's was opened at the same time.
SIMULTANEOUS_S = 3.0


@dataclass(slots=True)
class _Kept:
    addresses: tuple[str, ...]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    changed: trio.Event = field(default_factory=trio.Event)


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
        self._kept: dict[str, _Kept] = {}
        self._nursery: trio.Nursery | None = None
        self._refusals = RateLimit(rate_per_s=1 / 60, burst=5)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept, dial and keep sessions until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._host.serve(SESSION_PROTOCOL, self._accept)
            task_status.started()
            while True:
                await trio.sleep(1.0)
                self._forget_detached(trio.current_time())

    def keep(self, peer_id: str, addresses: tuple[str, ...]) -> None:
        """Want a session with a peer at these addresses from now on."""
        kept = self._kept.get(peer_id)
        if kept is not None:
            if addresses and kept.addresses != addresses:
                kept.addresses = addresses
                kept.changed.set()
            return
        if peer_id == self._host.peer_id or len(self._kept) >= SESSIONS_MAX or self._nursery is None:
            return
        kept = self._kept[peer_id] = _Kept(addresses)
        self._nursery.start_soon(self._keep_connected, peer_id, kept)

    def release(self, peer_id: str) -> None:
        """Dial a peer no longer; a session that it opened itself goes on."""
        if kept := self._kept.pop(peer_id, None):
            kept.scope.cancel()

    def drop(self, peer_id: str) -> None:
        """Give up a stream that seems dead, so that a new one is dialled."""
        if session := self._sessions.get(peer_id):
            session.detach()

    def attached(self, peer_id: str) -> Session | None:
        """Return the session with a peer if a stream carries it now."""
        session = self._sessions.get(peer_id)
        return session if session and session.is_attached else None

    def certificate(self, peer_id: str) -> VerifiedCertificate | None:
        session = self._sessions.get(peer_id)
        return session.certificate if session else None

    def send_message(self, peer_id: str, method: str, message: bytes) -> None:
        """Send a one-way message if the peer is connected; it is lost otherwise."""
        if session := self.attached(peer_id):
            session.channel.send_message(method, message)

    def channel(self, peer_id: str) -> Channel:
        """Return the channel to a connected peer.

        Raises:
            NodeUnreachable: there is no connection now.
        """
        session = self.attached(peer_id)
        if session is None:
            raise NodeUnreachable("the node is not connected", node=peer_id)
        return session.channel

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
        """Ask a connected peer; see Channel.call."""
        return await self.channel(peer_id).call(
            method, message, deadline=deadline, payload=payload, into=into
        )

    async def _keep_connected(self, peer_id: str, kept: _Kept) -> None:
        attempts = 0
        with kept.scope:
            if peer_id < self._host.peer_id and self._sessions.get(peer_id) is None:
                await trio.sleep(YIELD_S * self._rng.uniform(0.0, 0.4))
            while True:
                session = self._sessions.get(peer_id)
                if session is not None and session.is_attached:
                    attempts = 0
                    await session.detached.wait()
                    if peer_id < self._host.peer_id:
                        await trio.sleep(YIELD_S)
                    continue
                kept.changed = trio.Event()
                try:
                    await self._open(peer_id, kept.addresses)
                    continue
                except (SedmadError, trio.TooSlowError) as error:
                    log.debug(
                        "dial_failed", peer=peer_id, attempts=attempts, error=str(error).splitlines()[:2]
                    )
                attempts += 1
                delay_s = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(attempts, 10)) * self._rng.uniform(
                    0.5, 1.0
                )
                with trio.move_on_after(delay_s):
                    await kept.changed.wait()

    async def _open(self, peer_id: str, addresses: tuple[str, ...]) -> None:
        await self._host.connect(peer_id, list(addresses), timeout_s=DIAL_TIMEOUT_S)
        stream = await self._host.open_stream(peer_id, SESSION_PROTOCOL, timeout_s=DIAL_TIMEOUT_S)
        try:
            session = self._sessions.get(peer_id)
            # A session object is only made once the peer has shown its certificates.
            session_id = session.window.session_id if session else self._new_session_id()
            await send_hello(stream, self._hello(session, session_id))
            decoder = stranger_decoder()
            hello = await receive_hello(stream, decoder)
            certificate = self._verify(hello.chain, peer_id)
        except BaseException:
            with trio.CancelScope(shield=True):
                await stream.reset()
            raise
        trust(decoder)
        session = self._sessions.get(peer_id) or self._new_session(peer_id, session_id, certificate)
        if session.window.session_id != session_id:
            # The peer's own stream made the session meanwhile, under another id than this hello told.
            await stream.reset()
            return
        await self._carry(session, stream, hello, decoder, certificate, opened_here=True)

    async def _accept(self, stream: ByteStream, peer_id: str, remote_address: str) -> None:
        decoder = stranger_decoder()
        try:
            hello = await receive_hello(stream, decoder)
            certificate = self._verify(hello.chain, peer_id)
            session = self._sessions.get(peer_id)
            if session is not None and self._is_ours(session, peer_id):
                await refuse(
                    stream, Overloaded("a stream of this session was opened from here at the same time")
                )
                return
            if session is None:
                session = self._new_session(peer_id, self._new_session_id(), certificate)
            await send_hello(stream, self._hello(session, session.window.session_id))
        except (SedmadError, trio.TooSlowError) as error:
            if self._refusals.allow(trio.current_time()):
                log.warning("stranger_refused", peer=peer_id, address=remote_address, why=str(error))
            if isinstance(error, CertificateInvalid | Overloaded):
                await refuse(stream, error)
            return
        trust(decoder)
        await self._carry(session, stream, hello, decoder, certificate, opened_here=False)

    def _is_ours(self, session: Session, peer_id: str) -> bool:
        """Whether a stream that we opened a moment ago stands against one that the peer opened."""
        return (
            self._host.peer_id < peer_id
            and session.is_attached
            and session.opened_here
            and trio.current_time() - session.carried_since < SIMULTANEOUS_S
        )

    async def _carry(
        self,
        session: Session,
        stream: ByteStream,
        hello: SessionHello,
        decoder: FrameDecoder,
        certificate: VerifiedCertificate,
        *,
        opened_here: bool,
    ) -> None:
        session.certificate = certificate
        self._on_clock(session.peer_id, hello.wall_time_s - self._wall_time())
        await session.carry(stream, hello, decoder, opened_here=opened_here)

    def _hello(self, session: Session | None, session_id: int) -> SessionHello:
        return SessionHello(
            chain=self._chain,
            session_id=session_id,
            peer_session_id=session.window.peer_session_id if session else 0,
            received_sequence=session.window.received_sequence if session else 0,
            wall_time_s=self._wall_time(),
            software_version=self._software_version,
        )

    def _new_session_id(self) -> int:
        return self._rng.randrange(1, 1 << 64)

    def _new_session(self, peer_id: str, session_id: int, certificate: VerifiedCertificate) -> Session:
        if len(self._sessions) >= SESSIONS_MAX:
            raise Overloaded("this node has too many sessions", why=f"at most {SESSIONS_MAX}")
        assert self._nursery is not None
        channel = Channel(
            self._methods, peer_id, certificate.name or peer_id, partial(self._on_message, peer_id)
        )
        session = Session(peer_id, channel, session_id, partial(self._on_link, peer_id))
        self._sessions[peer_id] = session
        self._nursery.start_soon(self._serve, session)
        return session

    async def _serve(self, session: Session) -> None:
        with session.serving:
            await session.channel.serve()

    def _forget_detached(self, now: float) -> None:
        for peer_id, session in list(self._sessions.items()):
            if session.detached_at is not None and now - session.detached_at > RESUME_S:
                session.close()
                session.serving.cancel()
                del self._sessions[peer_id]

"""Who is there: drives the membership core over sessions, and tells the other services what it finds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.core.membership import events
from sedmad.core.membership.advert import Advert
from sedmad.core.membership.claim import Claim
from sedmad.core.membership.membership import Membership, PeerRow
from sedmad.core.membership.messages import Gossip
from sedmad.core.membership.record import SignedRecord
from sedmad.errors import PeerError, SedmadError
from sedmad.net.identity import Identity
from sedmad.net.sessions import Sessions
from sedmad.node import membership_wire
from sedmad.node.certificates import Certificates
from sedmad.node.clock import monotonic_s, wall_time_s
from sedmad.node.records import read_record, sign_record
from sedmad.node.replies import read_reply
from sedmad.wire import messages as wire

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.membership")

GET_CERTIFICATE = "sedma.v1.CertificateService/GetCertificate"
# Adverts that wait for their certificate: a mesh that a node joins sends at most a few hundred at once.
WAITING_ADVERTS_MAX = 512
CERTIFICATE_TIMEOUT_S = 5.0
# The core may ask for a time in the past; the loop turns at most this often.
STEP_S_MIN = 0.005
# Names removed 90 days ago; an hour more or less is the same.
TOMBSTONES_S = 3600.0


@dataclass(slots=True)
class _Waiting:
    signed: SignedRecord
    from_peer: str


class MembershipService:
    """The membership core with its clock, its sessions and its signatures.

    Args:
        on_event: called with every event of the core, after peers to connect with were told to `sessions`.
    """

    def __init__(
        self,
        advert: Advert,
        *,
        identity: Identity,
        sessions: Sessions,
        certificates: Certificates,
        rng: random.Random,
        known: Iterable[SignedRecord],
        on_event: Callable[[events.Event], None],
    ) -> None:
        self._identity = identity
        self._sessions = sessions
        self._certificates = certificates
        self._on_event = on_event
        self._waiting: dict[str, _Waiting] = {}
        self._fetches, self._to_fetch = trio.open_memory_channel[str](WAITING_ADVERTS_MAX)
        self._wake = trio.Event()
        self._sleeping_until: float | None = None
        self._known_rows: dict[str, PeerRow] | None = None
        self._started = False
        self.clock_skew_s: dict[str, float] = {}
        self.core = Membership(
            advert,
            sign=lambda record: sign_record(record, identity),
            size_of=membership_wire.size_of,
            rng=rng,
            now=monotonic_s(),
            known=known,
            wall_offset_s=wall_time_s() - monotonic_s(),
        )

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let time pass for the core until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._fetch_certificates)
            nursery.start_soon(self._forget_tombstones)
            self._started = True
            self._act()
            task_status.started()
            while True:
                self._wake = trio.Event()
                timeout = self._sleeping_until = self.core.next_timeout()
                deadline = float("inf") if timeout is None else max(timeout, monotonic_s() + STEP_S_MIN)
                with trio.CancelScope(deadline=deadline):
                    await self._wake.wait()
                self.core.set_wall_offset(wall_time_s() - monotonic_s())
                self.core.handle_timeout(monotonic_s())
                self._act()

    def peers(self) -> list[PeerRow]:
        """Return every other member, the dead of the last minutes included."""
        return list(self._rows().values())

    def _rows(self) -> dict[str, PeerRow]:
        # Asked several times a product; the core changes a few times a second.
        if self._known_rows is None:
            self._known_rows = {row.peer_id: row for row in self.core.peers()}
        return self._known_rows

    def row(self, peer_id: str) -> PeerRow | None:
        """Return what is known of another member."""
        return self._rows().get(peer_id)

    def name_of(self, peer_id: str) -> str:
        """Return how people call a node; its id where it is unknown."""
        if peer_id == self.core.peer_id:
            return self.core.advert.name
        row = self.row(peer_id)
        return row.advert.name if row else peer_id

    def state_of(self, peer_id: str) -> str:
        """Return alive, suspect or dead; a node never heard of is dead."""
        if peer_id == self.core.peer_id:
            return "alive"
        row = self.row(peer_id)
        return row.state if row else "dead"

    def update_advert(self, **changes: object) -> None:
        """Change what this node offers."""
        self.core.update_advert(changes, monotonic_s())
        self._act()

    def publish_claim(self, claim: Claim) -> None:
        """Tell the mesh of a name."""
        self.core.publish_claim(claim, monotonic_s())
        self._act()

    def hear(self, peer_id: str, signed: SignedRecord) -> None:
        """Take in a checked record that came another way than by gossip."""
        self.core.receive(peer_id, Gossip(records=(signed,)), monotonic_s())
        self._act()

    # What sessions report.

    def on_link(self, peer_id: str, up: bool) -> None:
        """A session gained or lost its stream."""
        if up:
            self.core.link_up(peer_id, monotonic_s())
        else:
            self.core.link_down(peer_id, monotonic_s())
        self._act()

    def on_clock(self, peer_id: str, skew_s: float) -> None:
        self.clock_skew_s[peer_id] = skew_s

    def on_message(self, peer_id: str, method: str, encoded: bytes) -> None:
        """A one-way message came from a member."""
        if method != membership_wire.METHOD:
            log.debug("message_ignored", peer=peer_id, method=method[:64])
            return
        try:
            message = membership_wire.decode_message(encoded)
            records = [read_record(record.SerializeToString()) for record in message.records]
            counted = [record for record in records if self._counts(record, peer_id)]
            self.core.receive(peer_id, membership_wire.to_core(message, counted), monotonic_s())
        except PeerError as error:
            log.warning("membership_message_refused", peer=peer_id, why=str(error))
            return
        self._act()

    def _counts(self, signed: SignedRecord, from_peer: str) -> bool:
        """Whether a record may enter the core now; an advert whose certificate is unknown waits for it."""
        record = signed.record
        if not isinstance(record, Advert) or self._certificates.vouches_for(
            record.peer_id, record.certificate_digest
        ):
            return True
        if record.peer_id in self._waiting or len(self._waiting) < WAITING_ADVERTS_MAX:
            new = record.peer_id not in self._waiting
            self._waiting[record.peer_id] = _Waiting(signed, from_peer)
            if new:
                self._fetches.send_nowait(record.peer_id)
        return False

    async def _forget_tombstones(self) -> None:
        while True:
            self.core.drop_old_tombstones(wall_time_s())
            await trio.sleep(TOMBSTONES_S)

    async def _fetch_certificates(self) -> None:
        async for peer_id in self._to_fetch:
            waiting = self._waiting[peer_id]
            try:
                encoded = await self._sessions.call(
                    waiting.from_peer,
                    GET_CERTIFICATE,
                    wire.GetCertificateRequest(peer_id=peer_id),
                    deadline=monotonic_s() + CERTIFICATE_TIMEOUT_S,
                )
                chain = read_reply(wire.GetCertificateResponse, encoded, waiting.from_peer).chain
                self._certificates.check_fetched(chain, peer_id)
            except SedmadError as error:
                log.debug("certificate_not_fetched", peer=peer_id, why=str(error))
            signed = self._waiting.pop(peer_id).signed
            record = signed.record
            if isinstance(record, Advert) and self._certificates.vouches_for(
                peer_id, record.certificate_digest
            ):
                self.hear(waiting.from_peer, signed)

    def _act(self) -> None:
        """Do what the core wants: local events first, then the messages.

        Before it runs, nobody is there to do it; what the core wants then, it still wants later.
        """
        self._known_rows = None
        if not self._started:
            return
        outgoing = self.core.collect()
        for event in outgoing.events:
            self._connect(event)
            self._on_event(event)
        for peer_id, message in outgoing.messages:
            self._sessions.send_message(
                peer_id, membership_wire.METHOD, membership_wire.encode_message(message)
            )
        self._wake.set()

    def _connect(self, event: events.Event) -> None:
        match event:
            case events.PeerJoined(peer_id, signed) | events.AdvertChanged(peer_id, signed):
                if isinstance(signed.record, Advert):
                    self._sessions.keep(peer_id, signed.record.addresses)
            case events.PeerDead(peer_id):
                self._sessions.hold_for_dead(peer_id)
                log.warning("peer_dead", peer=peer_id, name=self.name_of(peer_id))
            case events.PeerSuspected(peer_id):
                log.info("peer_suspected", peer=peer_id, name=self.name_of(peer_id), by=event.by)
            case events.PeerAlive(peer_id):
                log.info("peer_alive", peer=peer_id, name=self.name_of(peer_id))
            case events.PeerForgotten(peer_id):
                self._sessions.release(peer_id)
                self.clock_skew_s.pop(peer_id, None)
            case events.ClockSkewed(peer_id, skew_s):
                log.warning("clock_skewed", peer=peer_id, name=self.name_of(peer_id), skew_s=round(skew_s, 1))
            case _:
                pass

"""A node with a membership core and a guardian: who is up or down is what membership believes, mistakes included."""

from __future__ import annotations

from sedmad.core.membership import Membership, PeerAlive, PeerDead, PeerJoined
from sedmad.core.membership import Message as MembershipMessage
from sedmad.core.membership import Outgoing as MembershipOutgoing
from sedmad.core.ownership import Message as OwnershipMessage
from sedmad.core.ownership import VoteAnswer, VoteRequest
from sedmad.testing.guardian import Batch, Declined, Guardian, Offer, Taken

GUARDIAN_MESSAGES = (Offer, Taken, Declined, VoteRequest, VoteAnswer)


class Member:
    """A node with both cores: what membership finds out is what ownership goes by."""

    def __init__(self, membership: Membership, guardian: Guardian) -> None:
        self.membership = membership
        self.guardian = guardian
        self._outgoing: list[MembershipOutgoing] = []

    def receive(self, sender: str, message: MembershipMessage | OwnershipMessage, now: float) -> None:
        if isinstance(message, GUARDIAN_MESSAGES):
            self.guardian.receive(sender, message, now)
        else:
            self.membership.receive(sender, message, now)
            self._pass_verdicts(now)

    def link_up(self, peer_id: str, now: float) -> None:
        self.membership.link_up(peer_id, now)
        self._pass_verdicts(now)

    def next_timeout(self) -> float | None:
        deadlines = (self.membership.next_timeout(), self.guardian.next_timeout())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        for core in (self.membership, self.guardian):
            due_at = core.next_timeout()
            if due_at is not None and due_at <= now:
                core.handle_timeout(now)
        self._pass_verdicts(now)

    def collect(self) -> Batch:
        batch = self.guardian.collect()
        messages = [message for outgoing in self._outgoing for message in outgoing.messages]
        self._outgoing.clear()
        return Batch((*messages, *batch.messages), batch.events)  # type: ignore[arg-type]

    def _pass_verdicts(self, now: float) -> None:
        outgoing = self.membership.collect()
        self._outgoing.append(outgoing)
        for event in outgoing.events:
            match event:
                case PeerDead(peer_id=peer_id):
                    self.guardian.peer_down(peer_id, now)
                case PeerAlive(peer_id=peer_id):
                    self.guardian.peer_up(peer_id, now)
                case PeerJoined(peer_id=peer_id):
                    states = {row.peer_id: row.state for row in self.membership.peers()}
                    if states.get(peer_id) == "alive":
                        self.guardian.peer_up(peer_id, now)

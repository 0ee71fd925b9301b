"""Names and adverts, told and kept: at once where a service does it, later where gossip told, as node/keeping.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sedmad.core.membership import Claim, Gossip, SignedRecord
from sedmad.testing.wire_stand_in import sign

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

GATHER_S = 0.5


class Keeping:
    """One life's records."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._waiting: dict[tuple[str, ...], SignedRecord] = {}

    def keep(self, record: SignedRecord) -> None:
        """Write a record in place of an older one; within a transaction."""
        self._node.disk.records[record.locator] = record

    def publish(self, claim: Claim) -> None:
        """Tell the mesh of a name."""
        self._node.watch.claimed(claim)
        self._node.membership.publish_claim(claim, self._node.tasks.now)
        self._node.dispatch()

    def hear(self, peer_id: str, record: SignedRecord) -> None:
        """Take in a record that came another way than by gossip."""
        self._node.membership.receive(peer_id, Gossip(records=(record,)), self._node.tasks.now)
        self._node.dispatch()

    def take_note(self, record: SignedRecord) -> None:
        """Write a record that gossip told soon."""
        self._waiting[record.locator] = record

    async def run(self) -> None:
        while True:
            await self._node.tasks.sleep(GATHER_S)
            records, self._waiting = self._waiting, {}
            if records:
                await self._node.write(lambda records=records: self._node.disk.records.update(records))  # type: ignore[misc]


def signed(claim: Claim) -> SignedRecord:
    return SignedRecord(claim, sign(claim))

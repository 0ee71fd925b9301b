"""A simulated node of the store, in the shape of a core: real cores, and services that do as the daemon's do.

Owns who is told what, as node/node.py does, and the order of a start, as node/daemon.py has it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from sedmad.core.capacity import CapacityLedger
from sedmad.core.membership import (
    LAN,
    Advert,
    AdvertChanged,
    Claim,
    ClaimChanged,
    Directory,
    Membership,
    PeerAlive,
    PeerDead,
    PeerJoined,
    first_sequence,
)
from sedmad.core.offers import Offer
from sedmad.core.ownership import VoteAnswer, VoteRequest
from sedmad.testing.guardian import Batch
from sedmad.testing.store.asking import Asking
from sedmad.testing.store.calls import Answer, Calls, Request
from sedmad.testing.store.committing import Committing
from sedmad.testing.store.disk import PARTITION_BYTES, Disk, Manifest
from sedmad.testing.store.fetching import Fetching
from sedmad.testing.store.healing import Healing
from sedmad.testing.store.holding import Holdings
from sedmad.testing.store.keeping import Keeping
from sedmad.testing.store.manifests import Establishing, Manifests
from sedmad.testing.store.offering import gather_offers
from sedmad.testing.store.owning import Owning
from sedmad.testing.store.putting import Putting
from sedmad.testing.store.reconciling import Reconciling
from sedmad.testing.store.removing import Removing
from sedmad.testing.store.repairing import Repairing
from sedmad.testing.store.undertaking import Undertakings
from sedmad.testing.store.watch import Watch
from sedmad.testing.tasks import Places, Tasks
from sedmad.testing.wire_stand_in import sign, size_of

# As hasty as the ownership swarm's: a run is to see deaths, wrong ones too.
SETTINGS = LAN.__class__(suspicion_multiplier=2, suspicion_maximum_multiplier=2)
WRITE_S = (0.001, 0.02)


class StoreNode:
    """One life of a node.

    Args:
        disk: of this and earlier lives.
        partitions: room for so many partitions in memory, and on disk.
        wall_offset_s: Unix time minus the node's own.
    """

    def __init__(
        self,
        peer_id: str,
        disk: Disk,
        *,
        life: int,
        life_of: Callable[[str], int],
        partitions: tuple[int, int],
        rng: random.Random,
        now: float,
        wall_offset_s: float,
        watch: Watch,
    ) -> None:
        self.peer_id, self.disk, self.rng, self.watch = peer_id, disk, rng, watch
        self.life = life
        self._wall_offset_s = wall_offset_s
        self.tasks = Tasks(now)
        memory_bytes, disk_bytes = (PARTITION_BYTES * count for count in partitions)
        self.ledger = CapacityLedger(
            memory_pledged_bytes=memory_bytes, disk_pledged_bytes=disk_bytes, node=peer_id
        )
        advert = Advert(
            peer_id,
            peer_id,
            first_sequence(life),
            state="ready",
            memory_pledged_bytes=memory_bytes,
            disk_pledged_bytes=disk_bytes,
            compute_gflops=10.0,
            memory_bandwidth_bytes_per_s=1e10,
        )
        self.membership = Membership(
            advert,
            sign=sign,
            size_of=size_of,
            rng=random.Random(rng.getrandbits(64)),  # noqa: S311
            now=now,
            settings=SETTINGS,
            known=list(disk.records.values()),
            wall_offset_s=wall_offset_s,
        )
        self._states: dict[str, str] | None = None
        self._messages: list[tuple[str, Any]] = []
        self._writer = Places(self.tasks)
        self.keeping = Keeping(self)
        self.calls = Calls(
            peer_id,
            life,
            self.tasks,
            life_of=life_of,
            is_dead=lambda peer: self.state_of(peer) == "dead",
        )
        self.holding = Holdings(self)
        self.fetching = Fetching(self)
        self.manifests = Manifests(self)
        self.establishing = Establishing(self)
        self.healing = Healing(self)
        self.reconciling = Reconciling(self)
        self.owning = Owning(self)
        self.undertakings = Undertakings(self)
        self.putting = Putting(self)
        self.committing = Committing(self)
        self.removing = Removing(self)
        self.repairing = Repairing(self)
        self.asking = Asking(self)
        self.holding.restore()
        self.tell_use()
        for service in (
            self.keeping.run,
            self.undertakings.clear_up_all,
            self.healing.run,
            self.reconciling.run,
        ):
            self.tasks.spawn(service())
        self.owning.start()
        self.tasks.spawn(self.repairing.run())
        self.tasks.spawn(self.removing.run())
        self._run(now)

    # The shape of a core.

    def receive(self, sender: str, message: Any, now: float) -> None:
        self.tasks.now = max(now, self.tasks.now)
        if isinstance(message, Request | Answer):
            self.calls.receive(sender, message)
        elif isinstance(message, VoteRequest | VoteAnswer):
            self.owning.receive(sender, message)
        else:
            self.membership.receive(sender, message, now)
        self._run(now)

    def next_timeout(self) -> float | None:
        timeouts = (
            self.membership.next_timeout(),
            self.owning.core.next_timeout(),
            self.tasks.next_timeout(),
        )
        return min((timeout for timeout in timeouts if timeout is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        self.tasks.now = max(now, self.tasks.now)
        for core in (self.membership, self.owning.core):
            due_at = core.next_timeout()
            if due_at is not None and due_at <= now:
                core.handle_timeout(now)
        self.owning.act()
        self._run(now)

    def collect(self) -> Batch:
        batch = Batch((*self._messages, *self.calls.outbox), ())  # type: ignore[arg-type]
        self._messages.clear()
        self.calls.outbox.clear()
        self.watch.look(self)
        return batch

    def do(self, work: Any, now: float) -> None:
        """Have something done that a client asks for."""
        self.tasks.spawn(work)
        self._run(now)

    def link_up(self, peer_id: str, now: float) -> None:
        self.membership.link_up(peer_id, now)
        self._run(now)

    # What the services ask.

    @property
    def directory(self) -> Directory:
        return self.membership.directory

    def wall_time_s(self) -> float:
        return self.tasks.now + self._wall_offset_s

    def state_of(self, peer_id: str) -> str:
        """Return alive, suspect or dead; a node never heard of is dead."""
        if self._states is None:
            self._states = {row.peer_id: row.state for row in self.membership.peers()}
        return "alive" if peer_id == self.peer_id else self._states.get(peer_id, "dead")

    def offers(self) -> list[Offer]:
        """Return what this node and every other that is alive offer."""
        return gather_offers(self.membership, self.ledger)

    def tell_use(self) -> None:
        memory, disk = self.ledger.memory, self.ledger.disk
        use = {
            "memory_used_bytes": memory.used_bytes + memory.reserved_bytes,
            "disk_used_bytes": disk.used_bytes + disk.reserved_bytes,
        }
        self.membership.update_advert(use, self.tasks.now)

    async def write(self, transaction: Callable[[], None]) -> None:
        """Have something on disk, whole or not at all, in the order of asking; a crash may come before or after."""
        async with self._writer:
            await self.tasks.sleep(self.rng.uniform(*WRITE_S))
            transaction()
        await self.tasks.sleep(0.0)

    def send(self, peer_id: str, message: Any) -> None:
        self._messages.append((peer_id, message))

    # Who is told what.

    def on_kept(self, manifest: Manifest) -> None:
        self.owning.on_kept(manifest.key)
        if self.holding.lacking(manifest):
            self.healing.look_at([manifest.key])

    def on_won(self, manifest: Manifest) -> None:
        self.removing.free_unnamed(manifest.key)
        self.repairing.look_afresh()

    def _run(self, now: float) -> None:
        self.dispatch()
        self.tasks.run(now)
        self.dispatch()
        self.tasks.run(now)

    def dispatch(self) -> None:
        """Pass on what membership found out."""
        self._states = None
        outgoing = self.membership.collect()
        self._messages += outgoing.messages
        for event in outgoing.events:
            match event:
                case PeerJoined(peer_id, record) | AdvertChanged(peer_id, record):
                    self.keeping.take_note(record)
                    self._tell_presence(peer_id)
                    self.repairing.look_afresh()
                case ClaimChanged(name, record):
                    self.keeping.take_note(record)
                    assert isinstance(record.record, Claim)
                    self.reconciling.on_claim(record.record)
                    for claim in self.directory.replaced(name):
                        self.removing.on_replaced(claim)
                case PeerAlive(peer_id):
                    self._tell_presence(peer_id)
                    self.reconciling.meet(peer_id)
                    self.repairing.look_afresh()
                case PeerDead(peer_id):
                    self.calls.hold_for_dead(peer_id)
                    self.holding.owner_gone(peer_id)
                    self._tell_presence(peer_id)
                    self.repairing.look()

    def _tell_presence(self, peer_id: str) -> None:
        state = self.state_of(peer_id)
        if state != "suspect":
            self.owning.on_peer(peer_id, up=state == "alive")

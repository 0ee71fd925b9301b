"""What a daemon does around an ownership core, as little of it as there can be: a disk, and offers of manifests.

A manifest's content is the line of manifests that it goes back to, so that a test can tell whether anything
that was established has been lost.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

from sedmad.core.ownership import (
    Behind,
    Event,
    Message,
    Outgoing,
    Ownership,
    OwnershipSettings,
    Promise,
    Refusal,
    Standing,
    Surpassed,
    Vote,
    VoteAnswer,
    VoteRequest,
    Won,
    accepts,
    has_majorities,
    may_promise,
)

Line = tuple[tuple[int, int, str], ...]  # (epoch, seq, owner) of every manifest from the first one on


@dataclass(slots=True)
class Disk:
    """What survives a crash."""

    promised: dict[Hashable, Promise] = field(default_factory=dict)
    kept: dict[Hashable, Standing] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """Keep this manifest."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Taken:
    """It is on disk, and known to be established or not."""

    key: Hashable
    order: tuple[int, int]
    established: bool


@dataclass(frozen=True, slots=True)
class Declined:
    """It is not; `standing` is what is kept, and `known_epoch` the greatest that was promised or is kept."""

    key: Hashable
    order: tuple[int, int]
    refusal: Refusal
    known_epoch: int
    standing: Standing | None


@dataclass(frozen=True, slots=True)
class Stored:
    """For whoever watches: this node's disk has a manifest that it had not."""

    node: str
    standing: Standing


@dataclass(frozen=True, slots=True)
class Batch:
    messages: tuple[tuple[str, Message | Offer | Taken | Declined], ...]
    events: tuple[Event | Stored, ...]


def first_standing(key: Hashable, guardians: Sequence[str]) -> Standing:
    """Return an established manifest of the first guardian's."""
    line: Line = ((0, 0, guardians[0]),)
    return Standing(key, guardians[0], tuple(guardians), 0, 0, established=True, manifest=line)


NOTHING = Outgoing((), (), ())


class Guardian:
    """One life of a guardian, in the shape of a core.

    Args:
        disk: of this and earlier lives.
        peers: everybody, to compare manifests with now and then.
        offer_every_s: how often a manifest is offered again to guardians that have not taken it.
        compare_every_s: how often some manifest is shown to some peer.
        tells_late: the core hears of what is stored by `tell` only, as where disk and core run side by side.
    """

    def __init__(
        self,
        peer_id: str,
        disk: Disk,
        *,
        rng: random.Random,
        now: float,
        settings: OwnershipSettings | None = None,
        peers: Sequence[str] = (),
        offer_every_s: float = 1.0,
        compare_every_s: float = 5.0,
        tells_late: bool = False,
    ) -> None:
        self.peer_id = peer_id
        self.disk = disk
        self.core = Ownership(
            peer_id,
            sign=lambda promise: repr(promise).encode(),
            rng=rng,
            settings=settings,
            promised=disk.promised.values(),
        )
        self._rng = rng
        self._peers = [peer for peer in peers if peer != peer_id]
        self._offer_every_s = offer_every_s
        self._compare_every_s = compare_every_s
        self._offer_at = now + offer_every_s
        self._compare_at = now + compare_every_s
        self._tells_late = tells_late
        self._untold: list[Standing] = []
        self._takers: dict[Hashable, set[str]] = {}
        self._messages: list[tuple[str, Message | Offer | Taken | Declined]] = []
        self._events: list[Event | Stored] = []
        for standing in disk.kept.values():
            self.core.keep(standing, now)

    def owns(self, key: Hashable) -> bool:
        return key in self.disk.kept and self.disk.kept[key].owner == self.peer_id

    def write(self, key: Hashable, now: float, guardians: tuple[str, ...] | None = None) -> bool:
        """As the matrix's owner, write its next manifest; False where this node's own promise forbids it."""
        written = self._publish(self.disk.kept[key], self.disk.kept[key].epoch, guardians, now)
        self._pump(now)
        return written

    @property
    def has_to_tell(self) -> bool:
        return bool(self._untold)

    def tell(self, now: float) -> None:
        """Tell the core what was stored."""
        untold, self._untold = self._untold, []
        for standing in untold:
            self.core.keep(standing, now)

    def peer_up(self, peer_id: str, now: float) -> None:
        self.core.peer_up(peer_id, now)
        self._pump(now)

    def peer_down(self, peer_id: str, now: float) -> None:
        self.core.peer_down(peer_id, now)
        self._pump(now)

    def receive(self, sender: str, message: Message | Offer | Taken | Declined, now: float) -> None:
        match message:
            case Offer():
                self._consider(sender, message.standing, now)
            case Taken():
                self._count(sender, message, now)
            case Declined():
                if message.standing is not None:
                    self._store(message.standing, now)
                if message.refusal is Refusal.PROMISED and self.owns(message.key):
                    self.core.reclaim(message.key, message.known_epoch, now)
            case VoteRequest() | VoteAnswer():
                self.core.receive(sender, message, now)
        self._pump(now)

    def next_timeout(self) -> float | None:
        deadlines = [self._offer_at, self._compare_at, self.core.next_timeout()]
        finite = [deadline for deadline in deadlines if deadline is not None and deadline < math.inf]
        return min(finite, default=None)

    def handle_timeout(self, now: float) -> None:
        self.core.handle_timeout(now)
        self._pump(now)
        if self._offer_at <= now:
            self._offer_at = now + self._offer_every_s
            for key in [key for key in self.disk.kept if self.owns(key)]:
                self._offer(self.disk.kept[key])
        if self._compare_at <= now:
            self._compare_at = now + self._compare_every_s
            if self._peers and self.disk.kept:
                standing = self._rng.choice(list(self.disk.kept.values()))
                self._messages.append((self._rng.choice(self._peers), Offer(standing)))

    def collect(self) -> Batch:
        batch = Batch(tuple(self._messages), tuple(self._events))
        self._messages.clear()
        self._events.clear()
        return batch

    def _pump(self, now: float) -> None:
        """Do what the core wants done, in the order that it demands, until it wants nothing more."""
        while (outgoing := self.core.collect()) != NOTHING:
            withdrawn = {vote.promise.key for vote in outgoing.votes if not self._promise(vote)}
            for receiver, message in outgoing.messages:
                if not (isinstance(message, VoteAnswer) and message.vote and message.key in withdrawn):
                    self._messages.append((receiver, message))
            self._events += outgoing.events
            for event in outgoing.events:
                match event:
                    case Won() if event.key not in withdrawn:
                        self._publish(event.standing, event.epoch, None, now)
                    case Behind():
                        self._messages.append((event.guardian, Offer(event.standing)))
                    case Surpassed():
                        self._store(event.standing, now)

    def _promise(self, vote: Vote) -> bool:
        key = vote.promise.key
        if may_promise(self.disk.promised.get(key), self.disk.kept.get(key), vote) is not None:
            return False
        self.disk.promised[key] = vote.promise
        return True

    def _publish(self, before: Standing, epoch: int, guardians: tuple[str, ...] | None, now: float) -> bool:
        """Write the manifest after `before`, and have it established."""
        line = (*before.manifest, (epoch, before.seq + 1, self.peer_id))
        standing = before.succeeded_by(self.peer_id, epoch, guardians=guardians, manifest=line)
        if self._store(standing, now) is not None:
            return False
        self._takers.pop(standing.key, None)
        self._offer(standing)
        self._establish(standing.key, now)
        return True

    def _store(self, offered: Standing, now: float) -> Refusal | None:
        """Keep a manifest, if the rules let it."""
        kept = self.disk.kept.get(offered.key)
        refusal = accepts(self.disk.promised.get(offered.key), kept, offered)
        newer = kept is None or (kept.order, kept.established) < (offered.order, offered.established)
        if refusal is None and newer:
            self.disk.kept[offered.key] = offered
            self._events.append(Stored(self.peer_id, offered))
            self._untold.append(offered)
            if not self._tells_late:
                self.tell(now)
        return refusal

    def _consider(self, sender: str, offered: Standing, now: float) -> None:
        refusal = self._store(offered, now)
        if refusal is None:
            self._messages.append((sender, Taken(offered.key, offered.order, offered.established)))
            return
        promised, kept = self.disk.promised.get(offered.key), self.disk.kept.get(offered.key)
        known_epoch = max(promised.epoch if promised else 0, kept.epoch if kept else 0)
        declined = Declined(offered.key, offered.order, refusal, known_epoch, kept)
        self._messages.append((sender, declined))

    def _count(self, sender: str, taken: Taken, now: float) -> None:
        kept = self.disk.kept.get(taken.key)
        if kept is None or kept.owner != self.peer_id or kept.order != taken.order:
            return
        if taken.established or not kept.established:
            self._takers.setdefault(taken.key, set()).add(sender)
            self._establish(taken.key, now)

    def _establish(self, key: Hashable, now: float) -> None:
        """See whether enough guardians keep a manifest of ours, and tell all."""
        standing = self.disk.kept[key]
        keepers = self._takers.get(key, set()) | {self.peer_id}
        if not standing.established and has_majorities(keepers, standing):
            self._store(replace(standing, established=True), now)
            self._takers.pop(key, None)  # who has it as established is counted anew
            self._offer(self.disk.kept[key])

    def _offer(self, standing: Standing) -> None:
        """Offer a manifest to all that it concerns and that have not taken it."""
        concerned = {*standing.guardians, *standing.before} - self._takers.get(standing.key, set())
        for guardian in sorted(concerned - {self.peer_id}):
            self._messages.append((guardian, Offer(standing)))

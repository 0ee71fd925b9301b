"""What must hold of a store whatever happens, seen from outside: S1 to S4 and the pledges.

Owns what clients were promised, and which disks were lost; looks at disks, never into a node's mind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sedmad.core.capacity import Usage
from sedmad.core.membership import Claim
from sedmad.core.ownership import Standing, has_majorities
from sedmad.testing.guardian import Line, Stored
from sedmad.testing.ledger import Ledger
from sedmad.testing.mesh import InvariantBroken
from sedmad.testing.simulator import Simulator
from sedmad.testing.store.calls import Answer
from sedmad.testing.store.disk import ROOT, Disk, Kept, Key, Manifest, digests_of
from sedmad.testing.store.node import StoreNode

# From the first manifest of a version to its promise: two rounds of telling.
PROMISED_WITHIN_S = 20.0


@dataclass(slots=True)
class Version:
    """A version of a name that a client was told is stored.

    Attributes:
        losses: disks with copies of it that were lost since it was last whole.
        wanted: neither removed, nor replaced, nor lost with more disks than it was to survive.
    """

    claim: Claim
    key: Key
    digests: tuple[str, ...]
    survive: int
    losses: int = 0
    wanted: bool = True

    def __str__(self) -> str:
        return f"{self.claim.name} v{self.claim.version} ({self.key}, survive {self.survive})"


class Truth:
    """Watches the nodes of one run.

    Args:
        disks: of all nodes, whether they run or not; one that is lost is taken out.
        broken: makes the error for what must not happen.
    """

    def __init__(
        self, simulator: Simulator, disks: dict[str, Disk], broken: Callable[[str], InvariantBroken]
    ) -> None:
        self.versions: list[Version] = []
        self.ledgers: dict[Key, Ledger] = {}
        self._simulator = simulator
        self._disks = disks
        self._broken = broken
        self._claims: dict[str, set[Claim]] = {}
        # When each manifest came to be, and the disks that were lost: (time, peer id).
        self._written_at: dict[tuple[Key, tuple[int, int]], float] = {}
        self._lost: list[tuple[float, str]] = []
        self._manifests: dict[tuple[Key, Line], Manifest] = {}
        self._retired: set[Key] = set()
        self._held: dict[str, set[tuple[Key, int]]] = {}
        self._answers: dict[tuple[str, str, int, int, int], Answer] = {}

    # What nodes tell.

    def note(self, text: str) -> None:
        self._simulator.note(text)

    def stored(self, peer_id: str, manifest: Manifest, established: bool) -> None:
        """S3: there is one manifest of each order, one owner of each epoch, and nothing established is lost."""
        self.note(f"{peer_id} keeps {manifest}{' established' if established else ''}")
        self._written_at.setdefault((manifest.key, manifest.order), self._simulator.now)
        if manifest.retired:
            self._retired.add(manifest.key)
            return
        self._manifests[manifest.key, manifest.line] = manifest
        standing = Standing(
            manifest.key,
            manifest.owner,
            manifest.guardians,
            manifest.epoch,
            manifest.seq,
            manifest.guardians_before,
            established,
            manifest.line,
        )
        if manifest.key not in self.ledgers:
            self.ledgers[manifest.key] = Ledger(Standing(manifest.key, "", (), -1, -1, manifest=ROOT))
        if fault := self.ledgers[manifest.key].add(Stored(peer_id, standing)):
            raise self._broken(f"S3: {manifest.key}: {fault}")

    def claimed(self, claim: Claim) -> None:
        self._claims.setdefault(claim.name, set()).add(claim)
        for version in self.versions:
            if version.claim.name == claim.name and _ends(claim, version.claim):
                version.wanted = False

    def removing(self, claim: Claim) -> None:
        self.claimed(claim.tombstone(0.0))

    def acknowledged(self, claim: Claim, manifest: Manifest) -> None:
        """A client is told that a version is stored."""
        self.note(f"{manifest.owner} acknowledges {claim.name} v{claim.version}: {manifest}")
        key = manifest.key
        digests = digests_of(key.content, len(manifest.digests))
        version = Version(claim, key, digests, claim.survive)
        version.wanted = not any(_ends(other, claim) for other in self._claims.get(claim.name, ()))
        written_at = self._written_at[key, manifest.order]
        version.losses = sum(at >= written_at and peer in manifest.holders for at, peer in self._lost)
        version.wanted &= version.losses <= version.survive
        self.versions.append(version)
        self._check_copies(version)

    def look(self, node: StoreNode) -> None:
        """After every event: the node's pledges, and S2 where copies went."""
        for what, usage in (("memory", node.ledger.memory), ("disk", node.ledger.disk)):
            if not _fits(usage):
                raise self._broken(f"{node.peer_id} holds more than it pledged: {what} {usage}")
        shrunk, node.disk.shrunk = node.disk.shrunk, False
        if shrunk:
            self._check_freed(node.peer_id, node.disk)
        if node.disk.changed:
            node.disk.changed = False
            self._held[node.peer_id] = _held_on(node.disk)
        if shrunk:
            for version in self.versions:
                self._check_copies(version)

    def sent(self, sender: str, receiver: str, answer: Answer) -> None:
        """S4: a request is answered alike whenever it is repeated."""
        place = (sender, receiver, answer.caller_life, answer.life, answer.number)
        before = self._answers.setdefault(place, answer)
        if (before.value, type(before.error)) != (answer.value, type(answer.error)):
            raise self._broken(f"S4: {sender} answers {receiver} now {before}, now {answer}")

    def answered(self, claim: Claim, contents: list[str]) -> None:
        """S1: a product was computed with the bytes of the version that it says."""
        content = Key.of(claim).content
        if contents != list(digests_of(content, len(contents))) or len(contents) != claim.rows:
            raise self._broken(f"S1: {claim.name} v{claim.version} is answered from {contents}")

    # Losses.

    def may_lose_a_disk(self) -> bool:
        """Whether nothing that is to survive a loss is being made good after another, or on its way to be promised."""
        if self._lost and self._simulator.now < self._lost[-1][0] + PROMISED_WITHIN_S:
            return False
        for version in self.versions:
            if version.wanted and version.survive:
                if self._copies(version) <= version.survive:
                    return False
                # Copies that the manifest no longer names go as soon as their holders hear of it.
                if self._copies(version, named=True) > version.survive:
                    version.losses = 0
                elif version.losses >= version.survive:
                    return False
        return True

    def lose(self, peer_id: str, *, forever: bool) -> None:
        """Have a disk's bytes gone, or all of it."""
        disk = self._disks[peer_id]
        self._lost.append((self._simulator.now, peer_id))
        for version in self.versions:
            if any(disk.has_copy(version.key, *place) for place in enumerate(version.digests)):
                version.losses += 1
                if version.losses > version.survive:
                    version.wanted = False
        disk.blobs.clear()
        self._held.pop(peer_id, None)
        if forever:
            del self._disks[peer_id]

    # What can be asked of the end of a run.

    def newest(self, key: Key) -> Kept | None:
        """Return the newest manifest of a matrix that any disk has."""
        kept = [disk.kept[key] for disk in self._disks.values() if key in disk.kept]
        return max(kept, key=lambda one: (one.manifest.order, one.established), default=None)

    def can_be_owned(self, key: Key) -> bool:
        """Whether an owner lives, or enough guardians of all manifests that may matter to agree on one."""
        newest, living = self.newest(key), set(self._disks)
        if newest is None:
            return False
        if newest.manifest.owner not in living and len(newest.manifest.guardians) < 3:
            return False
        established = self.ledgers[key].established.order
        standings = [disk.kept[key].standing() for disk in self._disks.values() if key in disk.kept]
        return all(
            has_majorities(living, standing) for standing in standings if standing.order >= established
        )

    def _check_freed(self, peer_id: str, disk: Disk) -> None:
        """S2: what most guardians keep is what decides which copies go."""
        held = _held_on(disk)
        for key, index in sorted(self._held.get(peer_id, set()) - held, key=str):
            established = self.ledgers[key].established
            manifest = self._manifests.get((key, established.manifest))
            if manifest is None or manifest.removed or (key in self._retired and not self._is_wanted(key)):
                continue
            # A step of its owner's gives it the copy again: the one that was made for that lies on this disk.
            pending = any(
                holding.digest == manifest.digests[index]
                and str(holding.group).startswith(f"put {manifest.owner}.")
                for holding in disk.holdings.values()
            )
            if peer_id in manifest.copies[index] and not pending:
                raise self._broken(f"S2: {peer_id} frees {key}/{index}, which {manifest} gives it")

    def _is_wanted(self, key: Key) -> bool:
        return any(version.wanted and version.key == key for version in self.versions)

    def _copies(self, version: Version, *, named: bool = False) -> int:
        """Return how many intact copies there are of the partition that has fewest; of those that stay, if `named`."""
        newest = self._manifests.get((version.key, self.ledgers[version.key].established.manifest))
        return min(
            sum(
                disk.has_copy(version.key, index, digest)
                for peer_id, disk in self._disks.items()
                if not named or newest is None or peer_id in newest.copies[index]
            )
            for index, digest in enumerate(version.digests)
        )

    def _check_copies(self, version: Version) -> None:
        """S2: what was promised outlives as many losses as it was to, at every moment."""
        if version.wanted and self._copies(version) + version.losses <= version.survive:
            raise self._broken(
                f"S2: {version} has {self._copies(version)} copies of a partition, after {version.losses} losses"
            )


def _held_on(disk: Disk) -> set[tuple[Key, int]]:
    return {(group, index) for group, index in disk.holdings if isinstance(group, Key)}


def _ends(later: Claim, claim: Claim) -> bool:
    """Whether a claim, made by anybody, takes the place of a version, or removes it."""
    if (later.first_owner, later.version) == (claim.first_owner, claim.version):
        return later.removed
    return later.replaces(claim)


def _fits(usage: Usage) -> bool:
    return usage.used_bytes + usage.reserved_bytes <= usage.pledged_bytes


def names_of(node: StoreNode) -> Mapping[str, tuple[int, str, int, int]]:
    """Return what names mean to a node."""
    return {
        name: (claim.version, claim.owner, claim.epoch, claim.seq) for name, claim in node.directory.entries()
    }

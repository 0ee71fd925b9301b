"""Manifests kept, told and established, as node/manifests.py and establishing.py do it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sedmad.core.membership import Claim, Directory, SignedRecord, short_id
from sedmad.core.ownership import is_majority
from sedmad.errors import MatrixNotFound, NotEnoughPeers, NotPermitted, SedmadError, StaleManifest
from sedmad.testing.store.disk import Kept, Key, Manifest
from sedmad.testing.tasks import Places

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

TELL_TIMEOUT_S = 4.0
NAMES_TOLD_MAX = 8
Transaction = Callable[[], None]


class Manifests:
    """The manifests of one life; its disk has no others."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._disk = node.disk
        self._kept = dict(node.disk.kept)
        self.writing: defaultdict[Key, Places] = defaultdict(lambda: Places(node.tasks))
        node.calls.handlers |= {"store_manifest": self.store_manifest, "get_manifest": self.get_manifest}

    def kept(self) -> list[Manifest]:
        return [kept.manifest for kept in self._kept.values()]

    def get(self, key: Key) -> Kept | None:
        return self._kept.get(key)

    async def keep(
        self, manifest: Manifest, *, put_id: str = "", also: Transaction | None = None, established: bool
    ) -> Kept:
        """Put a manifest on disk, with `also` and what it changes about the copies here."""
        self._require_descent(manifest, established)

        def write_down() -> None:
            self._disk.keep(manifest, established=established)
            if also is not None:
                also()
            self._node.watch.stored(self._node.peer_id, manifest, established)

        await self._node.holding.apply(manifest, put_id, established, write_down)
        kept = self._note(Kept(manifest, established))
        self._node.on_kept(manifest)
        return kept

    async def establish(self, manifest: Manifest) -> None:
        kept = self._kept.get(manifest.key)
        if kept is not None and kept.manifest.order == manifest.order and not kept.established:
            await self.keep(kept.manifest, established=True)

    async def store_manifest(
        self, sender: str, manifest: Manifest, put_id: str, claim: SignedRecord | None, established: bool
    ) -> list[SignedRecord]:
        """Keep a manifest that its owner tells; answer with the names that the matrix has, as far as known here."""
        if manifest.owner != sender:
            raise NotPermitted("only its owner tells a manifest")
        also = None if claim is None else lambda: self._node.keeping.keep(claim)
        await self.keep(manifest, put_id=put_id, also=also, established=established)
        if claim is not None:
            self._node.keeping.hear(sender, claim)
        return [] if established else names_of(self._node.directory, manifest.key)

    async def get_manifest(self, _peer_id: str, key: Key) -> Kept:
        if kept := self._kept.get(key):
            return kept
        if buried := self._disk.tombstones.get(key):
            return Kept(buried, True)
        raise MatrixNotFound("this node does not keep that manifest")

    def _require_descent(self, manifest: Manifest, established: bool) -> None:
        kept = self._kept.get(manifest.key)
        if kept is None or kept.manifest.removed or kept.manifest.owner == manifest.owner:
            return
        if established and not kept.established:
            return
        links = kept.manifest.successions
        anew = established and manifest.begun_in > kept.manifest.epoch
        if manifest.order > kept.manifest.order and manifest.successions[: len(links)] != links and not anew:
            raise StaleManifest("a manifest does not follow the one that is kept")

    def _note(self, new: Kept) -> Kept:
        key, before = new.manifest.key, self._kept.get(new.manifest.key)
        if before is not None and before.manifest.order == new.manifest.order and before.established:
            new = before
        if new.manifest.removed and new.established:
            self._kept.pop(key, None)
        else:
            self._kept[key] = new
        return new


class Establishing:
    """Tells manifests of this node's own, and establishes them."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node

    def may_plan(self, manifest: Manifest) -> bool:
        if manifest.owner != self._node.peer_id:
            return False
        alive = [peer for peer in manifest.guardians if self._node.state_of(peer) != "dead"]
        return is_majority(alive, manifest.guardians)

    async def establish(
        self,
        manifest: Manifest,
        *,
        put_id: str = "",
        needed: frozenset[str] = frozenset(),
        also: Transaction | None = None,
        back_to: Kept | None = None,
    ) -> Manifest:
        """Write a changed manifest, have it kept by whom it takes, then let it free bytes; the caller is `writing`."""
        before = self._node.manifests.get(manifest.key)
        if before is not None:
            manifest = with_guardians_before(manifest, before)
            manifest = replace(manifest, copies_established=adds_no_copy(manifest, back_to or before))
        kept = await self._node.manifests.keep(
            manifest.written(), put_id=put_id, also=also, established=False
        )
        await self.make_safe(kept, put_id=put_id, needed=needed)
        beside = self._others(before.manifest) if before else frozenset()
        await self.finish(kept, beside=beside)
        return kept.manifest

    async def make_safe(self, kept: Kept, *, put_id: str = "", needed: frozenset[str] = frozenset()) -> None:
        keeping, known = self._others(kept.manifest), names_of(self._node.directory, kept.manifest.key)
        for claim in self._names_to_tell(kept.manifest) or [None]:
            keeping = await self.tell(kept, keeping, put_id=put_id, committing=needed, claim=claim)
        keeping.add(self._node.peer_id)
        if not self.is_safe(kept.manifest, keeping, needed):
            raise NotEnoughPeers(f"only {' '.join(sorted(keeping))} keep {kept.manifest}")
        names = names_of(self._node.directory, kept.manifest.key)
        if names and kept.manifest.removed:
            raise StaleManifest(f"{kept.manifest} has a name")
        if names != known:
            await self._node.write(
                lambda: self._node.disk.records.update({name.locator: name for name in names})
            )

    @staticmethod
    def is_safe(manifest: Manifest, keeping: Collection[str], needed: frozenset[str]) -> bool:
        guardians = [group for group in (manifest.guardians, manifest.guardians_before) if group]
        return needed <= set(keeping) and all(is_majority(keeping, group) for group in guardians)

    async def finish(
        self, kept: Kept, *, beside: Iterable[str] = (), claim: SignedRecord | None = None
    ) -> set[str]:
        """Note that a manifest is established, here and elsewhere; return the peers that know it."""
        manifest = kept.manifest
        await self._node.manifests.establish(manifest)
        if not manifest.removed:
            for named in self._node.directory.naming(manifest.key.digest, manifest.key.first_owner):
                if (named.epoch, named.seq) < manifest.order:
                    self._node.keeping.publish(claim_for(named, manifest, self._node.wall_time_s()))
        others = self._others(manifest) | (set(beside) - {self._node.peer_id})
        return await self.tell(kept, others, claim=claim, established=True)

    async def tell(
        self,
        kept: Kept,
        peers: Iterable[str],
        *,
        put_id: str = "",
        committing: frozenset[str] = frozenset(),
        claim: SignedRecord | None = None,
        established: bool = False,
    ) -> set[str]:
        """Give a manifest to peers at once; return those that have it on disk."""
        keeping: set[str] = set()

        async def tell_one(peer: str) -> None:
            put = put_id if peer in committing else ""
            arguments: tuple[Any, ...] = (kept.manifest, put, claim, established)
            try:
                names = await self._node.calls.call(
                    peer, "store_manifest", *arguments, timeout_s=TELL_TIMEOUT_S
                )
            except SedmadError as error:
                if isinstance(error, StaleManifest):
                    self._node.owning.on_refused(kept.manifest.key)
                    self._node.reconciling.want(peer, kept.manifest.key)
            else:
                keeping.add(peer)
                for name in names:
                    self._node.keeping.hear(peer, name)

        alive = [peer for peer in sorted(peers) if self._node.state_of(peer) != "dead"]
        await self._node.tasks.gather(map(tell_one, alive))
        return keeping

    def _names_to_tell(self, manifest: Manifest) -> list[SignedRecord | None]:
        return [*names_of(self._node.directory, manifest.key)] if manifest.guardians_before else []

    def _others(self, manifest: Manifest) -> set[str]:
        return set(manifest.concerned) - {self._node.peer_id}


def names_of(directory: Directory, key: Key) -> list[SignedRecord]:
    """Return the signed claims by which a matrix is reachable, not all where there are many."""
    claims = directory.naming(key.digest, key.first_owner)[:NAMES_TOLD_MAX]
    records = [directory.find(claim.name, key.first_owner) for claim in claims]
    return [record for record in records if record is not None]


def with_guardians_before(manifest: Manifest, before: Kept) -> Manifest:
    """Return a manifest that names whose agreement it needs beside its own guardians'; these change one by one."""
    if not before.established:
        return replace(
            manifest,
            guardians=before.manifest.guardians,
            guardians_before=before.manifest.guardians_before,
        )
    changed = set(manifest.guardians) != set(before.manifest.guardians)
    return replace(manifest, guardians_before=before.manifest.guardians if changed else ())


def adds_no_copy(manifest: Manifest, before: Kept) -> bool:
    """Whether the last established manifest names all copies of one that follows `before`."""
    return (before.established or before.manifest.copies_established) and all(
        after.keys() <= copies.keys()
        for after, copies in zip(manifest.copies, before.manifest.copies, strict=True)
    )


def claim_for(claim: Claim, manifest: Manifest, wall_time_s: float) -> Claim:
    """Return a name's claim as the owner of a newer manifest of its matrix makes it."""
    return replace(
        claim,
        owner=manifest.owner,
        epoch=manifest.epoch,
        seq=manifest.seq,
        guardians=tuple(short_id(peer) for peer in manifest.guardians),
        wall_time_s=wall_time_s,
    )

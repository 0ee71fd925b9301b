"""Which blobs this node needs: for copies, and for transfers under way. What nothing needs is deleted by and by."""

from __future__ import annotations

from collections import Counter

import trio

from sedmad.node.residents import Residents
from sedmad.store.blobs import BlobStore
from sedmad.store.holdings import Holding, Kind


class BlobUses:
    """Counts the uses of each blob.

    Attributes:
        lock: around every step that relies on a blob being there, or on which copies there are.
    """

    def __init__(self, blobs: BlobStore, residents: Residents) -> None:
        self._blobs = blobs
        self._residents = residents
        self.lock = trio.Lock()
        # All three are bounded by the blobs on disk and the transfers under way.
        self._uses: Counter[bytes] = Counter()
        self._resident_uses: Counter[bytes] = Counter()
        self._unneeded: set[bytes] = set()
        self._changed = trio.Event()

    def needed(self, digest: bytes) -> bool:
        """Whether anything uses a blob."""
        return digest in self._uses

    def needed_resident(self, digest: bytes) -> bool:
        """Whether a resident copy uses a blob."""
        return digest in self._resident_uses

    def add(self, digest: bytes) -> None:
        """Count a use. The caller holds the lock, or counts another use of the same blob already."""
        self._uses[digest] += 1

    def remove(self, digest: bytes) -> None:
        """Count a use less; the last one lets the blob go."""
        if _count_down(self._uses, digest):
            self._unneeded.add(digest)
            self._changed.set()

    def add_copy(self, holding: Holding) -> None:
        """Count a copy; see `add`."""
        self.add(holding.digest)
        if holding.kind is Kind.RESIDENT:
            self._resident_uses[holding.digest] += 1

    def remove_copy(self, holding: Holding) -> None:
        """Count a copy less; with the last resident one its memory is free."""
        if holding.kind is Kind.RESIDENT and _count_down(self._resident_uses, holding.digest):
            self._residents.drop(holding.digest)
        self.remove(holding.digest)

    async def delete_unneeded(self) -> None:
        """Delete blobs that lost their last use, until cancelled."""
        while True:
            await self._changed.wait()
            self._changed = trio.Event()
            while self._unneeded:
                async with self.lock:
                    await self._delete(self._unneeded.pop())

    async def delete_unknown(self) -> None:
        """Delete every blob on disk that nothing uses: what a crash left."""
        async with self.lock:
            for digest in self._blobs.digests():
                await self._delete(digest)

    async def _delete(self, digest: bytes) -> None:
        if not self.needed(digest):
            self._residents.forget(digest)
            await self._blobs.delete(digest)


def _count_down(counts: Counter[bytes], digest: bytes) -> bool:
    """Return whether the count came to nothing."""
    counts[digest] -= 1
    if counts[digest]:
        return False
    del counts[digest]
    return True

"""Finding what two nodes do not have in common, without telling each other all they know.

Every record has a key (its place) and a stamp (its content). Keys fall into buckets; a bucket's digest is the
XOR of its items. Two nodes compare digests, then the items of buckets that differ, and exchange only the
records that differ.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection

from sedmad.core.membership.messages import Digests, Inventory
from sedmad.core.membership.record import Locator, SignedRecord, locator_key

FINEST_BUCKETS = 256  # at 65,536 names 256 items, or 4 KiB of inventory, per differing bucket
COARSEST_BUCKETS = 16
ITEMS_PER_BUCKET = 16  # what digests are tuned to while there are few records
MAX_INVENTORY_ITEMS = 1024  # 16 KiB in one message; further buckets wait for the next round
MAX_WANTED = 1024


class RecordIndex:
    """Keys and stamps of everything a node tells others about, in buckets.

    Two records whose 64-bit keys collide hide each other from repair, not from gossip: at 65,536 records the
    odds are one in ten billion.
    """

    def __init__(self) -> None:
        self._buckets: list[dict[int, tuple[int, Locator]]] = [{} for _ in range(FINEST_BUCKETS)]
        self._digests = [0] * FINEST_BUCKETS
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, signed: SignedRecord) -> None:
        """Index a record in place of the one at the same locator."""
        locator, stamp = signed.locator, signed.stamp
        key = locator_key(locator)
        self._remove(key)
        bucket = key % FINEST_BUCKETS
        self._buckets[bucket][key] = (stamp, locator)
        self._digests[bucket] ^= _mix(key, stamp)
        self._count += 1

    def drop(self, locator: Locator) -> None:
        """Forget what is at a locator, if anything."""
        self._remove(locator_key(locator))

    def locate(self, key: int) -> Locator | None:
        item = self._buckets[key % FINEST_BUCKETS].get(key)
        return item[1] if item else None

    def digests(self, bucket_count: int | None = None) -> Digests:
        """Return the digests over `bucket_count` buckets (a power of two); by default their number suits."""
        count = bucket_count or self._suitable_count()
        folded = [0] * count
        for bucket, digest in enumerate(self._digests):
            folded[bucket % count] ^= digest
        return Digests(tuple(folded))

    def differing(self, theirs: Digests, rng: random.Random) -> Inventory | None:
        """Return what this node has in the differing buckets; None if there is none.

        At most MAX_INVENTORY_ITEMS are listed. Buckets are taken in random order, so that rounds which cannot
        list all of them make progress on different ones.
        """
        count = len(theirs.values)
        if count not in _BUCKET_COUNTS:
            return None
        ours = self.digests(count).values
        differing = [bucket for bucket in range(count) if ours[bucket] != theirs.values[bucket]]
        rng.shuffle(differing)
        listed: list[int] = []
        items: list[tuple[int, int]] = []
        for bucket in differing:
            content = self._items(count, bucket)
            if listed and len(items) + len(content) > MAX_INVENTORY_ITEMS:
                break
            listed.append(bucket)
            items.extend(content.items())
        return Inventory(count, tuple(listed), tuple(items[:MAX_INVENTORY_ITEMS])) if listed else None

    def compare(self, theirs: Inventory) -> tuple[list[Locator], list[int]]:
        """Return (locators of records that the other side lacks or has differently, keys that it is to send).

        Where both have a record and the stamps differ, both send: whoever has the older one learns.
        """
        if theirs.bucket_count not in _BUCKET_COUNTS:
            return [], []
        listed = set(theirs.buckets)
        their_items = dict(theirs.items)
        our_items: dict[int, int] = {}
        for bucket in sorted(listed):
            if 0 <= bucket < theirs.bucket_count:
                our_items.update(self._items(theirs.bucket_count, bucket))
        offered = [key for key, stamp in our_items.items() if their_items.get(key) != stamp]
        wanted = [
            key
            for key, stamp in theirs.items
            if key % theirs.bucket_count in listed and our_items.get(key) != stamp
        ]
        return self._locate_all(offered), wanted[:MAX_WANTED]

    def _locate_all(self, keys: Collection[int]) -> list[Locator]:
        return [locator for locator in map(self.locate, keys) if locator is not None]

    def _items(self, bucket_count: int, bucket: int) -> dict[int, int]:
        """Return key -> stamp of one of `bucket_count` buckets."""
        return {
            key: stamp
            for finest in range(bucket, FINEST_BUCKETS, bucket_count)
            for key, (stamp, _) in self._buckets[finest].items()
        }

    def _suitable_count(self) -> int:
        count = COARSEST_BUCKETS
        while count < FINEST_BUCKETS and count * ITEMS_PER_BUCKET < self._count:
            count *= 2
        return count

    def _remove(self, key: int) -> None:
        bucket = key % FINEST_BUCKETS
        item = self._buckets[bucket].pop(key, None)
        if item is not None:
            self._digests[bucket] ^= _mix(key, item[0])
            self._count -= 1


_BUCKET_COUNTS = frozenset({16, 32, 64, 128, 256})


def _mix(key: int, stamp: int) -> int:
    """Hash an item for the XOR; keys and stamps alone would cancel out where two records swap stamps."""
    content = key.to_bytes(8, "big") + stamp.to_bytes(8, "big")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")

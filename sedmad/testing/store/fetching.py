"""Bytes of partitions, given and taken between nodes; digests are checked at both ends, as node/fetching.py does."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from sedmad.errors import BytesCorrupt, HoldersUnreachable, MatrixNotFound, SedmadError

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

TRANSFER_S = (0.02, 0.6)
FETCH_TIMEOUT_S = 5.0


class Fetching:
    """Gives and takes the bytes on a node's disk."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._disk = node.disk
        node.calls.handlers["fetch"] = self.fetch

    async def fetch(self, _peer_id: str, digest: str) -> str:
        await self._node.tasks.sleep(self._node.rng.uniform(*TRANSFER_S))
        return self.read(digest)

    def read(self, digest: str) -> str:
        """Return bytes whose digest was checked."""
        content = self._disk.blobs.get(digest)
        if content is None:
            raise MatrixNotFound(f"{digest} is not here")
        if content != digest:
            self._disk.drop_bytes(digest)
            self._node.healing.on_corrupt(digest)
            raise BytesCorrupt(f"{digest} has changed")
        return content

    async def fetch_from(self, digest: str, sources: Collection[str]) -> None:
        """Have bytes here, from the first source that gives them."""
        if digest in self._disk.blobs:
            return
        for source in sources:
            if source == self._node.peer_id:
                continue
            try:
                content = await self._node.calls.call(source, "fetch", digest, timeout_s=FETCH_TIMEOUT_S)
            except SedmadError:
                continue
            if content == digest:
                await self._node.write(lambda: self._disk.put_bytes(digest, digest))
                return
        raise HoldersUnreachable(f"nobody gave {digest}")

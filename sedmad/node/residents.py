"""Partitions that are mapped and programmed on this node, ready to be multiplied with."""

from __future__ import annotations

import numpy as np
import trio

from crossbar.engine import Engine, ProgrammedPartition
from sedmad.errors import BytesCorrupt
from sedmad.store.blobs import BlobStore

# Standby copies that answered lately stay mapped: mapping costs 50 us, and the pages are the kernel's to keep or drop.
STANDBY_MAPPED_MAX = 256
SELF_TEST_SEED = 20260109


class Residents:
    """Programmed partitions by digest; matrices that share bytes share them."""

    def __init__(self, blobs: BlobStore, engine: Engine) -> None:
        self._blobs = blobs
        self._engine = engine
        self._resident: dict[bytes, ProgrammedPartition] = {}
        self._standby: dict[bytes, ProgrammedPartition] = {}

    async def program(self, digest: bytes, rows: int, columns: int, dtype: str) -> None:
        """Map, check, populate and program a partition, and test what came out.

        Raises:
            BytesCorrupt: the stored bytes changed, or the engine fails its own test.
        """
        if digest in self._resident:
            return
        with await self._blobs.open(digest) as blob:
            await blob.populate()
            programmed = self._program(blob.view, rows, columns, dtype)
        test = await trio.to_thread.run_sync(programmed.self_test, np.random.default_rng(SELF_TEST_SEED))
        if not test.passed:
            raise BytesCorrupt(
                "a partition failed its self-test",
                why=f"error {test.measured:.3g}, allowed {test.allowed:.3g}",
            )
        self._resident[digest] = programmed
        self._standby.pop(digest, None)

    def drop(self, digest: bytes) -> None:
        """Let go of a partition; products under way keep theirs."""
        self._resident.pop(digest, None)
        self._standby.pop(digest, None)

    async def get(self, digest: bytes, rows: int, columns: int, dtype: str) -> ProgrammedPartition:
        """Return a partition to multiply with; a standby copy answers through the page cache."""
        found = self._resident.get(digest) or self._standby.get(digest)
        if found is not None:
            return found
        with await self._blobs.open(digest) as blob:
            programmed = self._program(blob.view, rows, columns, dtype)
        self._standby[digest] = programmed
        if len(self._standby) > STANDBY_MAPPED_MAX:
            del self._standby[next(iter(self._standby))]
        return programmed

    def _program(self, view: memoryview, rows: int, columns: int, dtype: str) -> ProgrammedPartition:
        weights = np.frombuffer(view, np.dtype(dtype).newbyteorder("<")).reshape(rows, columns)
        return self._engine.program(weights)

"""Partitions that are mapped and programmed on this node, ready to be multiplied with."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import trio

from crossbar.analog import AnalogPartition
from crossbar.engine import Engine, ProgrammedPartition
from sedmad.core.accuracy import EXACT, Accuracy
from sedmad.errors import BytesCorrupt
from sedmad.node.devices import Devices
from sedmad.node.programming import PartitionKey
from sedmad.store.blobs import BlobStore

# Standby copies that answered lately stay mapped: mapping costs 50 us, and the pages are the kernel's to keep or drop.
STANDBY_MAPPED_MAX = 256
SELF_TEST_SEED = 20260109

# (rows, columns, dtype): the same bytes may be partitions of matrices of other shapes.
Shape = tuple[int, int, str]


class Residents:
    """Programmed partitions by digest and shape; matrices that share bytes share them.

    All of them can be computed with exactly; those of matrices with a target error are on this node's devices as well,
    where it has some.
    """

    def __init__(self, blobs: BlobStore, engine: Engine, devices: Devices | None = None) -> None:
        self._blobs = blobs
        self._engine = engine
        self.devices = devices
        self._resident: dict[bytes, Mapping[Shape, ProgrammedPartition]] = {}
        self._standby: dict[tuple[bytes, Shape], ProgrammedPartition] = {}

    async def program(self, digest: bytes, rows: int, columns: int, dtype: str) -> None:
        """Map, check and program a partition, and test what came out, which brings all of it into memory.

        Raises:
            BytesCorrupt: the stored bytes changed, or the engine fails its own test.
        """
        shape = (rows, columns, dtype)
        if shape in self._resident.get(digest, {}):
            return
        with await self._blobs.open(digest) as blob:
            programmed = self._program(blob.view, shape)
        test = await trio.to_thread.run_sync(programmed.self_test, np.random.default_rng(SELF_TEST_SEED))
        if not test.passed:
            raise BytesCorrupt(
                "a partition failed its self-test",
                why=f"error {test.measured:.3g}, allowed {test.allowed:.3g}",
            )
        self._resident[digest] = {**self._resident.get(digest, {}), shape: programmed}
        self._standby.pop((digest, shape), None)

    async def program_devices(
        self, digest: bytes, rows: int, columns: int, dtype: str, accuracy: Accuracy, *, put: Hashable
    ) -> None:
        """Put a programmed partition of a put on this node's devices, where its accuracy is for them.

        Raises:
            TargetUnreachable: they were demanded, and no plan keeps the target.
        """
        if self.devices is not None:
            await self.devices.program(PartitionKey(digest, rows, columns, dtype, accuracy), put=put)

    def program_devices_soon(
        self, digest: bytes, rows: int, columns: int, dtype: str, accuracy: Accuracy
    ) -> None:
        """Have that done while the partition answers already, exactly."""
        if self.devices is not None:
            self.devices.program_soon(PartitionKey(digest, rows, columns, dtype, accuracy))

    def drop(self, digest: bytes) -> None:
        """Let go of what is programmed of these bytes; products under way keep theirs."""
        self._resident.pop(digest, None)
        if self.devices is not None:
            self.devices.drop(digest)

    def forget(self, digest: bytes) -> None:
        """The blob is about to be deleted, or its bytes are not what they were: keep nothing of it."""
        self.drop(digest)
        for key in [key for key in self._standby if key[0] == digest]:
            del self._standby[key]

    async def get(
        self, digest: bytes, rows: int, columns: int, dtype: str, accuracy: Accuracy = EXACT
    ) -> ProgrammedPartition | AnalogPartition:
        """Return a partition to multiply with; a standby copy answers through the page cache, exactly.

        Raises:
            BytesCorrupt: the stored bytes are gone or changed.
        """
        shape = (rows, columns, dtype)
        found = self._resident.get(digest, {}).get(shape) or self._standby.get((digest, shape))
        if found is not None and self._blobs.unchanged(digest):
            if accuracy.target_error and self.devices is not None:
                return self.devices.get(PartitionKey(digest, *shape, accuracy)) or found
            return found
        # Nobody has looked at it since this node started, or somebody wrote to it.
        try:
            with await self._blobs.open(digest) as blob:
                programmed = self._program(blob.view, shape)
        except BytesCorrupt:
            self.forget(digest)
            raise
        if shape in self._resident.get(digest, {}):
            self._resident[digest] = {**self._resident[digest], shape: programmed}
            return programmed
        self._standby[digest, shape] = programmed
        if len(self._standby) > STANDBY_MAPPED_MAX:
            del self._standby[next(iter(self._standby))]
        return programmed

    def _program(self, view: memoryview, shape: Shape) -> ProgrammedPartition:
        rows, columns, dtype = shape
        weights = np.frombuffer(view, np.dtype(dtype).newbyteorder("<")).reshape(rows, columns)
        return self._engine.program(weights)

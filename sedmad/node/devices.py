"""The simulated crossbars of this node: which partitions are programmed on them, and what they take.

Arithmetic is exact until a partition is programmed, and where no plan keeps its target: exact results meet any target,
so a product never waits for devices. Programming again makes the new state first and lets the old one go then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import structlog
import trio

from crossbar.analog import AnalogPartition
from crossbar.devices import DeviceProfile
from crossbar.errors import CrossbarError
from crossbar.planning.replanning import needs_replanning
from sedmad.core.accuracy import Accuracy
from sedmad.core.capacity import CapacityLedger
from sedmad.core.cells import CellLedger
from sedmad.errors import BytesCorrupt, SedmadError, TargetUnreachable
from sedmad.node.clock import wall_time_s
from sedmad.node.kernels import Kernels
from sedmad.node.long_thread import in_long_thread
from sedmad.node.programming import (
    PartitionKey,
    Programmed,
    Weights,
    from_row,
    is_current,
    program,
    realised,
    seed_of,
    simulated_age_s,
    to_row,
)
from sedmad.store import programmed as programmed_table
from sedmad.store.blobs import BlobStore
from sedmad.store.database import Database
from sedmad.store.programmed import ProgrammedRow

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

log = structlog.get_logger("sedmad.devices")

# Programming takes up to three times the partition for a moment, and a core that products want.
PROGRAMMING_MAX = 1
# How often ages are looked at: drift laws begin at a minute.
LOOK_S = 60.0


class Devices:
    """Programs partitions; a node without devices computes all of them exactly, and this does nothing.

    Args:
        profile: of this node's arrays.
        cells: of them.
        ledger: memory that simulated state takes is counted there.
        kernels: what simulates.

    Attributes:
        changed: called when what is counted has changed.
        needed: whether a resident copy here, or a put under way, asks for what is programmed.
    """

    def __init__(
        self,
        *,
        own_peer_id: str,
        profile: DeviceProfile,
        cells: CellLedger,
        ledger: CapacityLedger,
        database: Database,
        blobs: BlobStore,
        kernels: Kernels,
    ) -> None:
        self._own_peer_id = own_peer_id
        self.profile = profile
        self.cells = cells
        self._ledger = ledger
        self._database = database
        self._blobs = blobs
        self._kernels = kernels
        self.changed: Callable[[], None] = lambda: None
        self.needed: Callable[[PartitionKey], bool] = lambda key: True
        # Both are bounded by the resident copies of this node; a key stays wanted from when it is asked for until its
        # bytes are let go.
        self._wanted: set[PartitionKey] = set()
        self._programmed: dict[PartitionKey, Programmed] = {}
        self._generations: dict[PartitionKey, int] = {}
        self._rows: dict[PartitionKey, ProgrammedRow] = {}
        self._turn = trio.CapacityLimiter(PROGRAMMING_MAX)
        self._soon: dict[PartitionKey, None] = {}
        self._wake = trio.Event()
        self._forgotten: set[bytes] = set()
        self._unneeded: set[PartitionKey] = set()
        self._compile_soon = False

    @property
    def compiling(self) -> bool:
        """Whether the first partition has to wait for kernels."""
        return not self._kernels.ready

    @property
    def memory_bytes(self) -> int:
        """What simulates all that is programmed."""
        return sum(programmed.memory_bytes for programmed in self._programmed.values())

    def compute(self, accuracy: Accuracy) -> bool:
        """Return whether products of that accuracy are for devices here."""
        return (
            not self.profile.is_ideal
            and accuracy.target_error > 0
            and accuracy.profile in ("", self.profile.name)
        )

    def get(self, key: PartitionKey) -> AnalogPartition | None:
        """Return what to multiply with, or None where arithmetic is exact."""
        found = self._programmed.get(key)
        return None if found is None else found.partition

    def state(self, key: PartitionKey) -> Programmed | None:
        """Return how a partition was programmed; None where it was not, or not yet."""
        return self._programmed.get(key)

    async def load(self) -> None:
        """Read what was programmed when this node ran last."""
        for row in await self._database.read(programmed_table.load):
            accuracy = Accuracy(row.target_error, row.demanded)
            self._rows[PartitionKey(row.digest, row.rows, row.columns, row.dtype, accuracy)] = row

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Program what nobody waits for, and again what has aged, until cancelled."""
        task_status.started()
        if self.profile.is_ideal:
            return
        while True:
            with trio.move_on_after(LOOK_S) as looking:
                await self._wake.wait()
            self._wake = trio.Event()
            await self._forget_rows()
            if self._compile_soon:
                self._compile_soon = False
                await self._try_to_prepare()
            if looking.cancelled_caught:
                self.drop_unneeded()
                await self.look_at_ages()
            while self._soon:
                key = next(iter(self._soon))
                del self._soon[key]
                await self._try_to_program(key)

    def program_soon(self, key: PartitionKey) -> None:
        """Have a partition programmed that nobody waits for: answers are exact until then."""
        if self.compute(key.accuracy) and key not in self._programmed:
            self._wanted.add(key)
            self._soon[key] = None
            self._wake.set()

    def prepare_soon(self) -> None:
        """Have kernels compiled while bytes are still on their way."""
        self._compile_soon = self.compiling
        self._wake.set()

    async def program(self, key: PartitionKey, *, put: Hashable = None) -> None:
        """Program a partition whose bytes are here, within the cells that are free or set aside for a put.

        Raises:
            TargetUnreachable: its profile was demanded, and no plan keeps its target.
            BytesCorrupt: its bytes are gone or changed.
        """
        if not self.compute(key.accuracy):
            return
        self._wanted.add(key)
        async with self._turn:
            if key in self._programmed or key not in self._wanted:
                return
            weights = await self._weights(key)
            try:
                await self._kernels.prepare()
            except CrossbarError as error:
                self._without_kernels(key, error)
                return
            await self._program(key, weights, put)

    async def look_at_ages(self) -> None:
        """Program again what has aged beyond its plan, and simulate the others at their age."""
        for key, before in list(self._programmed.items()):
            if before.planned is None or before.partition is None:
                continue
            age_s = self.age_s(before)
            reasons = needs_replanning(before.planned, seconds=age_s)
            if not reasons and simulated_age_s(age_s) == before.simulated_age_s:
                continue
            async with self._turn:
                if self._programmed.get(key) is not before:
                    continue
                weights = await self._weights(key)
                if reasons:
                    log.info("programming_again", digest=key.digest.hex()[:16], why="; ".join(reasons))
                    await self._program(key, weights, None, generation=self._generations.get(key, 0) + 1)
                elif before.planned.drifts:
                    aged = await in_long_thread(
                        partial(realised, weights, self.profile, before, simulated_age_s(age_s))
                    )
                    self._take(key, aged, None)

    def age_s(self, programmed: Programmed) -> float:
        """Return for how long devices have been programmed; 0 if the clock went back since."""
        return max(0.0, wall_time_s() - programmed.programmed_at_s)

    def drop(self, digest: bytes) -> None:
        """Let go of what is programmed of these bytes; products under way keep theirs."""
        self._drop([key for key in self._wanted if key.digest == digest])

    def drop_unneeded(self) -> None:
        """Let go of what nothing needed at the last look either: its bytes are here for another accuracy alone."""
        unneeded = {key for key in self._wanted if not self.needed(key)}
        self._drop(unneeded & self._unneeded)
        self._unneeded = unneeded & self._wanted

    def _drop(self, dropped: Collection[PartitionKey]) -> None:
        for key in dropped:
            self._wanted.discard(key)
            self._soon.pop(key, None)
            self._generations.pop(key, None)
            self._rows.pop(key, None)
            if self._programmed.pop(key, None) is not None:
                self._uncount(key)
        if dropped:
            self._forgotten.update(key.digest for key in dropped)
            self._wake.set()
            self.changed()

    async def _try_to_prepare(self) -> None:
        try:
            await self._kernels.prepare()
        except CrossbarError as error:
            # Said again, to whom it matters, when a partition is programmed.
            log.error("kernels_unavailable", why=str(error))

    async def _try_to_program(self, key: PartitionKey) -> None:
        try:
            await self.program(key)
        except (SedmadError, OSError) as error:
            # Its answers stay exact.
            log.warning("not_programmed", digest=key.digest.hex()[:16], why=str(error))

    async def _program(
        self, key: PartitionKey, weights: Weights, put: Hashable, *, generation: int = 0
    ) -> None:
        made = None if generation else await self._as_before(key, weights)
        if made is None:
            held = self._programmed.get(key)
            made = await in_long_thread(
                partial(
                    program,
                    weights,
                    key,
                    self.profile,
                    seed=seed_of(key, self._own_peer_id, generation),
                    now_s=wall_time_s(),
                    cells_max=self.cells.available_to(put) + (held.cells if held else 0),
                    memory_max_bytes=self._ledger.memory.available_bytes + (held.memory_bytes if held else 0),
                )
            )
            row = to_row(key, self.profile, made, generation)
            await self._database.write(partial(programmed_table.keep, row=row), durable=False)
            self._rows[key] = row
            self._generations[key] = generation
        if key not in self._wanted:
            return
        self._take(key, made, put)
        log.info(
            "programmed",
            digest=key.digest.hex()[:16],
            profile=self.profile.name,
            cells=made.cells,
            target=key.accuracy.target_error,
            measured=made.planned.error if made.planned else 0.0,
            digital=made.digital_because,
        )

    async def _as_before(self, key: PartitionKey, weights: Weights) -> Programmed | None:
        """Return the devices that the partition had when this node ran last; None if they are to be made anew."""
        row = self._rows.get(key)
        if row is None:
            return None
        if not is_current(row, self.profile):
            log.info("planned_anew", digest=key.digest.hex()[:16], engine_version=row.engine_version)
            return None
        try:
            before, self._generations[key] = from_row(row)
        except (ValueError, KeyError, TypeError, CrossbarError) as error:
            log.error("programmed_row_damaged", digest=key.digest.hex()[:16], why=repr(error))
            return None
        age_s = self.age_s(before)
        if before.planned is not None and needs_replanning(before.planned, seconds=age_s):
            log.info("planned_anew", digest=key.digest.hex()[:16], age_s=age_s)
            return None
        return await in_long_thread(partial(realised, weights, self.profile, before, simulated_age_s(age_s)))

    def _without_kernels(self, key: PartitionKey, error: CrossbarError) -> None:
        log.error("kernels_unavailable", why=str(error))
        if key.accuracy.profile:
            raise TargetUnreachable(
                f"the devices of {self.profile.name} cannot be simulated here",
                why=f"{error.what}: {error.why}",
                hint=error.hint,
                node=self._own_peer_id,
            )
        self._programmed[key] = Programmed(None, 0, wall_time_s(), digital_because=error.what)

    async def _weights(self, key: PartitionKey) -> Weights:
        with await self._blobs.open(key.digest) as blob:
            weights = np.frombuffer(blob.view, np.dtype(key.dtype).newbyteorder("<"))
        if weights.size != key.rows * key.columns:
            raise BytesCorrupt("a partition has another shape than was said", node=self._own_peer_id)
        return weights.reshape(key.rows, key.columns)

    def _take(self, key: PartitionKey, made: Programmed, put: Hashable) -> None:
        if key in self._programmed:
            self._uncount(key)
        self._programmed[key] = made
        self.cells.take(key, made.cells, put=put)
        if made.memory_bytes:
            self._ledger.adopt(("programmed", key), memory_bytes=made.memory_bytes)
        self.changed()

    def _uncount(self, key: PartitionKey) -> None:
        self.cells.free(key)
        if ("programmed", key) in self._ledger:
            self._ledger.release(("programmed", key))

    async def _forget_rows(self) -> None:
        digests, self._forgotten = self._forgotten, set()
        digests -= {key.digest for key in self._wanted}

        def forget(connection: object) -> None:
            for digest in digests:
                programmed_table.forget(connection, digest)  # type: ignore[arg-type]

        if digests:
            await self._database.write(forget, durable=False)

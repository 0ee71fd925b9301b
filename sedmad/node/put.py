"""One put under way, at its owner: what it stores, where its copies go, how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import trio

from sedmad.core.accuracy import EXACT, Accuracy
from sedmad.core.device_needs import NO_DEVICES, DeviceNeeds
from sedmad.core.membership.claim import Claim
from sedmad.core.partitioning import Partitioning
from sedmad.core.placement import Placement
from sedmad.errors import DiskFull
from sedmad.store.holdings import Kind


@dataclass(slots=True)
class Put:
    """A matrix on its way in.

    Attributes:
        put_id: what its copies are called until they are a matrix's.
        replace: whether it may take a name that is taken.
        scale: of its rows, as its manifest will have it.
        accuracy: asked of its products; `devices` what that takes of nodes.
        compiling: peer ids of holders that compile kernels before they can program.
        replaced: its owner's earlier claim to the name.
        safe_bytes: of all copies, those that are on disk where they belong.
        committed: whether its copies are a matrix's now.
        changed: set when there is progress to tell.
    """

    put_id: bytes
    name: str
    partitioning: Partitioning
    dtype: str
    survive: int
    replace: bool
    placement: Placement
    scale: bytes = b""
    accuracy: Accuracy = EXACT
    devices: DeviceNeeds = NO_DEVICES
    replaced: Claim | None = None
    safe_bytes: int = 0
    received_bytes: int = 0
    committed: bool = False
    compiling: set[str] = field(default_factory=set)
    changed: trio.Event = field(default_factory=trio.Event)

    @property
    def total_copy_bytes(self) -> int:
        return (self.survive + 1) * self.partitioning.total_bytes

    @property
    def holders(self) -> frozenset[str]:
        return frozenset(self.placement.needs())

    def copies_of(self, index: int) -> dict[str, Kind]:
        """Return the kind of each holder's copy, the resident one first."""
        partition = self.placement.partitions[index]
        return {partition.resident: Kind.RESIDENT} | dict.fromkeys(partition.standbys, Kind.STANDBY)


@contextmanager
def disk_of(node: str, matrix: str) -> Iterator[None]:
    """Around what a node writes of a matrix that is being stored: that its disk is full is told with both names."""
    try:
        yield
    except DiskFull as error:
        if error.matrix:
            raise
        why = f"{node}: {error.what}: {error.why}"
        raise DiskFull(f"{matrix} was not stored", why=why, node=node, matrix=matrix) from error

"""One joined product under way: asked of holders, asked again where an answer is late or lost, complete or failed.

Partitions are asked for in groups by holder. The first answer for a partition counts; a holder is asked for it once in
each round, and rounds go on until the deadline while somebody who has it may come back.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import structlog

from sedmad.net.sessions import Sessions
from sedmad.node.manifest import Manifest, key_to_wire
from sedmad.node.multiplying import MULTIPLY, MultiplyingService, result_shape
from sedmad.node.panels import Panel, as_bytes, empty_panel
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.product")


@dataclass(frozen=True, slots=True)
class Answer:
    """What one holder contributed."""

    peer_id: str
    partitions: tuple[int, ...]
    resident: bool
    predicted_s: float
    elapsed_s: float
    wait_s: float
    service_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Partial:
    """A holder's arrays, one per partition asked for, and its account of the time."""

    arrays: list[Panel]
    wait_s: float
    service_s: float


class Asker:
    """Asks one holder, near or far, for its share of a product."""

    def __init__(self, own_peer_id: str, sessions: Sessions, multiplying: MultiplyingService) -> None:
        self._own_peer_id = own_peer_id
        self._sessions = sessions
        self._multiplying = multiplying
        self._request_ids = itertools.count(random.SystemRandom().getrandbits(62))

    async def ask(
        self,
        peer_id: str,
        manifest: Manifest,
        partitions: tuple[int, ...],
        panel: Panel,
        *,
        transposed: bool,
        deadline: float,
    ) -> Partial:
        """Return a holder's share.

        Raises:
            SedmadError: it cannot be reached, holds something else, or is too late.
        """
        part = _slice(manifest, partitions, panel) if transposed else panel
        if peer_id == self._own_peer_id:
            result = await self._multiplying.multiply(
                manifest, partitions, part, transposed=transposed, deadline=deadline
            )
            return Partial(result.arrays, result.wait_s, result.service_s)
        arrays, memory = _result_arrays(manifest, partitions, len(panel), transposed)
        request = wire.MultiplyPartitionsRequest(
            key=key_to_wire(manifest.key),
            epoch=manifest.epoch,
            seq=manifest.seq,
            partitions=partitions,
            columns=len(panel),
            transposed=transposed,
            request_id=next(self._request_ids),
        )
        encoded = await self._sessions.call(
            peer_id, MULTIPLY, request, deadline=deadline, payload=as_bytes(part), into=memory
        )
        response = wire.MultiplyPartitionsResponse.FromString(encoded)
        return Partial(arrays, response.wait_us * 1e-6, response.service_us * 1e-6)


def _slice(manifest: Manifest, partitions: Iterable[int], panel: Panel) -> Panel:
    """Return the slices of X that belong to these partitions, side by side."""
    slices = [panel[:, slice(*manifest.rows_of(index))] for index in partitions]
    return np.ascontiguousarray(slices[0] if len(slices) == 1 else np.concatenate(slices, axis=1))


def _result_arrays(
    manifest: Manifest, partitions: tuple[int, ...], columns: int, transposed: bool
) -> tuple[list[Panel], memoryview]:
    """Return an array per partition, all in one piece of memory that the answer is written into."""
    lengths = [result_shape(manifest, index, transposed)[0] for index in partitions]
    dtype = result_shape(manifest, partitions[0], transposed)[1]
    whole = empty_panel(1, columns * sum(lengths), dtype)
    arrays, offset = [], 0
    for length in lengths:
        arrays.append(whole[0, offset : offset + columns * length].reshape(columns, length))
        offset += columns * length
    return arrays, as_bytes(whole)

"""A holder's share of a product: which partitions it is asked for, how it is asked, and what it answers."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from sedmad.net.sessions import Sessions
from sedmad.node.manifest import Manifest
from sedmad.node.multiplying import MULTIPLY, MultiplyingService, result_shape
from sedmad.node.noise import NoiseKeys
from sedmad.node.panels import Panel, as_bytes, empty_panel
from sedmad.node.replies import read_reply
from sedmad.node.succession import key_to_wire
from sedmad.wire import messages as wire


@dataclass(frozen=True, slots=True)
class Share:
    """Partitions that one holder is asked for, and why it.

    Attributes:
        resident: whether its copies are resident.
        predicted_s: when its answer is expected.
    """

    peer_id: str
    partitions: tuple[int, ...]
    resident: bool
    predicted_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class ShareResult:
    """A holder's arrays (columns, length), one per partition asked for, and its account of the time."""

    arrays: list[Panel]
    wait_s: float
    service_s: float


class ShareAsker:
    """Asks one holder, near or far, for its share of a product."""

    def __init__(self, own_peer_id: str, sessions: Sessions, multiplying: MultiplyingService) -> None:
        self._own_peer_id = own_peer_id
        self._sessions = sessions
        self._multiplying = multiplying
        self._request_ids = itertools.count(secrets.randbits(62))

    async def ask(
        self,
        peer_id: str,
        manifest: Manifest,
        partitions: tuple[int, ...],
        panel: Panel,
        noise: NoiseKeys,
        *,
        transposed: bool,
        deadline: float,
    ) -> ShareResult:
        """Return a holder's share of a product.

        Args:
            panel: all of X, (columns, n), of the dtype `panel_dtype`.
            noise: (columns,), what devices draw their noise with; empty where arithmetic is exact.

        Raises:
            SedmadError: the holder cannot be reached, holds something else, or is too late.
        """
        part = _slices(manifest, partitions, panel) if transposed else panel
        if peer_id == self._own_peer_id:
            result = await self._multiplying.multiply(
                manifest, partitions, part, noise, transposed=transposed, deadline=deadline
            )
            return ShareResult(result.arrays, result.wait_s, result.service_s)
        integers = np.issubdtype(panel.dtype, np.integer)
        arrays, memory = _result_arrays(manifest, partitions, len(panel), transposed, integers)
        request = wire.MultiplyPartitionsRequest(
            key=key_to_wire(manifest.key),
            epoch=manifest.epoch,
            seq=manifest.seq,
            partitions=partitions,
            columns=len(panel),
            transposed=transposed,
            request_id=next(self._request_ids),
            integers=integers,
            noise_keys=noise.tolist(),
        )
        encoded = await self._sessions.call(
            peer_id, MULTIPLY, request, deadline=deadline, payload=as_bytes(part), into=memory
        )
        response = read_reply(wire.MultiplyPartitionsResponse, encoded, peer_id)
        return ShareResult(arrays, response.wait_us * 1e-6, response.service_us * 1e-6)


def _slices(manifest: Manifest, partitions: Iterable[int], panel: Panel) -> Panel:
    """Return the slices of X that belong to these partitions, side by side."""
    slices = [panel[:, slice(*manifest.rows_of(index))] for index in partitions]
    return np.ascontiguousarray(slices[0] if len(slices) == 1 else np.concatenate(slices, axis=1))


def _result_arrays(
    manifest: Manifest, partitions: tuple[int, ...], columns: int, transposed: bool, integers: bool
) -> tuple[list[Panel], memoryview]:
    """Return an array per partition, all in one piece of memory that the answer is written into."""
    shapes = [result_shape(manifest, index, transposed=transposed, integers=integers) for index in partitions]
    lengths, dtype = [length for length, _ in shapes], shapes[0][1]
    whole = empty_panel(1, columns * sum(lengths), dtype)
    arrays, offset = [], 0
    for length in lengths:
        arrays.append(whole[0, offset : offset + columns * length].reshape(columns, length))
        offset += columns * length
    return arrays, as_bytes(whole)

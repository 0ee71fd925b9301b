"""Products with partitions that lie on this node: joined with others that wait, run in worker threads.

Each thread runs BLAS single-threaded: two pools of threads on the same cores were measured 20 to 100 times slower.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from crossbar.analog import AnalogPartition
from crossbar.engine import ProgrammedPartition
from sedmad.errors import MatrixNotFound, ProtocolViolation
from sedmad.net.calls import IncomingCall
from sedmad.node.clock import monotonic_s
from sedmad.node.compute_threads import ComputeThreads
from sedmad.node.joiner import Joiner
from sedmad.node.manifest import Manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.noise import NoiseKeys, keys_of
from sedmad.node.panels import Panel, as_bytes, empty_panel, panel_dtype, require_exact
from sedmad.node.residents import Residents
from sedmad.node.succession import key_from_wire
from sedmad.wire import messages as wire

MULTIPLY = "sedma.v1.ProductService/MultiplyPartitions"
# Partitions of a transposed product answer in float64, so that their sum depends on their order alone.
TRANSPOSED_DTYPE = np.dtype("<f8")
COMPUTE_THREADS = os.cpu_count() or 1
# One panel of a matrix at a time, on all cores: what comes meanwhile is joined, as two narrow panels cost almost twice
# what one of their width together does.
RUNNING_MAX = 1
# Below this many multiplications another thread costs more than it saves (some 100 us).
FLOPS_PER_THREAD_MIN = 4e6

Computed = ProgrammedPartition | AnalogPartition


@dataclass(frozen=True, slots=True)
class PartialTask:
    """What can be joined: the same partitions of the same manifest, in one direction, X of one dtype."""

    manifest_id: tuple[object, ...]
    partitions: tuple[int, ...]
    transposed: bool
    dtype: str
    columns_max: int


@dataclass(frozen=True, slots=True)
class PartialResult:
    """One answer: an array (columns, length) per partition, and how the time went."""

    arrays: list[Panel]
    wait_s: float
    service_s: float
    compute_s: float


@dataclass(frozen=True, slots=True)
class _Item:
    manifest: Manifest
    panel: Panel
    noise: NoiseKeys
    asked_at: float


def slice_length(manifest: Manifest, partitions: Sequence[int], transposed: bool) -> int:
    """Return how long a row of the panel for these partitions is."""
    if not transposed:
        return manifest.columns
    return sum(stop - start for start, stop in map(manifest.rows_of, partitions))


def columns_max(manifest: Manifest, transposed: bool) -> int:
    """Return how many columns of X one product takes."""
    partitioning = manifest.partitioning
    return partitioning.transposed_panel_columns if transposed else partitioning.panel_columns


def result_shape(
    manifest: Manifest, partition: int, *, transposed: bool, integers: bool
) -> tuple[int, np.dtype]:
    """Return the length and dtype of one partition's result, per column."""
    if transposed:
        return manifest.columns, TRANSPOSED_DTYPE
    start, stop = manifest.rows_of(partition)
    return stop - start, panel_dtype(manifest.dtype, integers=integers)


class MultiplyingService:
    """Multiplies with what lies here; serves ProductService of the contract."""

    def __init__(self, manifests: ManifestService, residents: Residents, own_peer_id: str) -> None:
        self._manifests = manifests
        self._residents = residents
        self._own_peer_id = own_peer_id
        self._threads = ComputeThreads(COMPUTE_THREADS)
        self.joiner: Joiner[PartialTask, _Item, PartialResult] = Joiner(
            self._run, lambda task: task.columns_max, lambda task: RUNNING_MAX
        )
        # Smoothed seconds, for the advert: what a product waits here, and takes.
        self.queue_s = 0.0
        self.service_s = 0.0

    async def multiply(
        self,
        manifest: Manifest,
        partitions: Sequence[int],
        panel: Panel,
        noise: NoiseKeys,
        *,
        transposed: bool,
        deadline: float,
    ) -> PartialResult:
        """Multiply a panel with partitions that lie here.

        Args:
            panel: (columns, slice_length), of the dtype `panel_dtype`.
            noise: (columns,), what devices draw their noise with; empty where arithmetic is exact.

        Raises:
            MatrixNotFound: this node holds none of a partition.
        """
        task = PartialTask(
            (manifest.key, manifest.order),
            tuple(partitions),
            transposed,
            panel.dtype.name,
            columns_max(manifest, transposed),
        )
        return await self.joiner.ask(task, _Item(manifest, panel, noise, monotonic_s()), len(panel), deadline)

    async def multiply_partitions(
        self, request: wire.MultiplyPartitionsRequest, call: IncomingCall
    ) -> tuple[wire.MultiplyPartitionsResponse, memoryview]:
        """Answer a member's share of a product."""
        manifest = self._manifests.require_current(key_from_wire(request.key), (request.epoch, request.seq))
        partitions = tuple(request.partitions)
        columns = range(1, columns_max(manifest, request.transposed) + 1)
        known = range(len(manifest.copies))
        if (
            request.columns not in columns
            or not partitions
            or not all(index in known for index in partitions)
        ):
            raise ProtocolViolation("a product asks for what there is not", node=call.remote)
        if len(set(partitions)) < len(partitions):
            raise ProtocolViolation("a product asks for a partition twice", node=call.remote)
        noise = keys_of(request, manifest.accuracy)
        length = slice_length(manifest, partitions, request.transposed)
        panel = empty_panel(request.columns, length, panel_dtype(manifest.dtype, integers=request.integers))
        await call.read_into(as_bytes(panel))
        if request.integers:
            require_exact(panel, "a matrix")
        result = await self.multiply(
            manifest, partitions, panel, noise, transposed=request.transposed, deadline=call.deadline
        )
        response = wire.MultiplyPartitionsResponse(
            wait_us=int(result.wait_s * 1e6),
            service_us=int(result.service_s * 1e6),
            compute_us=int(result.compute_s * 1e6),
            queue_s=self.queue_s,
        )
        if len(result.arrays) == 1:
            return response, as_bytes(np.ascontiguousarray(result.arrays[0]))
        return response, memoryview(
            b"".join(as_bytes(np.ascontiguousarray(array)) for array in result.arrays)
        )

    async def _run(self, task: PartialTask, items: list[_Item], deadline: float) -> list[PartialResult]:
        started_at = monotonic_s()
        manifest = items[0].manifest
        programmed = [await self._programmed(manifest, index) for index in task.partitions]
        panel = items[0].panel if len(items) == 1 else np.concatenate([item.panel for item in items])
        noise = np.concatenate([item.noise for item in items])
        arrays, compute_s = await self._compute(manifest, task, programmed, panel, noise)
        service_s = monotonic_s() - started_at
        self.service_s += 0.1 * (service_s - self.service_s)
        results = []
        offset = 0
        for item in items:
            stop = offset + len(item.panel)
            wait_s = started_at - item.asked_at
            self.queue_s += 0.1 * (wait_s - self.queue_s)
            results.append(
                PartialResult([array[offset:stop] for array in arrays], wait_s, service_s, compute_s)
            )
            offset = stop
        return results

    async def _compute(
        self,
        manifest: Manifest,
        task: PartialTask,
        programmed: Sequence[Computed],
        panel: Panel,
        noise: NoiseKeys,
    ) -> tuple[list[Panel], float]:
        """Return an array per partition, and the seconds that the slowest thread computed."""
        slices: list[Panel] = []
        offset = 0
        for index in task.partitions if task.transposed else ():
            start, stop = manifest.rows_of(index)
            slices.append(panel[:, offset : offset + stop - start])
            offset += stop - start
        flops = len(panel) * sum(math.prod(partition.shape) for partition in programmed)
        threads = min(COMPUTE_THREADS, len(programmed), max(1, int(flops / FLOPS_PER_THREAD_MIN)))
        parts = [
            slice(thread * len(programmed) // threads, (thread + 1) * len(programmed) // threads)
            for thread in range(threads)
        ]
        results = await self._threads.run(
            [
                partial(_multiply_transposed, programmed[part], slices[part], noise)
                if task.transposed
                else partial(_multiply_straight, programmed[part], panel, noise)
                for part in parts
            ]
        )
        arrays = [array for found, _ in results for array in found]
        return arrays, max(compute_s for _, compute_s in results)

    async def _programmed(self, manifest: Manifest, index: int) -> Computed:
        if self._own_peer_id not in manifest.copies[index]:
            raise MatrixNotFound(f"partition {index} does not lie here", node=self._own_peer_id, hint="")
        start, stop = manifest.rows_of(index)
        return await self._residents.get(
            manifest.digests[index], stop - start, manifest.columns, manifest.dtype, manifest.accuracy
        )


def _multiply_straight(
    programmed: Sequence[Computed], panel: Panel, noise: NoiseKeys
) -> tuple[list[Panel], float]:
    """Run the engine on partitions, in a worker thread; return their arrays and the seconds it took."""
    began = time.perf_counter()
    arrays: list[Panel] = [
        partition.multiply(panel, noise)
        if isinstance(partition, AnalogPartition)
        else partition.multiply(panel)
        for partition in programmed
    ]
    return arrays, time.perf_counter() - began


def _multiply_transposed(
    programmed: Sequence[Computed], slices: Sequence[Panel], noise: NoiseKeys
) -> tuple[list[Panel], float]:
    began = time.perf_counter()
    arrays: list[Panel] = []
    for partition, part in zip(programmed, slices, strict=True):
        whole = np.ascontiguousarray(part)
        if isinstance(partition, AnalogPartition):
            arrays.append(partition.multiply_transposed(whole, noise))
        else:
            arrays.append(partition.multiply_transposed(whole))
    return arrays, time.perf_counter() - began

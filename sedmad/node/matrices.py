"""What clients do with matrices: the contract's MatrixService, handed on to the services that do it."""

from __future__ import annotations

import math
from contextlib import aclosing

import numpy as np

from sedmad.core.membership.claim import Claim
from sedmad.errors import InsufficientCapacity, MatrixNotFound, MatrixTooLarge, StaleManifest
from sedmad.net.calls import IncomingCall
from sedmad.node.asking import AskingService, Result
from sedmad.node.clock import monotonic_s
from sedmad.node.describing import DescribingService
from sedmad.node.getting import GettingService
from sedmad.node.holding import HoldingService
from sedmad.node.looking_up import LookUpService
from sedmad.node.manifest import ITEMSIZE, Manifest, group_key, kind_to_wire
from sedmad.node.membership import MembershipService
from sedmad.node.multiplying import columns_max
from sedmad.node.panels import as_bytes, data_type_of, empty_panel, panel_dtype, require_exact
from sedmad.node.putting import PuttingService
from sedmad.node.records import DATA_TYPES, PEER_STATES
from sedmad.node.removing import RemovingService
from sedmad.sizes import format_bytes
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey
from sedmad.wire import messages as wire

# For a client that gave none.
DEADLINE_S = 30.0
# Some 150 bytes each: a page stays far below a frame's bound.
PAGE_MATRICES = 1000
# Between the news that a matrix lies elsewhere and the manifest that says where.
STALE_RETRIES = 3
# What the contract's field holds: a claim says of its matrix what its owner likes.
SIZE_BYTES_MAX = 2**64 - 1


class MatrixSummaries:
    """Every name of the mesh as clients see it."""

    def __init__(self, membership: MembershipService, holding: HoldingService) -> None:
        self._membership = membership
        self._holding = holding

    def page(self, page_token: str) -> tuple[list[wire.MatrixSummary], str]:
        """Return names in their order, from a token on, and the token of what follows; "" at the end.

        Where two nodes took one name, the loser is name@author.
        """
        page: list[wire.MatrixSummary] = []
        for shown, claim in self._membership.core.directory.entries():
            if claim.name < page_token:
                continue
            # A page ends between names, never between the owners of one.
            if len(page) >= PAGE_MATRICES and claim.name not in (
                page[-1].name,
                page[-1].name.partition("@")[0],
            ):
                return page, claim.name
            page.append(self.of(shown, claim))
        return page, ""

    def of(self, name: str, claim: Claim) -> wire.MatrixSummary:
        """Return one name's summary."""
        key = ManifestKey(claim.matrix_digest, claim.first_owner)
        resident_bytes, standby_bytes = self._holding.bytes_of(group_key(key))
        return wire.MatrixSummary(
            name=name,
            version=claim.version,
            rows=claim.rows,
            columns=claim.columns,
            data_type=DATA_TYPES.get(claim.dtype, wire.DATA_TYPE_UNSPECIFIED),
            survive=claim.survive,
            owner=claim.owner,
            owner_name=self._membership.name_of(claim.owner),
            size_bytes=min(claim.rows * claim.columns * ITEMSIZE.get(claim.dtype, 0), SIZE_BYTES_MAX),
            matrix_digest=claim.matrix_digest,
            claimed_at_s=claim.wall_time_s,
            resident_bytes_here=resident_bytes,
            standby_bytes_here=standby_bytes,
        )


class MatrixService:
    """Serves MatrixService of the contract to clients on the control socket."""

    def __init__(
        self,
        *,
        membership: MembershipService,
        lookups: LookUpService,
        summaries: MatrixSummaries,
        putting: PuttingService,
        getting: GettingService,
        removing: RemovingService,
        asking: AskingService,
        describing: DescribingService,
    ) -> None:
        self._membership = membership
        self._lookups = lookups
        self._summaries = summaries
        self._putting = putting
        self._getting = getting
        self._removing = removing
        self._asking = asking
        self._describing = describing

    async def put_matrix(self, request: wire.PutMatrixRequest, call: IncomingCall) -> wire.PutMatrixResponse:
        """Store what the client streams; the response comes when it is safe."""
        try:
            claim, manifest, already_stored = await self._putting.put(request, call)
        except InsufficientCapacity as error:
            self._tell_room_to_come(error)
            raise
        return wire.PutMatrixResponse(
            received_bytes=manifest.size_bytes,
            safe_bytes=manifest.size_bytes * (manifest.survive + 1),
            total_copy_bytes=manifest.size_bytes * (manifest.survive + 1),
            matrix=self._summaries.of(claim.name, claim),
            already_stored=already_stored,
        )

    def _tell_room_to_come(self, error: InsufficientCapacity) -> None:
        """Say where a lack of room is about to end: replaced versions stay until products are done with them."""
        coming = self._removing.room_to_come()
        if coming is not None:
            error.retry_after_s = math.ceil(coming.within_s) + 1.0
            gives = f"replaced versions give back {format_bytes(coming.size_bytes)} soon"
            error.why = "\n".join(filter(None, (error.why, gives)))
            error.hint = f"Try again in {error.retry_after_s:.0f} s, or pledge more with --memory and --disk."

    async def get_matrix(self, request: wire.GetMatrixRequest, call: IncomingCall) -> wire.GetMatrixResponse:
        """Stream a matrix to the client, its shape first."""
        claim = self._claim(request.name, request.version)
        manifest = await self._lookups.look_up(claim, deadline=monotonic_s() + DEADLINE_S)
        response = wire.GetMatrixResponse(matrix=self._summaries.of(request.name, claim))
        await call.send(response)
        async with aclosing(self._getting.stream(manifest, request.name)) as pieces:
            async for offset, piece in pieces:
                await call.send(payload=piece, offset=offset)
        return response

    async def remove_matrix(
        self, request: wire.RemoveMatrixRequest, call: IncomingCall
    ) -> wire.RemoveMatrixResponse:
        """Remove a name, and free its matrix on all nodes that can be told."""
        removal = await self._removing.remove(request.name)
        return wire.RemoveMatrixResponse(freed_bytes=removal.freed_bytes, unreachable=removal.unreachable)

    async def list_matrices(
        self, request: wire.ListMatricesRequest, call: IncomingCall
    ) -> wire.ListMatricesResponse:
        """Return a page of the names of the mesh."""
        matrices, next_page_token = self._summaries.page(request.page_token)
        return wire.ListMatricesResponse(matrices=matrices, next_page_token=next_page_token)

    async def inspect_matrix(
        self, request: wire.InspectMatrixRequest, call: IncomingCall
    ) -> wire.InspectMatrixResponse:
        """Return where a matrix lies, partition by partition."""
        claim = self._claim(request.name, 0)
        manifest = await self._lookups.look_up(claim, deadline=min(call.deadline, monotonic_s() + DEADLINE_S))
        devices = await self._describing.ask_holders(manifest)
        reports = []
        for index, copies in enumerate(manifest.copies):
            start, stop = manifest.rows_of(index)
            reports.append(
                wire.PartitionReport(
                    index=index,
                    row_start=start,
                    row_stop=stop,
                    digest=manifest.digests[index],
                    copies=[
                        wire.CopyReport(
                            peer_id=peer_id,
                            name=self._membership.name_of(peer_id),
                            kind=kind_to_wire(kind),
                            state=PEER_STATES[self._membership.state_of(peer_id)],
                            devices=devices.get((peer_id, index)),
                        )
                        for peer_id, kind in copies.items()
                    ],
                )
            )
        return wire.InspectMatrixResponse(
            matrix=self._summaries.of(request.name, claim),
            epoch=manifest.epoch,
            seq=manifest.seq,
            guardians=[self._node(peer_id) for peer_id in manifest.guardians],
            partitions=reports,
            degraded=self._degraded(manifest),
            partition_rows=manifest.partition_rows,
            scaled=bool(manifest.scale),
            target_error=manifest.accuracy.target_error,
            profile=manifest.accuracy.profile,
        )

    async def apply_matrix(
        self, request: wire.ApplyMatrixRequest, call: IncomingCall
    ) -> tuple[wire.ApplyMatrixResponse, memoryview]:
        """Multiply a panel with a matrix, wherever it lies."""
        began = monotonic_s()
        deadline = min(call.deadline, began + DEADLINE_S) if call.deadline == float("inf") else call.deadline
        claim = self._claim(request.name, request.version)
        manifest = await self._lookups.look_up(claim, deadline=deadline)
        length = manifest.rows if request.transposed else manifest.columns
        if not 0 < request.columns <= columns_max(manifest, request.transposed):
            raise MatrixTooLarge(
                "the panel is too wide",
                why=f"{request.columns} columns of at most {columns_max(manifest, request.transposed)}",
            )
        panel = empty_panel(request.columns, length, panel_dtype(manifest.dtype, integers=request.integers))
        await call.read_into(as_bytes(panel))
        if request.integers:
            require_exact(panel, request.name)
            if manifest.scale and request.transposed:
                # X is multiplied with the scale first.
                panel = panel.astype(np.float32)
        for attempt in range(STALE_RETRIES):
            try:
                result = await self._asking.multiply(
                    manifest,
                    panel,
                    transposed=request.transposed,
                    deadline=deadline,
                    name=request.name,
                    noise_request=request.noise_request,
                )
                break
            except StaleManifest:
                # It was replaced or moved meanwhile: what it stands for now answers.
                if attempt == STALE_RETRIES - 1:
                    raise
                newer = self._claim(request.name, request.version)
                if (newer.rows, newer.columns, newer.dtype) != (claim.rows, claim.columns, claim.dtype):
                    raise
                claim = newer
                manifest = await self._lookups.look_up(claim, deadline=deadline, after=manifest)
        response = wire.ApplyMatrixResponse(
            version=claim.version,
            data_type=data_type_of(result.panel),
            length=result.panel.shape[1],
            verification=wire.VERIFICATION_UNVERIFIED,
        )
        if request.explain:
            response.explanation.CopyFrom(self._explain(result, monotonic_s() - began))
        return response, as_bytes(result.panel)

    def _claim(self, name: str, version: int) -> Claim:
        claim = self._membership.core.directory.get(name)
        if claim is None or (version and claim.version != version):
            what = (
                f"there is no matrix {name[:128]}"
                if claim is None
                else f"{name} has no version {version} any more"
            )
            raise MatrixNotFound(what, matrix=name[:128])
        return claim

    def _node(self, peer_id: str) -> wire.NodeReference:
        return wire.NodeReference(peer_id=peer_id, name=self._membership.name_of(peer_id))

    def _degraded(self, manifest: Manifest) -> str:
        """Say which copies are out of reach; empty if all are there."""
        lost = sorted({peer for peer in manifest.holders if self._membership.state_of(peer) == "dead"})
        if not lost:
            return ""
        names = ", ".join(self._membership.name_of(peer_id) for peer_id in lost)
        alone = sum(all(peer in lost for peer in copies) for copies in manifest.copies)
        if alone:
            return f"{alone} partitions cannot be read: their copies were on {names}, which is dead"
        return f"copies are missing: {names} is dead"

    def _explain(self, result: Result, total_s: float) -> wire.ProductExplanation:
        return wire.ProductExplanation(
            waited_ms=result.waited_s * 1000,
            total_ms=total_s * 1000,
            joined_columns=result.joined_columns,
            answers=[
                wire.PartitionAnswer(
                    node=self._node(answer.share.peer_id),
                    partitions=answer.share.partitions,
                    kind=kind_to_wire(Kind.RESIDENT if answer.share.resident else Kind.STANDBY),
                    predicted_ms=answer.share.predicted_s * 1000,
                    elapsed_ms=answer.elapsed_s * 1000,
                    wait_ms=answer.wait_s * 1000,
                    service_ms=answer.service_s * 1000,
                    reason=answer.share.reason,
                )
                for answer in result.answers
            ],
        )

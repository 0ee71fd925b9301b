"""How the devices of nodes compute with the copies of a matrix: told by each holder, asked together for `inspect`."""

from __future__ import annotations

import structlog
import trio

from sedmad.errors import MatrixNotFound, SedmadError
from sedmad.net.calls import IncomingCall
from sedmad.net.sessions import Sessions
from sedmad.node.clock import monotonic_s
from sedmad.node.devices import Devices
from sedmad.node.manifest import Manifest
from sedmad.node.manifests import ManifestService
from sedmad.node.programming import PartitionKey, Programmed
from sedmad.node.replies import read_reply
from sedmad.node.succession import key_from_wire, key_to_wire
from sedmad.store.holdings import Kind
from sedmad.wire import messages as wire

log = structlog.get_logger("sedmad.devices")

DESCRIBE = "sedma.v1.DeviceService/DescribeDevices"
# People wait: who says nothing by then is shown as unknown.
ASK_TIMEOUT_S = 2.0
EXACT_PROFILE = "ideal"


class DescribingService:
    """Serves DeviceService of the contract, and asks it of all holders of a matrix."""

    def __init__(
        self, *, own_peer_id: str, devices: Devices, manifests: ManifestService, sessions: Sessions
    ) -> None:
        self._own_peer_id = own_peer_id
        self._devices = devices
        self._manifests = manifests
        self._sessions = sessions

    async def describe_devices(
        self, request: wire.DescribeDevicesRequest, call: IncomingCall
    ) -> wire.DescribeDevicesResponse:
        """Tell how this node computes with its resident copies of a matrix."""
        manifest = self._manifests.get_kept(key_from_wire(request.key))
        if manifest is None or manifest.removed:
            raise MatrixNotFound("this node keeps nothing of that matrix", node=self._own_peer_id, hint="")
        return wire.DescribeDevicesResponse(copies=self._describe(manifest))

    async def ask_holders(self, manifest: Manifest) -> dict[tuple[str, int], wire.DeviceReport]:
        """Return what holders tell of their resident copies, by peer id and partition; silent ones are missing."""
        found: dict[tuple[str, int], wire.DeviceReport] = {}
        if not manifest.accuracy.target_error:
            return found

        async def ask(peer_id: str) -> None:
            try:
                reports = await self._ask(peer_id, manifest)
            except SedmadError as error:
                log.debug("devices_not_described", peer=peer_id, why=error.what)
                return
            found.update({(peer_id, report.partition_index): report for report in reports})

        holders = {
            peer_id for copies in manifest.copies for peer_id, kind in copies.items() if kind is Kind.RESIDENT
        }
        async with trio.open_nursery() as nursery:
            for peer_id in holders:
                nursery.start_soon(ask, peer_id)
        return found

    async def _ask(self, peer_id: str, manifest: Manifest) -> list[wire.DeviceReport]:
        if peer_id == self._own_peer_id:
            return self._describe(manifest)
        request = wire.DescribeDevicesRequest(key=key_to_wire(manifest.key))
        encoded = await self._sessions.call(
            peer_id, DESCRIBE, request, deadline=monotonic_s() + ASK_TIMEOUT_S
        )
        return list(read_reply(wire.DescribeDevicesResponse, encoded, peer_id).copies)

    def _describe(self, manifest: Manifest) -> list[wire.DeviceReport]:
        return [
            self._report(manifest, index)
            for index, kind in manifest.held_by(self._own_peer_id).items()
            if kind is Kind.RESIDENT
        ]

    def _report(self, manifest: Manifest, index: int) -> wire.DeviceReport:
        start, stop = manifest.rows_of(index)
        report = wire.DeviceReport(partition_index=index, profile=EXACT_PROFILE)
        if not self._devices.compute(manifest.accuracy):
            return report
        key = PartitionKey(
            manifest.digests[index], stop - start, manifest.columns, manifest.dtype, manifest.accuracy
        )
        state = self._devices.state(key)
        if state is None:
            report.digital_because = "it is being programmed"
        elif state.partition is None:
            report.digital_because = state.digital_because
        else:
            self._fill(report, state)
        return report

    def _fill(self, report: wire.DeviceReport, state: Programmed) -> None:
        planned = state.planned
        assert planned is not None
        report.profile = self._devices.profile.name
        report.predicted_error = planned.predicted.total
        report.measured_error = planned.error
        report.cells_used, report.cells_allocated = planned.cells_used, planned.cells_allocated
        report.levers.extend(lever.replace("_", " ") for lever in planned.plan.levers)
        report.age_s = self._devices.age_s(state)

"""A daemon of threads that keeps matrices in NumPy and speaks the real frames on a real unix socket.

It is small enough to be trusted, and can misbehave on demand: `faults` holds what to do instead of serving a method.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sedmad.errors import (
    DeadlineExceeded,
    MatrixNotFound,
    NameTaken,
    NonFiniteValues,
    SedmadError,
    ShapeMismatch,
)
from sedmad.wire import messages as wire
from sedmad.wire.calls import CallCancelled, Calls, RequestData, RequestReceived
from sedmad.wire.frame import PAYLOAD_BYTES_MAX, FrameDecoder, encode
from sedmad.wire.status import to_status

DTYPES = {
    wire.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    wire.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    wire.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    wire.DATA_TYPE_INT8: np.dtype("i1"),
}
DATA_TYPES = {dtype.name: data_type for data_type, dtype in DTYPES.items()}
PEER_ID = "12D3KooWAlphaAlphaAlphaAlphaAlphaAlphaAlphaAlphaAlpha"
OTHER_PEER_ID = "12D3KooWBetaBetaBetaBetaBetaBetaBetaBetaBetaBetaBeta"


@dataclass
class Stored:
    summary: wire.MatrixSummary
    values: np.ndarray


class Gone(Exception):
    """The client is gone, or no longer wants the answer."""


@dataclass
class ServedCall:
    """One call, as a handler's thread sees it."""

    client: Client
    request: RequestReceived
    changed: threading.Condition
    events: deque[RequestData] = field(default_factory=deque)
    cancelled: bool = False
    waiting_bytes: int = 0
    waiting_bytes_peak: int = 0

    def payload(self) -> bytearray:
        """Take the whole request payload, giving credit as it comes."""
        taken = bytearray(self.request.payload)
        self.consume(len(taken))
        end = self.request.end
        while not end:
            event = self.next_data()
            assert event.offset == len(taken)
            taken += event.payload
            end = event.end
            self.consume(len(event.payload))
        return taken

    def next_data(self) -> RequestData:
        with self.changed:
            while not self.events:
                if self.cancelled or self.client.closed:
                    raise Gone
                self.changed.wait(10)
            event = self.events.popleft()
            self.waiting_bytes -= len(event.payload)
            return event

    def consume(self, count: int) -> None:
        with self.changed:
            self.client.calls.consume(self.request.call_id, count, outgoing=False)
        self.client.flush()

    def send(self, message=None, payload=b"", offset=0) -> None:
        with self.changed:
            calls, call_id = self.client.calls, self.request.call_id
            while calls.is_open(call_id, outgoing=False) and calls.credit(call_id, outgoing=False) < len(
                payload
            ):
                self.changed.wait(10)
            if self.cancelled or self.client.closed:
                raise Gone
            encoded = message.SerializeToString() if message is not None else b""
            calls.send_response(call_id, encoded, payload, offset=offset)
        self.client.flush()

    def wait_until_cancelled(self) -> None:
        with self.changed:
            while not (self.cancelled or self.client.closed):
                self.changed.wait(10)

    def respond(self, message=None, payload=b"", status=None) -> None:
        view = memoryview(payload).cast("B") if len(payload) else memoryview(b"")
        last = max(0, (len(view) - 1) // PAYLOAD_BYTES_MAX * PAYLOAD_BYTES_MAX)
        for start in range(0, last, PAYLOAD_BYTES_MAX):
            self.send(payload=view[start : start + PAYLOAD_BYTES_MAX], offset=start)
        with self.changed:
            encoded = message.SerializeToString() if message is not None else b""
            self.client.calls.respond(self.request.call_id, encoded, view[last:], offset=last, status=status)
        self.client.flush()


class Client:
    """One connection."""

    def __init__(self, daemon: FakeDaemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self.connection = connection
        self.calls = Calls()
        self.changed = threading.Condition()
        self.writing = threading.Lock()
        self.served: dict[int, ServedCall] = {}
        self.closed = False

    def run(self) -> None:
        decoder = FrameDecoder()
        try:
            while data := self.connection.recv(1 << 18):
                for frame in decoder.receive_data(data):
                    with self.changed:
                        event = self.calls.receive(frame)
                        self.deliver(event)
                        self.changed.notify_all()
                self.flush()
        except OSError:
            pass
        finally:
            self.close()

    def deliver(self, event) -> None:
        if isinstance(event, RequestReceived):
            call = self.served[event.call_id] = ServedCall(self, event, self.changed)
            threading.Thread(target=self.daemon.serve, args=(call,), daemon=True).start()
        elif isinstance(event, RequestData):
            call = self.served[event.call_id]
            call.events.append(event)
            call.waiting_bytes += len(event.payload)
            call.waiting_bytes_peak = max(call.waiting_bytes_peak, call.waiting_bytes)
        elif isinstance(event, CallCancelled):
            self.served[event.call_id].cancelled = True

    def flush(self) -> None:
        with self.writing:
            with self.changed:
                frames = self.calls.collect()
            try:
                for frame in frames:
                    self.connection.sendall(b"".join(encode(frame)))
            except OSError:
                self.close()

    def send_raw(self, data: bytes) -> None:
        with self.writing:
            self.connection.sendall(data)

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()


class FakeDaemon:
    """Serves until `close`. `calls` lists every call that came, `faults` overrides methods by short name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stored: dict[str, Stored] = {}
        self.faults: dict[str, Callable[[ServedCall], None]] = {}
        self.calls: list[ServedCall] = []
        self.clients: list[Client] = []
        self.peers: list[wire.PeerSummary] = []
        self.warnings: list[str] = []
        # What holders tell of their devices, by partition: matrices have a target error then.
        self.devices: dict[int, wire.DeviceReport] = {}
        # Of this node's arrays, pledged and used; none where it is ideal.
        self.cells = (0, 0)
        self.repairs: list[wire.RepairSummary] = []
        self.drained: list[wire.DrainNodeResponse] = [wire.DrainNodeResponse()]
        self.found: list[wire.VerifyMeshResponse] = [wire.VerifyMeshResponse()]
        self.stopping = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            client = Client(self, connection)
            self.clients.append(client)
            threading.Thread(target=client.run, daemon=True).start()

    def kill(self) -> None:
        """End as a killed process does: the socket's file stays, every connection breaks."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for client in self.clients:
            client.close()

    def close(self) -> None:
        self.kill()
        self.path.unlink(missing_ok=True)

    def serve(self, call: ServedCall) -> None:
        self.calls.append(call)
        verb = call.request.method.rpartition("/")[2]
        try:
            self.faults.get(verb, getattr(self, verb))(call)
        except SedmadError as error:
            call.respond(status=to_status(error))
        except Gone:
            pass

    def last(self, verb: str) -> ServedCall:
        return [call for call in self.calls if call.request.method.endswith(f"/{verb}")][-1]

    # One method per method of the contract, under its name there.

    def GetStatus(self, call: ServedCall) -> None:  # noqa: N802
        call.respond(
            wire.GetStatusResponse(
                peer_id=PEER_ID,
                name="alpha",
                state=wire.NODE_STATE_READY,
                software_version="0.1.0",
                addresses=["/ip4/192.0.2.7/tcp/4640"],
                uptime_s=11520.0,
                mesh_id="5f2c91d0a4b1",
                memory_pledged_bytes=2 << 30,
                memory_used_bytes=sum(stored.values.nbytes for stored in self.stored.values()),
                disk_pledged_bytes=100 << 30,
                disk_used_bytes=3 << 30,
                peers=self.peers,
                matrices=[stored.summary for stored in self.stored.values()],
                warnings=self.warnings,
                device_profile="cmo_hfox" if self.cells[0] else "ideal",
                cells_pledged=self.cells[0],
                cells_used=self.cells[1],
                compute_gflops=41.5,
                memory_bandwidth_bytes_per_s=9.5e9,
                labels={"zone": "attic"},
                is_admin=True,
                resident_set_bytes=96 << 20,
                memory_set_bytes=2 << 30,
                standby_bytes=2 << 30,
                anonymous_bytes=70 << 20,
                mapped_bytes=26 << 20,
                owned_bytes=1 << 30,
                repairs=self.repairs,
            )
        )

    def ListPeers(self, call: ServedCall) -> None:  # noqa: N802
        call.respond(wire.ListPeersResponse(peers=self.peers))

    def CreateInvitation(self, call: ServedCall) -> None:  # noqa: N802
        call.respond(wire.CreateInvitationResponse(token="sedmad1abcdef", expires_at_s=1_800_000_000))

    def StopNode(self, call: ServedCall) -> None:  # noqa: N802
        call.respond(wire.StopNodeResponse())
        self.stopping.set()
        self.close()

    def find(self, name: str, version: int = 0) -> Stored:
        stored = self.stored.get(name)
        if stored is None or version not in (0, stored.summary.version):
            raise MatrixNotFound(f"there is no matrix {name}", matrix=name)
        return stored

    def store(self, name: str, values: np.ndarray, survive: int = 1) -> wire.MatrixSummary:
        version = self.stored[name].summary.version + 1 if name in self.stored else 1
        summary = wire.MatrixSummary(
            name=name,
            version=version,
            rows=values.shape[0],
            columns=values.shape[1],
            data_type=DATA_TYPES[values.dtype.name],
            survive=survive,
            owner=PEER_ID,
            owner_name="alpha",
            size_bytes=values.nbytes,
            matrix_digest=bytes(range(32)),
            claimed_at_s=1_700_000_000.0,
            resident_bytes_here=values.nbytes // 2,
            standby_bytes_here=values.nbytes // 4,
        )
        self.stored[name] = Stored(summary, values)
        return summary

    def PutMatrix(self, call: ServedCall) -> None:  # noqa: N802
        request = wire.PutMatrixRequest.FromString(call.request.message)
        taken = self.stored.get(request.name)
        shape, dtype = (request.rows, request.columns), DTYPES[request.data_type]
        total_bytes = request.rows * request.columns * dtype.itemsize * (request.survive + 1)
        call.send(wire.PutMatrixResponse(total_copy_bytes=total_bytes))
        payload = call.payload()
        values = np.frombuffer(payload, dtype).reshape(shape)
        call.send(wire.PutMatrixResponse(received_bytes=len(payload), total_copy_bytes=total_bytes))
        if not request.allow_nonfinite and not np.isfinite(values).all():
            raise NonFiniteValues(f"{request.name} holds NaN or infinities", matrix=request.name)
        same = taken is not None and taken.values.shape == shape and taken.values.tobytes() == bytes(payload)
        if taken is not None and not same and not request.replace:
            raise NameTaken(
                f"another matrix is stored as {request.name}", why="version 1", matrix=request.name
            )
        summary = taken.summary if same else self.store(request.name, values, request.survive)
        call.respond(
            wire.PutMatrixResponse(
                received_bytes=len(payload),
                safe_bytes=total_bytes,
                total_copy_bytes=total_bytes,
                matrix=summary,
                already_stored=same,
            )
        )

    def GetMatrix(self, call: ServedCall) -> None:  # noqa: N802
        request = wire.GetMatrixRequest.FromString(call.request.message)
        stored = self.find(request.name, request.version)
        call.send(wire.GetMatrixResponse(matrix=stored.summary))
        whole = memoryview(np.ascontiguousarray(stored.values)).cast("B")
        for start in range(0, len(whole), PAYLOAD_BYTES_MAX):
            call.send(payload=whole[start : start + PAYLOAD_BYTES_MAX], offset=start)
        call.respond(wire.GetMatrixResponse(matrix=stored.summary))

    def RemoveMatrix(self, call: ServedCall) -> None:  # noqa: N802
        request = wire.RemoveMatrixRequest.FromString(call.request.message)
        freed = self.find(request.name).values.nbytes
        del self.stored[request.name]
        call.respond(wire.RemoveMatrixResponse(freed_bytes=freed))

    def ListMatrices(self, call: ServedCall) -> None:  # noqa: N802
        summaries = [stored.summary for _, stored in sorted(self.stored.items())]
        call.respond(wire.ListMatricesResponse(matrices=summaries))

    def InspectMatrix(self, call: ServedCall) -> None:  # noqa: N802
        request = wire.InspectMatrixRequest.FromString(call.request.message)
        summary = self.find(request.name).summary

        def copies(index: int) -> list[wire.CopyReport]:
            return [
                wire.CopyReport(
                    peer_id=PEER_ID,
                    name="alpha",
                    kind=wire.COPY_KIND_RESIDENT,
                    state=wire.PEER_STATE_ALIVE,
                    devices=self.devices.get(index),
                ),
                wire.CopyReport(
                    peer_id=OTHER_PEER_ID,
                    name="beta",
                    kind=wire.COPY_KIND_STANDBY,
                    state=wire.PEER_STATE_DEAD,
                ),
            ]

        call.respond(
            wire.InspectMatrixResponse(
                matrix=summary,
                epoch=1,
                seq=4,
                guardians=[wire.NodeReference(peer_id=PEER_ID, name="alpha")],
                partitions=[
                    wire.PartitionReport(
                        index=index,
                        row_start=start,
                        row_stop=min(start + 64, summary.rows),
                        digest=bytes([index % 256] * 32),
                        copies=copies(index),
                    )
                    for index, start in enumerate(range(0, summary.rows, 64))
                ],
                partition_rows=64,
                target_error=0.05 if self.devices else 0.0,
            )
        )

    def VerifyMesh(self, call: ServedCall) -> None:  # noqa: N802
        for report in self.found[:-1]:
            call.send(report)
        call.respond(self.found[-1])

    def DrainNode(self, call: ServedCall) -> None:  # noqa: N802
        for progress in self.drained[:-1]:
            call.send(progress)
        call.respond(self.drained[-1])

    def ApplyMatrix(self, call: ServedCall) -> None:  # noqa: N802
        request = wire.ApplyMatrixRequest.FromString(call.request.message)
        if call.request.remaining_ms == 0:
            raise DeadlineExceeded("products have deadlines")
        stored = self.find(request.name, request.version)
        matrix = stored.values.T if request.transposed else stored.values
        wide = np.dtype("<f8" if matrix.dtype == np.float64 else "<f4")
        dtype = np.dtype("<i4") if request.integers else wide
        payload = call.payload()
        if (
            not 0 < request.columns <= 64
            or len(payload) != request.columns * matrix.shape[1] * dtype.itemsize
        ):
            raise ShapeMismatch(f"a panel of {request.columns} columns has {len(payload)} bytes")
        panel = np.frombuffer(payload, dtype).reshape(request.columns, matrix.shape[1])
        with np.errstate(all="ignore"):
            result = np.ascontiguousarray(panel @ matrix.T.astype(dtype))
        response = wire.ApplyMatrixResponse(
            version=stored.summary.version,
            data_type=wire.DATA_TYPE_INT32 if request.integers else DATA_TYPES[dtype.name],
            length=result.shape[1],
            verification=wire.VERIFICATION_UNVERIFIED,
        )
        if request.explain:
            response.explanation.CopyFrom(
                wire.ProductExplanation(
                    waited_ms=0.4,
                    total_ms=12.3,
                    joined_columns=request.columns + 5,
                    answers=[
                        wire.PartitionAnswer(
                            node=wire.NodeReference(peer_id=PEER_ID, name="alpha"),
                            partitions=[0, 1, 2, 5],
                            kind=wire.COPY_KIND_RESIDENT,
                            predicted_ms=3.5,
                            elapsed_ms=4.25,
                            wait_ms=0.5,
                            service_ms=3.1,
                            reason="fastest",
                        )
                    ],
                )
            )
        call.respond(response, result)

"""What --json prints: the daemon's answers as documents, field by field.

Scripts rely on these names. Fields may be added, none is renamed or removed; whoever reads them ignores the unknown.
Amounts are bytes, times seconds or milliseconds as the name says; states are lower case; what is not known is null.

    status       {"node": {...}, "mesh": {...}, "peers": [PEER...], "memory": {...}, "disk": {...},
                  "copies": {"resident_bytes", "standby_bytes", "owned_bytes"}, "pressure": {"memory_set_bytes",
                  "memory_short_bytes"}, "process": {"anonymous_bytes", "mapped_bytes"}, "repairs": [REPAIR...],
                  "restored_bytes", "matrices": [MATRIX...], "warnings": [text...]}
                  `memory` is the pledge now and what resident copies use of it, `pressure` what the user set, and what
                  manifests ask for beyond the pledge. REPAIR's `waiting_for` is null or says why
    peers        {"peers": [PEER...]}; without a session to the peer, `path` and `rtt_ms` are null
    ls           {"matrices": [MATRIX...]}
    inspect      MATRIX's fields, "epoch", "seq", "guardians" (peer ids), "partitions" [{"index", "rows": [start, stop],
                  "copies": [{"peer_id", "name", "kind", "state"}]}]; `degraded` is null or says why
    verify       {"clean", "nodes": [{"peer_id", "name", "error", "copies", "blobs", "size_bytes", "more",
                  "corrupt": [FAULT...], "missing": [FAULT...], "orphaned": [FAULT...]}],
                  "matrices": [{"name", "degraded_partitions", "lost_partitions", "error"}]}
                  FAULT is {"digest", "matrix", "partition"}, the latter two null for bytes of no matrix; `more`
                  counts faults beyond the first 1,000 of each list
    put          MATRIX's fields, "already_stored"
    get, apply   what was written where
    rm           {"name", "freed_bytes", "unreachable": [node...]}
    drain        {"peer_id", "name", "draining", "copies_left", "bytes_left", "owned_left"}
    invite       {"token", "expires_at_s"}
    init, join   {"peer_id", "name", "mesh_id"}
    stop         {"stopped": whether it has ended}
    netcheck, doctor: see checks_contract.py

An error is {"error": {...}} on stderr, see report.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sedmad.wire.messages import (
    CopyKind,
    DataType,
    DeviceReport,
    DrainNodeResponse,
    GetStatusResponse,
    InspectMatrixResponse,
    MatrixSummary,
    NodeState,
    NodeVerification,
    PeerState,
    PeerSummary,
    RepairSummary,
    StoreFault,
    StoreReport,
    VerifyMeshResponse,
)

if TYPE_CHECKING:
    from sedmad.client.explanation import Explanation

Document = dict[str, Any]


def print_document(document: Document) -> None:
    """Print a document on stdout."""
    import json

    json.dump(document, sys.stdout, indent=2, ensure_ascii=True)
    sys.stdout.write("\n")


def status_document(status: GetStatusResponse) -> Document:
    """Return what `status` tells."""
    return {
        "node": {
            "peer_id": status.peer_id,
            "name": status.name,
            "state": node_state(status.state),
            "software_version": status.software_version,
            "addresses": list(status.addresses),
            "uptime_s": status.uptime_s,
            "labels": dict(status.labels),
            "device_profile": status.device_profile,
            "cells": {"pledged": status.cells_pledged, "used": status.cells_used},
            "compute_gflops": status.compute_gflops,
            "memory_bandwidth_bytes_per_s": status.memory_bandwidth_bytes_per_s,
            "is_admin": status.is_admin,
            "resident_set_bytes": status.resident_set_bytes,
        },
        "mesh": {"mesh_id": status.mesh_id},
        "peers": [peer_document(peer) for peer in status.peers],
        "memory": {"pledged_bytes": status.memory_pledged_bytes, "used_bytes": status.memory_used_bytes},
        "disk": {"pledged_bytes": status.disk_pledged_bytes, "used_bytes": status.disk_used_bytes},
        "copies": {
            "resident_bytes": status.disk_used_bytes - status.standby_bytes,
            "standby_bytes": status.standby_bytes,
            "owned_bytes": status.owned_bytes,
        },
        "pressure": {
            "memory_set_bytes": status.memory_set_bytes,
            "memory_short_bytes": status.memory_short_bytes,
        },
        "process": {"anonymous_bytes": status.anonymous_bytes, "mapped_bytes": status.mapped_bytes},
        "repairs": [repair_document(repair) for repair in status.repairs],
        "restored_bytes": status.restored_bytes,
        "matrices": [matrix_document(matrix) for matrix in status.matrices],
        "warnings": list(status.warnings),
    }


def repair_document(repair: RepairSummary) -> Document:
    """Return REPAIR: a matrix of this node's that is under repair, or waits for something."""
    return {
        "names": list(repair.names),
        "step_bytes": repair.step_bytes,
        "made_bytes": repair.made_bytes,
        "waiting_for": repair.waiting_for or None,
    }


def drain_document(drained: DrainNodeResponse, *, cancelled: bool) -> Document:
    """Return what `drain` tells."""
    return {
        "peer_id": drained.node.peer_id,
        "name": drained.node.name,
        "draining": not cancelled,
        "copies_left": drained.left.copies_left,
        "bytes_left": drained.left.bytes_left,
        "owned_left": drained.left.owned_left,
    }


def peers_document(peers: Iterable[PeerSummary]) -> Document:
    """Return what `peers` tells."""
    return {"peers": [peer_document(peer) for peer in peers]}


def peer_document(peer: PeerSummary) -> Document:
    """Return PEER."""
    return {
        "peer_id": peer.peer_id,
        "name": peer.name,
        "state": peer_state(peer.state),
        "path": peer.path or None,
        "rtt_ms": peer.rtt_ms if peer.HasField("rtt_ms") else None,
        "node_state": node_state(peer.node_state),
        "addresses": list(peer.addresses),
        "software_version": peer.software_version,
        "memory": {"pledged_bytes": peer.memory_pledged_bytes, "used_bytes": peer.memory_used_bytes},
        "disk": {"pledged_bytes": peer.disk_pledged_bytes, "used_bytes": peer.disk_used_bytes},
        "labels": dict(peer.labels),
        "device_profile": peer.device_profile,
        "cells": {"pledged": peer.cells_pledged, "used": peer.cells_used},
        "compute_gflops": peer.compute_gflops,
        "memory_bandwidth_bytes_per_s": peer.memory_bandwidth_bytes_per_s,
        "last_heard_s": peer.last_heard_s,
        "clock_skew_s": peer.clock_skew_s if peer.HasField("clock_skew_s") else None,
    }


def matrices_document(matrices: Iterable[MatrixSummary]) -> Document:
    """Return what `ls` tells."""
    return {"matrices": [matrix_document(matrix) for matrix in matrices]}


def matrix_document(matrix: MatrixSummary) -> Document:
    """Return MATRIX; `owner` is a peer id, `digest` names the content.

    `conflict`: another node's matrix won the name, and this one goes by name@author.
    """
    return {
        "name": matrix.name,
        "version": matrix.version,
        "conflict": is_conflict(matrix),
        "shape": [matrix.rows, matrix.columns],
        "dtype": dtype_name(matrix.data_type),
        "survive": matrix.survive,
        "owner": matrix.owner,
        "owner_name": matrix.owner_name,
        "size_bytes": matrix.size_bytes,
        "digest": matrix.matrix_digest.hex(),
        "stored_at_s": matrix.claimed_at_s,
        "resident_bytes_here": matrix.resident_bytes_here,
        "standby_bytes_here": matrix.standby_bytes_here,
    }


def is_conflict(matrix: MatrixSummary) -> bool:
    """Return whether another node's matrix won the name, and this one goes by name@author."""
    # No name contains an @ of its own.
    return "@" in matrix.name


def inspect_document(inspected: InspectMatrixResponse) -> Document:
    """Return what `inspect` tells."""
    return {
        **matrix_document(inspected.matrix),
        "epoch": inspected.epoch,
        "seq": inspected.seq,
        "guardians": [guardian.peer_id for guardian in inspected.guardians],
        "guardian_names": [guardian.name for guardian in inspected.guardians],
        "partition_rows": inspected.partition_rows,
        "scaled": inspected.scaled,
        "target_error": inspected.target_error,
        "profile": inspected.profile or None,
        "degraded": inspected.degraded or None,
        "partitions": [
            {
                "index": partition.index,
                "rows": [partition.row_start, partition.row_stop],
                "digest": partition.digest.hex(),
                "copies": [
                    {
                        "peer_id": copy.peer_id,
                        "name": copy.name,
                        "kind": copy_kind(copy.kind),
                        "state": peer_state(copy.state),
                        "devices": devices_document(copy.devices) if copy.HasField("devices") else None,
                    }
                    for copy in partition.copies
                ],
            }
            for partition in inspected.partitions
        ],
    }


def devices_document(report: DeviceReport) -> Document:
    """Return DEVICES: how a resident copy is computed with; errors are relative, L2."""
    return {
        "profile": report.profile,
        "predicted_error": report.predicted_error,
        "measured_error": report.measured_error,
        "cells": {"used": report.cells_used, "allocated": report.cells_allocated},
        "levers": list(report.levers),
        "age_s": report.age_s,
        "digital_because": report.digital_because or None,
    }


def verify_document(found: VerifyMeshResponse) -> Document:
    """Return what `verify` tells; nodes in the order of their names."""
    nodes = sorted(found.nodes, key=lambda verified: (verified.node.name, verified.node.peer_id))
    return {
        "clean": is_clean(found),
        "nodes": [_node_verification_document(verified) for verified in nodes],
        "matrices": [
            {
                "name": matrix.name,
                "degraded_partitions": matrix.degraded_partitions,
                "lost_partitions": matrix.lost_partitions,
                "error": matrix.error or None,
            }
            for matrix in found.matrices
        ],
    }


def is_clean(found: VerifyMeshResponse) -> bool:
    """Return whether every node could be asked, and nobody found a fault."""
    return not found.matrices and not any(
        verified.error or fault_count(verified.report) for verified in found.nodes
    )


def fault_count(report: StoreReport) -> int:
    """Return the faults of a store."""
    return len(report.corrupt) + len(report.missing) + len(report.orphaned) + report.more


def _node_verification_document(verified: NodeVerification) -> Document:
    report = verified.report
    return {
        "peer_id": verified.node.peer_id,
        "name": verified.node.name,
        "error": verified.error or None,
        "copies": report.copies,
        "blobs": report.blobs,
        "size_bytes": report.size_bytes,
        "corrupt": [_fault_document(fault) for fault in report.corrupt],
        "missing": [_fault_document(fault) for fault in report.missing],
        "orphaned": [_fault_document(fault) for fault in report.orphaned],
        "more": report.more,
    }


def _fault_document(fault: StoreFault) -> Document:
    of_matrix = fault.HasField("key")
    return {
        "digest": fault.digest.hex(),
        "matrix": fault.key.matrix_digest.hex() if of_matrix else None,
        "partition": fault.partition_index if of_matrix else None,
    }


def explanation_document(explanation: Explanation) -> Document:
    """Return how a product came about."""
    import dataclasses

    return dataclasses.asdict(explanation)


def node_state(state: NodeState.ValueType) -> str:
    """Return 'starting', 'ready' or 'draining'."""
    return _lower(NodeState, state, "NODE_STATE_")


def peer_state(state: PeerState.ValueType) -> str:
    """Return 'alive', 'suspect' or 'dead'."""
    return _lower(PeerState, state, "PEER_STATE_")


def copy_kind(kind: CopyKind.ValueType) -> str:
    """Return 'resident' or 'standby'."""
    return _lower(CopyKind, kind, "COPY_KIND_")


def dtype_name(data_type: DataType.ValueType) -> str:
    """Return 'float16', 'float32', 'float64' or 'int8'."""
    return _lower(DataType, data_type, "DATA_TYPE_")


def _lower(enum: Any, value: int, prefix: str) -> str:
    # A newer daemon may know more states than this client.
    return enum.Name(value).removeprefix(prefix).lower() if value in enum.values() else f"unknown-{value}"

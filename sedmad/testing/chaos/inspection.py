"""Looks, when nothing is broken any more, whether the mesh still keeps what it acknowledged, everywhere and whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

import sedmad
from sedmad.cli.json_contract import fault_count, is_clean
from sedmad.errors import MatrixNotFound, SedmadError
from sedmad.testing.chaos.catalogue import Catalogue, Entry
from sedmad.testing.chaos.history import History, told
from sedmad.testing.chaos.nodes import ChaosNode
from sedmad.wire.messages import PeerState, VerifyMeshResponse

# Repair and reconciling go on for a while after the last fault.
SETTLE_TIMEOUT_S = 60.0
# Bytes of a change that was given up are freed when those who took them hear of it.
VERIFY_TIMEOUT_S = 30.0
POLL_S = 1.0


def inspect(nodes: Mapping[str, ChaosNode], catalogue: Catalogue, history: History, *, survive: int) -> None:
    """Note every name that a node does not know as it is, every matrix that differs, every copy that is missing; and
    whatever verifying the mesh finds.

    Each node is asked again until it is right, for a while.
    """
    until_s = time.monotonic() + SETTLE_TIMEOUT_S
    for node in nodes.values():
        for entry in catalogue.entries:
            while faults := _faults(node, entry, survive):
                if time.monotonic() > until_s:
                    history.note_problem(f"{entry.name} at {node.name}, afterwards", faults)
                    break
                time.sleep(POLL_S)
    verifier = next(iter(nodes.values()))
    while faults := _verified(verifier):
        if time.monotonic() > until_s + VERIFY_TIMEOUT_S:
            history.note_problem(f"verify at {verifier.name}, afterwards", faults)
            break
        time.sleep(POLL_S)


def what_is_lacking(nodes: Mapping[str, ChaosNode], *, survive: int) -> str:
    """Return which copies manifests speak of that are not there now; nothing if all are.

    A node that has forgotten everything lacks nothing by its own account: its copies are counted.
    """
    given: Counter[str] = Counter()
    try:
        with next(iter(nodes.values())).connect() as mesh:
            for summary in mesh.summaries():
                if short := _missing_copies(mesh, summary.name, survive):
                    return f"{summary.name}: {short}"
                for partition in mesh.inspect(summary.name).partitions:
                    given.update(copy.name for copy in partition.copies)
            found = mesh.verify(quick=True)
    except SedmadError as error:
        return told(error)
    held = {verified.node.name: verified.report.copies for verified in found.nodes}
    fewer = [
        f"{name} has {held.get(name, 0)} copies of {count}"
        for name, count in sorted(given.items())
        if held.get(name, 0) < count
    ]
    return "; ".join([*_told_faults(found), *fewer])


def _verified(node: ChaosNode) -> str:
    """Return what verifying the mesh finds; nothing if all is well."""
    try:
        with node.connect() as mesh:
            found = mesh.verify()
    except SedmadError as error:
        return told(error)
    return "" if is_clean(found) else "; ".join(_told_faults(found))


def _told_faults(found: VerifyMeshResponse) -> Iterable[str]:
    for verified in found.nodes:
        report = verified.report
        if verified.error:
            yield f"{verified.node.name} was not verified: {verified.error}"
        elif fault_count(report):
            yield (
                f"{verified.node.name}: {len(report.corrupt)} corrupt, {len(report.missing)} missing, "
                f"{len(report.orphaned)} orphaned"
            )
    for matrix in found.matrices:
        yield (
            f"{matrix.name}: {matrix.degraded_partitions} partitions degraded, {matrix.lost_partitions} lost "
            f"{matrix.error}".strip()
        )


def _faults(node: ChaosNode, entry: Entry, survive: int) -> str:
    """Return what is not right about a name at a node; nothing if all is."""
    stored = [array for array in entry.expected() if array is not None]
    try:
        with node.connect() as mesh:
            found = mesh[entry.name].get()
            if not stored:
                return "it is still there"
            if not any(np.array_equal(array, found) for array in stored):
                return "its bytes are not those that were stored"
            return _missing_copies(mesh, entry.name, survive)
    except MatrixNotFound as error:
        return "" if None in entry.expected() else f"lost: {told(error)}"
    except SedmadError as error:
        return told(error)


def _missing_copies(mesh: sedmad.Mesh, name: str, survive: int) -> str:
    short = [
        partition.index
        for partition in mesh.inspect(name).partitions
        if sum(copy.state != PeerState.PEER_STATE_DEAD for copy in partition.copies) <= survive
    ]
    return f"partitions {short} have fewer than {survive + 1} copies" if short else ""

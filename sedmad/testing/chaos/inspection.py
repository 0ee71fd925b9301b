"""Looks, when nothing is broken any more, whether the mesh still keeps what it acknowledged, everywhere and whole."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

import sedmad
from sedmad.errors import MatrixNotFound, SedmadError
from sedmad.testing.chaos.catalogue import Catalogue, Entry
from sedmad.testing.chaos.history import History, told
from sedmad.testing.chaos.nodes import ChaosNode
from sedmad.wire.messages import PeerState

# Repair and reconciling go on for a while after the last fault.
SETTLE_TIMEOUT_S = 60.0
POLL_S = 1.0


def inspect(nodes: Mapping[str, ChaosNode], catalogue: Catalogue, history: History, *, survive: int) -> None:
    """Note every name that a node does not know as it is, every matrix that differs, every copy that is missing.

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

"""What a node offers: memory, compute, device, load, and where it is reached.

Owns the advert, its bounds, and the question whether a change is worth telling at once. An advert's sequence
is also SWIM's incarnation number: a suspicion names (peer, sequence), and only a newer advert of that peer
refutes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

from sedmad.errors import UsageError

NodeState = Literal["starting", "ready", "draining"]

NODE_STATES: tuple[NodeState, ...] = ("starting", "ready", "draining")
MAX_NODE_NAME_BYTES = 128  # one table column; the same bound as matrix names
MAX_ADDRESSES = 16  # direct, mapped and relayed addresses of both IP versions, with room to spare
MAX_ADDRESS_BYTES = 256  # a circuit address through a relay takes about 180
MAX_LABELS = 16  # an advert stays under 10 KiB, so that several fit into every gossip message
MAX_LABEL_BYTES = 64
MAX_SEQUENCE = (1 << 63) - 1  # a signed 64-bit number, which SQLite and protobuf both hold

# A load that moved by less than this much of itself waits for the next regular advert.
MATERIAL_CHANGE = 0.1
# Below these, a change is noise whatever it is relative to.
MATERIAL_BYTES = 16 << 20
MATERIAL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Advert:
    """One node's statement about itself.

    Attributes:
        sequence: grows with every advert, over restarts too: `first_sequence(boot_counter)` plus a count.
        addresses: multiaddresses at which the node can be dialled.
        memory_pledged_bytes: what the node lets the mesh use for resident copies.
        memory_free_bytes: what its machine really has free at the moment.
        memory_short_bytes: resident copies that manifests give it, and that its pledge has no room for now.
        compute_gflops: measured GFLOP/s of one product, one thread.
        device_profile: name of the crossbar device that computes; `ideal` is exact arithmetic.
        cells_pledged: cells of simulated crossbar arrays that the node lends.
        cells_used: those that hold weights, or are set aside for them.
        queue_s: expected wait before a product starts.
        service_s: smoothed time of one product once it has started.
        certificate_digest: SHA-256 of the node's certificate; fetched and checked before the advert counts.
        wall_time_s: the node's Unix time when it made this advert; only used to warn about skewed clocks.

    Raises:
        UsageError: a field is out of bounds. For an advert that a peer sent, the caller blames the peer.
    """

    peer_id: str
    name: str
    sequence: int
    addresses: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    version: str = ""
    state: NodeState = "starting"
    memory_pledged_bytes: int = 0
    memory_used_bytes: int = 0
    memory_free_bytes: int = 0
    memory_short_bytes: int = 0
    disk_pledged_bytes: int = 0
    disk_used_bytes: int = 0
    compute_gflops: float = 0.0
    memory_bandwidth_bytes_per_s: float = 0.0
    device_profile: str = "ideal"
    cells_pledged: int = 0
    cells_used: int = 0
    queue_s: float = 0.0
    service_s: float = 0.0
    certificate_digest: bytes = b""
    wall_time_s: float = 0.0

    def __post_init__(self) -> None:
        _require(0 < len(self.peer_id) <= MAX_NODE_NAME_BYTES, self, "its peer id is empty or too long")
        _require(
            len(self.name.encode()) <= MAX_NODE_NAME_BYTES,
            self,
            f"its name is over {MAX_NODE_NAME_BYTES} bytes",
        )
        _require(0 <= self.sequence <= MAX_SEQUENCE, self, "its sequence is no unsigned 63-bit number")
        _require(len(self.addresses) <= MAX_ADDRESSES, self, f"it has over {MAX_ADDRESSES} addresses")
        longest_address = max(map(len, self.addresses), default=0)
        _require(longest_address <= MAX_ADDRESS_BYTES, self, f"an address is over {MAX_ADDRESS_BYTES} bytes")
        _require(len(self.labels) <= MAX_LABELS, self, f"it has over {MAX_LABELS} labels")
        longest_label = max((len(part.encode()) for label in self.labels for part in label), default=0)
        _require(longest_label <= MAX_LABEL_BYTES, self, f"a label is over {MAX_LABEL_BYTES} bytes")
        _require(
            max(len(self.version), len(self.device_profile)) <= MAX_LABEL_BYTES,
            self,
            "a text field is too long",
        )
        _require(self.state in NODE_STATES, self, f"its state is none of {', '.join(NODE_STATES)}")
        _require(len(self.certificate_digest) <= 32, self, "its certificate digest is over 32 bytes")
        for amount in _AMOUNTS:
            value = getattr(self, amount)
            _require(math.isfinite(value) and value >= 0, self, f"{amount} is {value}")
        _require(math.isfinite(self.wall_time_s), self, f"wall_time_s is {self.wall_time_s}")


_AMOUNTS = (
    "memory_pledged_bytes",
    "memory_used_bytes",
    "memory_free_bytes",
    "memory_short_bytes",
    "disk_pledged_bytes",
    "disk_used_bytes",
    "compute_gflops",
    "memory_bandwidth_bytes_per_s",
    "cells_pledged",
    "cells_used",
    "queue_s",
    "service_s",
)
_UNREMARKABLE = {"sequence", "wall_time_s"}
_FLOORS = {"queue_s": MATERIAL_SECONDS, "service_s": MATERIAL_SECONDS}


def first_sequence(boot_counter: int) -> int:
    """Return the sequence before a boot's first advert; the node persists its boot counter first."""
    return boot_counter << 32


def differs_materially(told: Advert, current: Advert) -> bool:
    """Say whether peers should hear of `current` before the next regular advert is due."""
    for field in fields(Advert):
        before, after = getattr(told, field.name), getattr(current, field.name)
        if before == after or field.name in _UNREMARKABLE:
            continue
        if field.name not in _AMOUNTS or field.name.endswith("pledged_bytes"):
            return True
        floor = _FLOORS.get(field.name, MATERIAL_BYTES if field.name.endswith("_bytes") else 0.0)
        if abs(after - before) > max(floor, MATERIAL_CHANGE * before):
            return True
    return False


def _require(condition: bool, advert: Advert, why: str) -> None:
    if not condition:
        raise UsageError(
            f"the advert of {advert.peer_id[:64]!r} is not valid", why=why, node=advert.peer_id[:64]
        )

"""Whom a relay serves, and how much: pure admission of reservations and circuits. Owns no stream and no clock."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto

from sedmad.net.rate_limit import RateLimit

# Peers whose recent requests are counted; who asks least recently is forgotten. Sessions end at 512.
COUNTED_PEERS_MAX = 1024


@dataclass(frozen=True, slots=True)
class CircuitLimit:
    """When a circuit ends; None where it does not for that.

    Attributes:
        seconds: after its beginning.
        bytes: in each direction.
    """

    seconds: float | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """What a relay gives.

    Attributes:
        reservations_max: nodes that are reached through this one. Each keeps a connection here, of which there are
            640, and takes no memory beyond that.
        reservations_per_address_max: of them behind one address: a classroom behind one router.
        reservation_s: how long one lasts unless renewed; an hour, as elsewhere.
        circuits_max: at once. Each may have 512 KiB unread in each direction: 256 MiB where all ends stall.
        circuits_per_peer_max: that one peer dials or is dialled by: a quarter, and enough for a mesh of 32 twice.
        circuits_per_pair_max: between the same two, so that nobody takes all that another may have: one stands, one
            takes its place, and each side may dial.
        circuits_per_address_max: dialled from one address: half of them.
        begun_per_s: circuits that one peer may begin in the long run, circuits_per_peer_max at once.
        member: when a member's circuit ends.
        strangers_max: circuits of those who are no members, who come to join: one takes a second.
        strangers_per_address_max: of them from one address.
        strangers_begun_per_s: circuits that all of them may begin in the long run.
        stranger: when a stranger's circuit ends. Handshakes and joining take 20 KB and a second.
    """

    reservations_max: int = 256
    reservations_per_address_max: int = 64
    reservation_s: float = 3600.0
    circuits_max: int = 256
    circuits_per_peer_max: int = 64
    circuits_per_pair_max: int = 4
    circuits_per_address_max: int = 128
    begun_per_s: float = 1.0
    member: CircuitLimit | None = None
    strangers_max: int = 16
    strangers_per_address_max: int = 4
    strangers_begun_per_s: float = 2.0
    stranger: CircuitLimit | None = CircuitLimit(seconds=60.0, bytes=256 << 10)


class Refusal(Enum):
    """Why a relay does not do what it is asked for."""

    TOO_MANY = auto()
    NO_RESERVATION = auto()
    NOT_PERMITTED = auto()


@dataclass(frozen=True, slots=True, eq=False)
class AdmittedCircuit:
    """A circuit that has its place until `Admission.end`.

    Attributes:
        source: who dialled.
        target: who is dialled.
        address: the host that the source dials from.
        is_stranger: whether the source is no member.
        limit: when it ends.
    """

    source: str
    target: str
    address: str
    is_stranger: bool
    limit: CircuitLimit | None


@dataclass(frozen=True, slots=True)
class _Reserved:
    expires_at: float
    address: str


class Admission:
    """Counts what a relay has given away. Times are seconds of any monotonic clock."""

    def __init__(self, limits: RelayLimits) -> None:
        self.limits = limits
        self._reserved: dict[str, _Reserved] = {}
        self._circuits: set[AdmittedCircuit] = set()
        self._by_peer: Counter[str] = Counter()
        self._by_pair: Counter[str] = Counter()
        self._by_address: Counter[str] = Counter()
        self._strangers: Counter[str] = Counter()
        self._begun: OrderedDict[str, RateLimit] = OrderedDict()
        self._begun_by_strangers = RateLimit(limits.strangers_begun_per_s, limits.strangers_max)

    @property
    def circuit_count(self) -> int:
        """How many circuits have a place."""
        return len(self._circuits)

    @property
    def reservation_count(self) -> int:
        """How many peers have reserved, expired reservations among them until `forget_absent`."""
        return len(self._reserved)

    def has_reserved(self, peer_id: str, now: float) -> bool:
        """Return whether circuits to a peer may begin."""
        reserved = self._reserved.get(peer_id)
        return reserved is not None and now < reserved.expires_at

    def forget_absent(self, present: Collection[str], now: float) -> None:
        """Drop the reservations of those who are not connected, and those that are over."""
        for peer_id in [peer for peer in self._reserved if peer not in present]:
            del self._reserved[peer_id]
        for peer_id in [peer for peer in self._reserved if not self.has_reserved(peer, now)]:
            del self._reserved[peer_id]

    def reserve(self, peer_id: str, address: str, *, is_member: bool, now: float) -> Refusal | None:
        """Give a peer a reservation or renew it; return why not."""
        if not is_member:
            return Refusal.NOT_PERMITTED
        others = [reserved.address for peer, reserved in self._reserved.items() if peer != peer_id]
        if len(others) >= self.limits.reservations_max:
            return Refusal.TOO_MANY
        if others.count(address) >= self.limits.reservations_per_address_max:
            return Refusal.TOO_MANY
        self._reserved[peer_id] = _Reserved(now + self.limits.reservation_s, address)
        return None

    def begin(
        self, source: str, target: str, address: str, *, is_member: bool, now: float
    ) -> AdmittedCircuit | Refusal:
        """Give a circuit a place, or return why not."""
        if source == target:
            return Refusal.NOT_PERMITTED
        # Asking counts as well, so that nobody can ask for ever who has a reservation.
        rate = self._rate(source) if is_member else self._begun_by_strangers
        if not rate.allow(now):
            return Refusal.TOO_MANY
        if not self.has_reserved(target, now):
            return Refusal.NO_RESERVATION
        if self._is_full(source, target, address, is_member):
            return Refusal.TOO_MANY
        limit = self.limits.member if is_member else self.limits.stranger
        circuit = AdmittedCircuit(source, target, address, not is_member, limit)
        self._circuits.add(circuit)
        self._count(circuit, 1)
        return circuit

    def end(self, circuit: AdmittedCircuit) -> None:
        """Take back the place of a circuit."""
        if circuit in self._circuits:
            self._circuits.remove(circuit)
            self._count(circuit, -1)

    def _is_full(self, source: str, target: str, address: str, is_member: bool) -> bool:
        limits = self.limits
        if not is_member and (
            self._strangers.total() >= limits.strangers_max
            or self._strangers[address] >= limits.strangers_per_address_max
        ):
            return True
        return (
            len(self._circuits) >= limits.circuits_max
            or max(self._by_peer[source], self._by_peer[target]) >= limits.circuits_per_peer_max
            or self._by_pair[_pair(source, target)] >= limits.circuits_per_pair_max
            or self._by_address[address] >= limits.circuits_per_address_max
        )

    def _count(self, circuit: AdmittedCircuit, change: int) -> None:
        counted = [
            (self._by_peer, circuit.source),
            (self._by_peer, circuit.target),
            (self._by_pair, _pair(circuit.source, circuit.target)),
            (self._by_address, circuit.address),
        ]
        if circuit.is_stranger:
            counted.append((self._strangers, circuit.address))
        for counter, key in counted:
            counter[key] += change
            if not counter[key]:
                del counter[key]

    def _rate(self, peer_id: str) -> RateLimit:
        rate = self._begun.get(peer_id)
        if rate is None:
            rate = RateLimit(self.limits.begun_per_s, self.limits.circuits_per_peer_max)
            self._begun[peer_id] = rate
            if len(self._begun) > COUNTED_PEERS_MAX:
                self._begun.popitem(last=False)
        self._begun.move_to_end(peer_id)
        return rate


def _pair(one: str, other: str) -> str:
    return " ".join(sorted((one, other)))

"""What the simulator has in place of a wire: stand-ins for signatures, sizes and meters."""

from __future__ import annotations

from sedmad.core.membership import (
    Advert,
    Digests,
    Event,
    Gossip,
    IndirectAnswer,
    IndirectProbe,
    Inventory,
    Message,
    Probe,
    ProbeAnswer,
    Record,
    Rumour,
    SignedRecord,
)


class Meter:
    """Checks a byte budget from outside: a leaky bucket that holds one second's worth."""

    def __init__(self, bytes_per_second: int) -> None:
        self._rate = bytes_per_second
        self._level = 0.0
        self._at = 0.0

    def add(self, size_bytes: int, now: float) -> bool:
        """Count bytes that left; False when they are more than the budget allows."""
        self._level = max(0.0, self._level - (now - self._at) * self._rate) + size_bytes
        self._at = now
        return self._level <= self._rate + 1.0


def sign(record: Record) -> bytes:
    """Stand in for a signed encoding, of about its size."""
    return repr(record).encode()


def size_of(item: Message | SignedRecord | Rumour) -> int:
    """Return about what an item takes on the wire."""
    match item:
        case SignedRecord():
            return len(item.signed)
        case Rumour():
            return 16 + len(item.peer_id) + len(item.by)
        case Digests():
            return 32 + 8 * len(item.values)
        case Inventory():
            return 32 + 2 * len(item.buckets) + 16 * len(item.items)
        case IndirectProbe() | IndirectAnswer():
            return 40 + len(item.target)
        case Probe() | ProbeAnswer() | Gossip():
            records = sum(size_of(record) + 4 for record in item.records)
            rumours = sum(size_of(rumour) + 4 for rumour in item.rumours)
            wanted = 8 * len(item.wanted) if isinstance(item, Gossip) else 0
            return 48 + records + rumours + wanted


def describe(event: Event) -> str:
    """Return an event as one short line."""
    kind = type(event).__name__
    subject = getattr(event, "peer_id", None) or getattr(event, "name", "")
    extra = f" by {event.by}" if hasattr(event, "by") else ""
    signed = getattr(event, "signed", None)
    if signed is not None and isinstance(signed.record, Advert):
        extra = f" life {signed.record.sequence >> 32} advert {signed.record.sequence & 0xFFFFFFFF}"
    elif signed is not None:
        extra = (
            f" v{signed.record.version}@{signed.record.owner}{' removed' if signed.record.removed else ''}"
        )
    return f"{kind} {subject}{extra}"

"""Messages of the membership core as they travel, and back. Records inside are signed and checked in records.py."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from sedmad.core.membership.messages import (
    Digests,
    Gossip,
    IndirectAnswer,
    IndirectProbe,
    Inventory,
    Message,
    Probe,
    ProbeAnswer,
)
from sedmad.core.membership.record import SignedRecord
from sedmad.core.membership.rumour import Rumour
from sedmad.errors import ProtocolViolation
from sedmad.wire import messages as wire

METHOD = "membership"


def encode_message(message: Message) -> bytes:
    """Return a core's message as bytes."""
    return _to_wire(message).SerializeToString()


def _to_wire(message: Message) -> wire.MembershipMessage:
    match message:
        case Probe():
            out = wire.MembershipMessage(probe=wire.Probe(probe_id=message.probe_id, rtt_s=message.rtt_s))
        case ProbeAnswer():
            out = wire.MembershipMessage(probe_answer=wire.ProbeAnswer(probe_id=message.probe_id))
        case IndirectProbe():
            inner = wire.IndirectProbe(probe_id=message.probe_id, target=message.target)
            return wire.MembershipMessage(indirect_probe=inner)
        case IndirectAnswer():
            answer = wire.IndirectAnswer(
                probe_id=message.probe_id, target=message.target, reached=message.reached
            )
            return wire.MembershipMessage(indirect_answer=answer)
        case Gossip():
            out = wire.MembershipMessage(gossip=wire.Gossip(wanted=message.wanted, repair=message.repair))
        case Digests():
            return wire.MembershipMessage(digests=wire.Digests(values=message.values))
        case Inventory():
            inventory = wire.Inventory(
                bucket_count=message.bucket_count,
                buckets=message.buckets,
                keys=[key for key, _ in message.items],
                stamps=[stamp for _, stamp in message.items],
            )
            return wire.MembershipMessage(inventory=inventory)
    out.records.extend(wire.SignedRecord.FromString(signed.signed) for signed in message.records)
    out.rumours.extend(_rumour_to_wire(rumour) for rumour in message.rumours)
    return out


def decode_message(encoded: bytes) -> wire.MembershipMessage:
    """Return the message before its records are checked.

    Raises:
        ProtocolViolation: the bytes are no membership message.
    """
    try:
        return wire.MembershipMessage.FromString(encoded)
    except DecodeError as error:
        raise ProtocolViolation("a membership message is malformed", why=str(error)) from error


def to_core(message: wire.MembershipMessage, records: Iterable[SignedRecord]) -> Message:
    """Return the core's message, with those of its records that were found good.

    Raises:
        ProtocolViolation: a part has no meaning here.
    """
    kept = tuple(records)
    rumours = tuple(_rumour_from_wire(rumour) for rumour in message.rumours)
    match message.WhichOneof("kind"):
        case "probe":
            rtt_s = message.probe.rtt_s if message.probe.HasField("rtt_s") else None
            return Probe(message.probe.probe_id, kept, rumours, rtt_s)
        case "probe_answer":
            return ProbeAnswer(message.probe_answer.probe_id, kept, rumours)
        case "indirect_probe":
            return IndirectProbe(message.indirect_probe.probe_id, message.indirect_probe.target)
        case "indirect_answer":
            answer = message.indirect_answer
            return IndirectAnswer(answer.probe_id, answer.target, answer.reached)
        case "gossip":
            return Gossip(kept, rumours, tuple(message.gossip.wanted), message.gossip.repair)
        case "digests":
            return Digests(tuple(message.digests.values))
        case "inventory":
            inventory = message.inventory
            if len(inventory.keys) != len(inventory.stamps):
                raise ProtocolViolation("an inventory has keys without stamps")
            items = tuple(zip(inventory.keys, inventory.stamps, strict=True))
            return Inventory(inventory.bucket_count, tuple(inventory.buckets), items)
    raise ProtocolViolation("a membership message says nothing")


def size_of(part: object) -> int:
    """Return the bytes that a message, a record or a rumour takes on the wire."""
    if isinstance(part, SignedRecord):
        return len(part.signed) + 4
    if isinstance(part, Rumour):
        return _rumour_to_wire(part).ByteSize() + 3
    return _to_wire(part).ByteSize()  # type: ignore[arg-type]


def _rumour_to_wire(rumour: Rumour) -> wire.Rumour:
    kind = wire.RUMOUR_KIND_SUSPECT if rumour.kind == "suspect" else wire.RUMOUR_KIND_DEAD
    return wire.Rumour(kind=kind, peer_id=rumour.peer_id, advert_sequence=rumour.sequence, accuser=rumour.by)


def _rumour_from_wire(rumour: wire.Rumour) -> Rumour:
    if rumour.kind not in (wire.RUMOUR_KIND_SUSPECT, wire.RUMOUR_KIND_DEAD):
        raise ProtocolViolation("a rumour of an unknown kind")
    kind = "suspect" if rumour.kind == wire.RUMOUR_KIND_SUSPECT else "dead"
    return Rumour(kind, rumour.peer_id, rumour.advert_sequence, rumour.accuser)  # type: ignore[arg-type]

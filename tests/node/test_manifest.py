from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from examples import identity_of, manifest_of
from hypothesis import given
from hypothesis import strategies as st

from sedmad.errors import CertificateInvalid, PeerError, ProtocolViolation
from sedmad.node.manifest import MANIFEST_DOMAIN, read_manifest, sign_manifest
from sedmad.node.succession import COUNTER_MAX
from sedmad.store.holdings import Kind
from sedmad.wire import messages as wire

ANN, BEN = identity_of("ann"), identity_of("ben")
PEERS = [ANN.peer_id, BEN.peer_id, identity_of("cyd").peer_id]


@given(
    rows=st.integers(1, 50_000),
    columns=st.integers(1, 3000),
    dtype=st.sampled_from(["float32", "float64"]),
    seq=st.integers(0, COUNTER_MAX),
    survive=st.integers(0, 8),
    removed=st.booleans(),
    data=st.data(),
)
def test_what_was_signed_is_read(
    rows: int, columns: int, dtype: str, seq: int, survive: int, removed: bool, data: st.DataObject
) -> None:
    manifest = manifest_of(rows, columns, dtype, seq=seq, survive=survive, removed=removed, written_at_s=1.5)
    copies = tuple(
        data.draw(st.dictionaries(st.sampled_from(PEERS), st.sampled_from(Kind), min_size=1))
        for _ in manifest.digests
    )
    manifest = replace(manifest, copies=copies)
    read = read_manifest(sign_manifest(manifest, ANN))
    assert replace(read, encoded=b"", guardianship=b"") == manifest
    assert [list(held) for held in read.copies] == [list(held) for held in copies]
    assert read.holders == {peer for held in copies for peer in held}
    assert sum(read.size_of(index) for index in range(len(copies))) == read.size_bytes
    assert read.rows_of(len(copies) - 1)[1] == rows


@given(st.data())
def test_any_changed_bit_is_refused(data: st.DataObject) -> None:
    signed = sign_manifest(manifest_of(100, 10), ANN)
    part = data.draw(st.sampled_from(["manifest", "signature", "owner_public_key"]))
    changed = bytearray(getattr(signed, part))
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    setattr(signed, part, bytes(changed))
    with pytest.raises(PeerError):
        read_manifest(signed)


def spoilt(spoil: Callable[[wire.Manifest], object]) -> wire.SignedManifest:
    """Return a manifest that its owner signed as it is, contradictions and all."""
    signed = sign_manifest(manifest_of(5000, 1024), ANN)
    message = wire.Manifest.FromString(signed.manifest)
    spoil(message)
    signed.manifest = message.SerializeToString()
    signed.signature = ANN.sign(MANIFEST_DOMAIN, signed.manifest)
    return signed


@pytest.mark.parametrize(
    "spoil",
    [
        lambda message: setattr(message, "rows", 0),
        lambda message: setattr(message, "rows", 10_000_000),
        lambda message: setattr(message, "columns", 2**63),
        lambda message: setattr(message, "partition_rows", 64),
        lambda message: setattr(message, "data_type", 0),
        lambda message: setattr(message, "matrix_digest", bytes(32)),
        lambda message: message.partitions.pop(),
        lambda message: message.holders.pop(),
        lambda message: message.partitions[0].ClearField("copies"),
        lambda message: setattr(message.partitions[0], "digest", b"short"),
        lambda message: setattr(message.partitions[0].copies[0], "holder", 9),
        lambda message: setattr(message.partitions[0].copies[0], "kind", 0),
        lambda message: message.partitions.append(message.partitions[0]),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(spoil: Callable[[wire.Manifest], object]) -> None:
    with pytest.raises(ProtocolViolation):
        read_manifest(spoilt(spoil))


@pytest.mark.parametrize("epoch", [0, 1])
def test_ownership_does_not_pass_by_being_claimed(epoch: int) -> None:
    stolen = replace(manifest_of(100, 10), owner=BEN.peer_id, epoch=epoch)
    with pytest.raises(CertificateInvalid):
        read_manifest(sign_manifest(stolen, BEN))


def test_an_owner_does_not_sign_for_another() -> None:
    with pytest.raises(CertificateInvalid):
        read_manifest(sign_manifest(manifest_of(100, 10), BEN))


@pytest.mark.parametrize("manifest", [b"\xff", b""])
def test_what_is_no_manifest_is_refused(manifest: bytes) -> None:
    with pytest.raises(PeerError):
        read_manifest(wire.SignedManifest(manifest=manifest, owner_public_key=b"short"))


def test_an_order_that_no_table_holds_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        read_manifest(sign_manifest(manifest_of(100, 10, seq=2**63), ANN))

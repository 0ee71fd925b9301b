"""The name of a matrix's content: equal digests mean equal type, shape, partitioning, bytes, scale and accuracy."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable


def matrix_digest(
    data_type: int,
    rows: int,
    columns: int,
    partition_rows: int,
    partition_digests: Iterable[bytes],
    scale: bytes = b"",
    target_error: float = 0.0,
    profile: str = "",
) -> bytes:
    """Return SHA-256 over type, shape, partition height (little-endian uint64), the partitions' digests, that of a
    scale, and what is asked of products: the same bytes multiplied exactly and on devices are two matrices.

    Args:
        data_type: a DataType of the contract.
        rows: rows of the matrix.
        columns: columns of the matrix.
        partition_rows: height of every partition but the last.
        partition_digests: 32 bytes each, in order; shape and height say how many.
        scale: little-endian float32, one for each row.
        target_error: of products, hashed as little-endian float64; 0 where they are exact.
        profile: of the devices that are demanded, "" for any.
    """
    digest = hashlib.sha256(b"sedma/v1/matrix\0")
    digest.update(struct.pack("<4Q", data_type, rows, columns, partition_rows))
    for partition_digest in partition_digests:
        digest.update(partition_digest)
    if scale:
        digest.update(hashlib.sha256(scale).digest())
    if target_error:
        asked = b"accuracy\0" + struct.pack("<d", target_error) + profile.encode()
        digest.update(hashlib.sha256(asked).digest())
    return digest.digest()

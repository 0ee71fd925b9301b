"""The name of a matrix's content: equal digests mean equal type, shape, partitioning, bytes and scale."""

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
) -> bytes:
    """Return SHA-256 over type, shape, partition height (little-endian uint64), the partitions' digests, and that of a
    scale.

    Args:
        data_type: a DataType of the contract.
        rows: rows of the matrix.
        columns: columns of the matrix.
        partition_rows: height of every partition but the last.
        partition_digests: 32 bytes each, in order; shape and height say how many.
        scale: little-endian float32, one for each row.
    """
    digest = hashlib.sha256(b"sedma/v1/matrix\0")
    digest.update(struct.pack("<4Q", data_type, rows, columns, partition_rows))
    for partition_digest in partition_digests:
        digest.update(partition_digest)
    if scale:
        digest.update(hashlib.sha256(scale).digest())
    return digest.digest()

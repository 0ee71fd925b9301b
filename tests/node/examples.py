"""Identities, matrices and manifests that tests share."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from sedmad.core.partitioning import Partitioning
from sedmad.net.identity import Identity
from sedmad.node.manifest import ITEMSIZE, Manifest
from sedmad.node.records import DATA_TYPES
from sedmad.store.holdings import Kind
from sedmad.store.manifests import ManifestKey
from sedmad.wire.matrix_digest import matrix_digest


def identity_of(name: str) -> Identity:
    """Return the same identity for the same name, always."""
    return Identity.from_seed(hashlib.sha256(name.encode()).digest())


@cache
def matrix(rows: int = 300, columns: int = 50, dtype: str = "float32", seed: int = 0) -> np.ndarray[Any, Any]:
    """Return a matrix of normal values."""
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)
    values.flags.writeable = False
    return values


def manifest_of(rows: int, columns: int, dtype: str = "float32", **changes: object) -> Manifest:
    """Return a manifest of ann's that its own checks accept; a standby copy of everything is at ben."""
    owner, standby = identity_of("ann"), identity_of("ben").peer_id
    cut = Partitioning(rows, columns, ITEMSIZE[dtype])
    digests = tuple(bytes([index % 256]) * 32 for index in range(cut.count))
    content = matrix_digest(DATA_TYPES[dtype], rows, columns, cut.partition_rows, digests)
    manifest = Manifest(
        key=ManifestKey(content, owner.peer_id),
        owner=owner.peer_id,
        guardians=(owner.peer_id,),
        epoch=0,
        seq=1,
        dtype=dtype,
        rows=rows,
        columns=columns,
        partition_rows=cut.partition_rows,
        survive=1,
        digests=digests,
        copies=tuple({owner.peer_id: Kind.RESIDENT, standby: Kind.STANDBY} for _ in digests),
    )
    return replace(manifest, **changes)  # type: ignore[arg-type]


SPREAD_ROWS, SPREAD_COLUMNS, SPREAD_HEIGHT = 250, 6, 64
SPREAD_HOLDERS = ("ann", "ben", "cyd", "dan")


def spread_manifest(dtype: str = "float32", copies: int = 2) -> Manifest:
    """Return a manifest of four partitions; partition i is resident at holder i, standby at those behind it."""
    count = -(-SPREAD_ROWS // SPREAD_HEIGHT)
    return Manifest(
        key=ManifestKey(bytes(32), "ann"),
        owner="ann",
        guardians=("ann",),
        epoch=0,
        seq=1,
        dtype=dtype,
        rows=SPREAD_ROWS,
        columns=SPREAD_COLUMNS,
        partition_rows=SPREAD_HEIGHT,
        survive=copies - 1,
        digests=(bytes(32),) * count,
        copies=tuple(
            {
                SPREAD_HOLDERS[(index + place) % len(SPREAD_HOLDERS)]: Kind.STANDBY
                if place
                else Kind.RESIDENT
                for place in range(copies)
            }
            for index in range(count)
        ),
    )

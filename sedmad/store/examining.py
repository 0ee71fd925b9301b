"""Looks at a store from outside, also while a daemon has it open: what is damaged. Changes nothing."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sedmad.errors import BytesCorrupt
from sedmad.store.blob import DiskReader
from sedmad.store.blobs import is_blob_name
from sedmad.store.database import BUSY_TIMEOUT_S
from sedmad.store.schema import MIGRATIONS


@dataclass(frozen=True, slots=True)
class BlobSample:
    """What was read of the stored bytes.

    Attributes:
        files: how many there are.
        read, read_bytes: how many were read.
        changed: those whose bytes are not what they are named after.
    """

    files: int
    read: int
    read_bytes: int
    changed: tuple[Path, ...]


def fault_of_database(path: Path) -> str:
    """Return what is wrong with the database, empty where it is sound or was not made yet."""
    if not path.exists():
        return ""
    # Even readers make the log's files where they are missing; a database without them was closed, and stays as it is.
    closed = not path.with_name(f"{path.name}-wal").exists()
    uri = f"file:{quote(str(path))}?{'immutable=1' if closed else 'mode=ro'}"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
            # Like integrity_check, without comparing indexes with tables: a fraction of the time.
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            (version,) = connection.execute("PRAGMA user_version").fetchone()
    except (sqlite3.Error, UnicodeDecodeError) as error:
        return str(error)
    if found != "ok":
        return " ".join(str(found).split())
    if version > len(MIGRATIONS):
        return f"a newer sedmad wrote it: its schema has version {version}, this one knows {len(MIGRATIONS)}"
    return ""


def examine_blobs(directory: Path, rng: random.Random, sample_bytes: int) -> BlobSample:
    """Read files in random order until `sample_bytes` are read, and compare them with the digests in their names."""
    paths = [path for path in sorted(directory.glob("[0-9a-f][0-9a-f]/*")) if is_blob_name(path.name)]
    chosen = rng.sample(paths, len(paths))
    read = read_bytes = 0
    changed = []
    for path in chosen:
        if read_bytes >= sample_bytes:
            break
        try:
            digest, size_bytes = _digest_of(path)
        except BytesCorrupt:
            # The daemon may have deleted it meanwhile.
            if path.exists():
                changed.append(path)
                read += 1
            continue
        read += 1
        read_bytes += size_bytes
        if digest.hex() != path.name and path.exists():
            changed.append(path)
    return BlobSample(len(paths), read, read_bytes, tuple(changed))


def _digest_of(path: Path) -> tuple[bytes, int]:
    with closing(DiskReader(path)) as reader:
        total_bytes = 0
        while size_bytes := reader.read_chunk()[0]:
            total_bytes += size_bytes
        return reader.digest, total_bytes

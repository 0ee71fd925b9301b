"""The file system under the store: its space and what of it stays free, its errors, names that survive a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sedmad.errors import DiskFull, StoreUnusable

_FULL = (errno.ENOSPC, errno.EDQUOT)

# Manifests, tombstones and the database's log must still be written when there is no room for another copy: the log
# takes up to 16 MiB, a checkpoint and a snapshot the size of the tables. A small disk spares a twentieth.
RESERVE_BYTES = 64 << 20
RESERVE_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes of a file system: all, and those an unprivileged process may still use."""

    total_bytes: int
    free_bytes: int

    @property
    def reserve_bytes(self) -> int:
        """What no blob may take."""
        return min(RESERVE_BYTES, int(RESERVE_SHARE * self.total_bytes))

    @property
    def room_bytes(self) -> int:
        """What blobs may still take."""
        return max(0, self.free_bytes - self.reserve_bytes)


def disk_space(path: Path) -> DiskSpace:
    """Return the space of the file system that holds `path`."""
    status = os.statvfs(path)
    return DiskSpace(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)


def fsync_directory(path: Path) -> None:
    """Make the names in a directory durable: a rename or unlink survives a power cut only after this."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_room(path: Path, needed_bytes: int) -> None:
    """Raise DiskFull, with the arithmetic, when `needed_bytes` more on the disk of `path` would touch the reserve."""
    space = disk_space(path)
    if needed_bytes > space.room_bytes:
        raise _full(path, needed_bytes, space)


@contextmanager
def writing(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn errors of the disk inside the block into typed ones that name the directory of `path`.

    Raises DiskFull for 'no space left' and 'quota exceeded', with the arithmetic; StoreUnusable for all others.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise _full(path.parent, needed_bytes, disk_space(path.parent), str(error.strerror)) from error
        raise StoreUnusable(
            f"The disk under {path.parent} cannot be written",
            why=f"{error.strerror or error}.",
            hint="The disk may be failing: see the log of the system.",
        ) from error


def _full(directory: Path, needed_bytes: int, space: DiskSpace, told: str = "") -> DiskFull:
    return DiskFull(
        f"The disk under {directory} is full",
        why=f"{needed_bytes:,} bytes are needed, {space.free_bytes:,} are free, of which {space.reserve_bytes:,} stay"
        f" free for what must be written in any case{f' ({told})' if told else ''}.",
    )

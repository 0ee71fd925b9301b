"""The file system under the store: its space, its errors, and names that survive a power cut."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sedmad.errors import DiskFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes of a file system: all, and those an unprivileged process may still use."""

    total_bytes: int
    free_bytes: int


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


@contextmanager
def writing(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn 'no space left' and 'quota exceeded' inside the block into DiskFull with both figures."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free_bytes = disk_space(path.parent).free_bytes
        raise DiskFull(
            f"The disk under {path.parent} is full",
            why=f"{needed_bytes:,} bytes are needed, {free_bytes:,} are free ({error.strerror}).",
        ) from error

"""One daemon per home: an advisory lock on a file that names the process holding it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sedmad.errors import HomeInUse


@contextmanager
def locked_home(lock_file: Path) -> Iterator[None]:
    """Hold the home of `lock_file` for the length of the block.

    The system drops the lock with the process, however that ends; the file stays, because deleting it would
    let two processes lock two files of one name. Raises HomeInUse with the pid of the holder and the home.
    """
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise HomeInUse(
                f"Another daemon runs on the home {lock_file.parent}",
                why=f"It is the process {holder}." if holder else "It is just starting.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)

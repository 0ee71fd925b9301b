"""Files that hold secrets: written whole or not at all, for their owner's eyes only."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from sedmad.errors import ConfigurationInvalid


def write_private(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file in one step, synced to disk; its folder is made with mode 0700 where it is missing.

    Args:
        path: replaced where it exists.
        data: the content.
        mode: permissions; the default is for secrets.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_private(path: Path) -> bytes:
    """Return the content of a file that nobody but its owner may read.

    Raises:
        ConfigurationInvalid: the file is missing, unreadable, or open to others.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise ConfigurationInvalid(
                    f"the key file {path} can be read by others",
                    why=f"its mode is {mode:04o}",
                    hint=f"Close it with: chmod 600 {path}",
                )
            return file.read()
    except OSError as error:
        raise ConfigurationInvalid(
            f"cannot read the key file {path}", why=error.strerror or str(error)
        ) from error

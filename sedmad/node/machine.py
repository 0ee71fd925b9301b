"""What this machine has: memory, disk, and what is pledged of them."""

from __future__ import annotations

import os
from pathlib import Path

from sedmad.errors import ConfigurationInvalid, UsageError
from sedmad.sizes import parse_size


def memory_total_bytes() -> int:
    """Return this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory_free_bytes() -> int:
    """Return the memory that programs could still take without swapping (MemAvailable)."""
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        for line in meminfo:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def pledge_bytes(setting: str, text: str, of_bytes: int) -> int:
    """Return a pledge such as "2GiB" or "80%" in bytes.

    Args:
        setting: how the user calls it.
        of_bytes: what a percentage is of.

    Raises:
        ConfigurationInvalid: it is no size, or more than there is.
    """
    try:
        pledged_bytes = parse_size(text, total_bytes=of_bytes)
    except UsageError as error:
        raise ConfigurationInvalid(
            f"{setting} {text!r} is no size", why=error.why, hint=error.hint
        ) from error
    if pledged_bytes > of_bytes:
        raise ConfigurationInvalid(
            f"{setting} {text!r} is more than there is", why=f"{pledged_bytes:,} of {of_bytes:,} bytes"
        )
    return pledged_bytes


def disk_free_bytes(path: Path) -> int:
    """Return what an unprivileged process may still write."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize

"""What this machine has: memory, disk, and what is pledged of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sedmad.core.pressure import MemoryReading
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


def read_memory(
    cgroup_root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> MemoryReading:
    """Return what bounds this process: the machine's memory, or that of a control group, whichever leaves less."""
    readings = [MemoryReading(memory_total_bytes(), memory_free_bytes())]
    for folder in _memory_groups(cgroup_root, own):
        reading = _read_group(folder)
        if reading is not None and reading.limit_bytes < readings[0].limit_bytes:
            readings.append(reading)
    return min(readings, key=lambda reading: reading.available_bytes - reading.reserve_bytes)


def _memory_groups(root: Path, own: Path) -> Iterator[Path]:
    """Yield the control groups that bound this process, its own first (cgroups(7)); a parent bounds its children."""
    try:
        lines = own.read_text(encoding="ascii").splitlines()
    except OSError:
        # Not every system has control groups.
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / "memory" if controllers else root
            folder = top / path.lstrip("/")
            # In a container its own group is mounted at the top, under whatever name it has outside.
            yield from (parent for parent in (folder, *folder.parents) if parent.is_relative_to(top))


def _read_group(folder: Path) -> MemoryReading | None:
    for limit_name, usage_name, cache_name in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit_bytes = int((folder / limit_name).read_text(encoding="ascii"))
            used_bytes = int((folder / usage_name).read_text(encoding="ascii"))
            statistics = (folder / "memory.stat").read_text(encoding="ascii")
        except (OSError, ValueError):
            # Another version of control groups, no such group here, or no limit ("max").
            continue
        cached_bytes = sum(
            int(line.split()[1]) for line in statistics.splitlines() if line.startswith(f"{cache_name} ")
        )
        return MemoryReading(limit_bytes, max(0, limit_bytes - used_bytes + cached_bytes))
    return None


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


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What this process has in memory: its own, and pages of mapped files, which the kernel may drop."""

    anonymous_bytes: int
    mapped_bytes: int

    @property
    def resident_set_bytes(self) -> int:
        return self.anonymous_bytes + self.mapped_bytes


def process_memory() -> ProcessMemory:
    """Return what this process has in memory (proc(5), statm)."""
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    with open("/proc/self/statm", encoding="ascii") as statm:
        _, resident, mapped, *_ = (int(pages) * page_bytes for pages in statm.read().split())
    return ProcessMemory(resident - mapped, mapped)

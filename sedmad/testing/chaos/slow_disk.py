"""A disk that has become slow, for one process: a bound on its writes, set through Linux control groups as root."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# An old SD card: a partition of 8 MiB takes eight seconds.
BYTES_PER_S = 1 << 20
PROBE_MEBIBYTES = 2
PROBE_TIMEOUT_S = 30.0
CGROUPS = Path("/sys/fs/cgroup")


class SlowDiskUnavailable(Exception):
    """No bound can be set here; the text says why."""


class SlowDisk:
    """A control group whose processes write slowly to the disk of a folder.

    Args:
        folder: on that disk.

    Raises:
        SlowDiskUnavailable: there is no such disk, no such controller, or it has no effect.
    """

    def __init__(self, folder: Path) -> None:
        device = _disk_of(folder)
        try:
            self._group, self._everybody = _make_group(device)
        except OSError as error:
            raise SlowDiskUnavailable(
                f"a control group that bounds writes cannot be made: {error}"
            ) from error
        try:
            self._require_effect(folder)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def slowing(self, process_id: int) -> Iterator[None]:
        """Have a process write slowly while the block runs."""
        (self._group / "cgroup.procs").write_text(str(process_id))
        try:
            yield
        finally:
            # It may have ended.
            with suppress(ProcessLookupError):
                (self._everybody / "cgroup.procs").write_text(str(process_id))

    def close(self) -> None:
        with suppress(OSError):
            self._group.rmdir()

    def _require_effect(self, folder: Path) -> None:
        path = folder / "slow-disk-probe"
        script = 'echo $$ >"$0" && exec dd if=/dev/zero of="$1" bs=1M count="$2" conv=fsync'
        arguments = [str(self._group / "cgroup.procs"), str(path), str(PROBE_MEBIBYTES)]
        began = time.monotonic()
        try:
            subprocess.run(
                ["sh", "-c", script, *arguments], check=True, capture_output=True, timeout=PROBE_TIMEOUT_S
            )
        except subprocess.SubprocessError as error:
            raise SlowDiskUnavailable(f"writing in the control group failed: {error}") from error
        finally:
            path.unlink(missing_ok=True)
        if time.monotonic() - began < (PROBE_MEBIBYTES << 20) / BYTES_PER_S / 2:
            raise SlowDiskUnavailable("the control group's bound has no effect on this disk")


def _disk_of(folder: Path) -> str:
    """Return "major:minor" of the whole disk that a folder lies on."""
    number = folder.stat().st_dev
    entry = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not entry.exists():
        raise SlowDiskUnavailable(f"{folder} does not lie on a block device")
    disk = entry.resolve().parent if (entry / "partition").exists() else entry.resolve()
    return (disk / "dev").read_text().strip()


def _make_group(device: str) -> tuple[Path, Path]:
    """Return a new group with the bound, and the group of all other processes. OSError where that is not allowed."""
    name = f"sedmad-chaos-{os.getpid()}"
    if (legacy := CGROUPS / "blkio").is_dir():
        group, everybody = legacy / name, legacy
        group.mkdir()
        (group / "blkio.throttle.write_bps_device").write_text(f"{device} {BYTES_PER_S}")
        return group, everybody
    everybody, group = CGROUPS, CGROUPS / name
    (everybody / "cgroup.subtree_control").write_text("+io")
    group.mkdir()
    (group / "io.max").write_text(f"{device} wbps={BYTES_PER_S}")
    return group, everybody

"""Owns the compilation of kernels ahead of their first use: in a child process, into a cache that the parent loads.

    python -m crossbar.kernels.compiling GROUP

compiles one group into the folder that `NUMBA_CACHE_DIR` names and reports each kernel on stdout. The caller chooses
where caches are; one folder there belongs to one group, one processor and one set of versions, so that what another
machine or an older release left behind is never loaded. What was written is listed with digests: a damaged cache is
made anew.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crossbar.errors import KernelsUnavailable
from crossbar.kernels.groups import GROUPS, Kernel, narrow

COMPILE_TIMEOUT_S = 600.0
"""All kernels take 15 s on a busy core; a compiler that is silent for this long hangs."""

_LISTING = "kernels.json"
_LISTING_BYTES_MAX = 1 << 20  # a few dozen names and digests
_PACKAGES = ("numba", "llvmlite", "numpy")
_LOADING = threading.Lock()  # where numba keeps its cache is one setting of the whole process


@dataclass(frozen=True, slots=True)
class Compiled:
    """One kernel that is ready.

    Attributes:
        name: of the kernel.
        done, total: how many are ready, and how many there are.
    """

    name: str
    done: int
    total: int


def cache_folder(caches: Path, group: str) -> Path:
    """Return the folder under `caches` for a group of kernels on this processor with these versions."""
    import llvmlite.binding as llvm

    features = ",".join(sorted(name for name, has in llvm.get_host_cpu_features().items() if has))
    parts = [llvm.get_host_cpu_name(), features, f"{sys.version_info.major}.{sys.version_info.minor}"]
    parts += [f"{package} {version(package)}" for package in _PACKAGES]
    parts.append(_sources_digest())
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return caches / f"{group}-{digest[:24]}"


def load(caches: Path, group: str) -> None:
    """Make the kernels of a group ready in this process: from its folder, or compiled into it where it lacks them.

    Call it after `compile_in_child`.
    """
    import numba

    folder = str(cache_folder(caches, group))
    with _LOADING:
        before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
        numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]
        try:
            for kernel in GROUPS[group]:
                dispatcher = _dispatcher(kernel)
                dispatcher.enable_caching()  # in this folder, wherever the module was imported first
                dispatcher.compile(numba_types(kernel))
        finally:
            numba.config.CACHE_DIR = before  # type: ignore[attr-defined]


def compile_in_child(
    caches: Path,
    group: str,
    progress: Callable[[Compiled], None] = lambda _: None,
    *,
    niceness: int = 0,
    timeout_s: float = COMPILE_TIMEOUT_S,
) -> Path:
    """Compile a group of kernels in a child process, unless a whole cache is there; return its folder.

    Blocks: call it in a worker thread. Damaged caches are thrown away and made anew.

    Args:
        caches: where caches are, made if need be; nobody but the user may write to it.
        group: a key of `GROUPS`.
        progress: told of every kernel.
        niceness: of the child, as of `nice`.
        timeout_s: after which the child is ended.

    Raises:
        KernelsUnavailable: this processor cannot run them, the folder cannot be written, the compiler failed, or it
            took longer than `timeout_s`.
    """
    _check_processor(group)
    folder = cache_folder(caches, group)
    if is_whole(folder):
        return folder
    try:
        caches.mkdir(mode=0o700, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=caches))
    except OSError as error:
        raise KernelsUnavailable(
            f"compiled kernels cannot be kept in {caches}",
            why=str(error),
            hint="Make that folder writable, or choose another.",
        ) from error
    try:
        _compile_into(making, group, progress, niceness, timeout_s)
        _write_listing(making)
        _move(making, folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def _check_processor(group: str) -> None:
    import llvmlite.binding as llvm

    widens = platform.machine().lower() in ("aarch64", "arm64") or llvm.get_host_cpu_features().get("f16c")
    if group == narrow("float16") and not widens:
        raise KernelsUnavailable(
            f"the {group} kernels were not compiled",
            why="this processor has no instruction that widens float16",
            hint="BLAS computes these products, slower and as exactly.",
        )


def _compile_into(
    folder: Path, group: str, progress: Callable[[Compiled], None], niceness: int, timeout_s: float
) -> None:
    command = [sys.executable, "-P", "-m", "crossbar.kernels.compiling", group]
    environment = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # the same modules as here
    }
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env=environment,
        ) as child,
    ):
        timer = threading.Timer(timeout_s, child.kill)
        timer.start()
        try:
            os.setpriority(os.PRIO_PROCESS, child.pid, niceness)
            assert child.stdout is not None
            for line in child.stdout:
                progress(Compiled(**json.loads(line)))
            child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            timer.cancel()
        complaints.seek(0)
        last_words = complaints.read().strip().rpartition("\n")[2]
    if child.returncode:
        raise KernelsUnavailable(
            f"the {group} kernels were not compiled",
            why=last_words or f"the compiler ended with {child.returncode} or took over {timeout_s:g} s",
            hint="Try again; if it fails again, reinstall numba.",
        )


def _move(making: Path, folder: Path) -> None:
    """Put a cache in its place. Whoever is second throws his own away: both are the same."""
    if not is_whole(folder):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        making.rename(folder)
    except OSError:
        if not is_whole(folder):
            raise


def is_whole(folder: Path) -> bool:
    """True if a cache holds, byte for byte, what was compiled into it."""
    try:
        listing = folder / _LISTING
        if listing.stat().st_size > _LISTING_BYTES_MAX:
            return False
        listed = json.loads(listing.read_bytes())
        return isinstance(listed, dict) and bool(listed) and listed == _digests(folder)
    except (OSError, ValueError, RecursionError):
        return False


def compile_all(group: str) -> Iterator[Compiled]:
    """Compile every kernel of a group in this process, one after the other."""
    kernels = GROUPS[group]
    for done, kernel in enumerate(kernels, start=1):
        _dispatcher(kernel).compile(numba_types(kernel))
        yield Compiled(f"{kernel.module}.{kernel.name}", done, len(kernels))


def _dispatcher(kernel: Kernel) -> Any:
    return getattr(importlib.import_module(f"crossbar.kernels.{kernel.module}"), kernel.name)


def numba_types(kernel: Kernel) -> tuple[Any, ...]:
    """Return numba's types for argument types as they are written in `GROUPS`."""
    from numba import types

    found = []
    for each in kernel.arguments:
        constant, described = each.startswith("const "), each.removeprefix("const ")
        scalar, _, dimensions = described.partition("[")
        dtype = getattr(types, scalar)
        array = types.Array(dtype, dimensions.count(",") + 1, "C", readonly=constant)
        found.append(array if dimensions else dtype)
    return tuple(found)


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.nb?"))
    }


def _write_listing(folder: Path) -> None:
    temporary = folder / f"{_LISTING}.new"
    temporary.write_text(json.dumps(_digests(folder)))
    temporary.replace(folder / _LISTING)


def _sources_digest() -> str:
    """Return a digest of the kernels' sources: what stands for a version of this package, edits included."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Compile the group that was asked for and report each kernel as one line of JSON."""
    for compiled in compile_all(sys.argv[1]):
        document = {"name": compiled.name, "done": compiled.done, "total": compiled.total}
        print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()

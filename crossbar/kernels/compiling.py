"""Owns the compilation of kernels ahead of their first use: in a child process, into a cache that the parent loads.

    python -m crossbar.kernels.compiling

compiles everything into the folder that `NUMBA_CACHE_DIR` names and reports each kernel on stdout. The caller chooses
where caches are; one folder in it belongs to one processor and one set of versions, so that what another machine or an
older release left behind is never loaded. What was written is listed with digests: a damaged cache is made anew.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from typing import Any

from crossbar.errors import KernelsUnavailable

COMPILE_TIMEOUT_S = 600.0
"""All kernels take 15 s on a busy core; a compiler that is silent for this long hangs."""

_LISTING = "kernels.json"
_LISTING_BYTES_MAX = 1 << 20  # a few dozen names and digests
_PACKAGES = ("numba", "llvmlite", "numpy")

_VECTORS, _PANEL, _STACK = "float32[::1]", "float32[:,::1]", "float32[:,:,::1]"
_FIXED = "Array(float32, 2, 'C', readonly=True)"
_NORMALS = _VECTORS

SIGNATURES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("randomness", "extend_keys", ("uint64", "uint64[::1]")),
    ("randomness", "extend_all", ("uint64[::1]", "uint64", "uint64[::1]")),
    ("randomness", "fill_lines", ("uint64", _NORMALS, _PANEL)),
    ("programming", "take_lines", (_PANEL, "int64", "float32", _PANEL)),
    ("programming", "take_lines", (_FIXED, "int64", "float32", _PANEL)),
    ("programming", "encode_pairs", (_PANEL, _VECTORS, "float32", _PANEL, _PANEL)),
    ("programming", "encode_offset", (_PANEL, _VECTORS, "float32", _PANEL)),
    ("programming", "program_once", (_PANEL, "uint64", _VECTORS, "boolean", "float32", _NORMALS)),
    (
        "programming",
        "program_verified",
        (_PANEL, "uint64", _VECTORS, "float32", "int64", "float32", _NORMALS),
    ),
    ("programming", "subtract_cells", (_PANEL, _PANEL, _VECTORS, _PANEL)),
    (
        "programming",
        "read_variances",
        (_PANEL, _PANEL, _VECTORS, _VECTORS, "float32", "float32", _PANEL),
    ),
    ("reading", "convert_inputs", (_PANEL, "float32", _VECTORS, _STACK, _PANEL)),
    (
        "reading",
        "finish",
        (
            *(_STACK, "int64", "int64", _PANEL, _PANEL, _STACK, "float32", _PANEL, _PANEL),
            *("uint64[::1]", _NORMALS, _VECTORS, _PANEL),
        ),
    ),
)
"""Module, kernel and argument types of everything that products and programming call."""


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


def cache_folder(caches: Path) -> Path:
    """Return the folder under `caches` for this processor and these versions."""
    import llvmlite.binding as llvm

    features = ",".join(sorted(name for name, has in llvm.get_host_cpu_features().items() if has))
    parts = [llvm.get_host_cpu_name(), features, f"{sys.version_info.major}.{sys.version_info.minor}"]
    parts += [f"{package} {version(package)}" for package in _PACKAGES]
    parts.append(_sources_digest())
    return caches / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def use_cache(caches: Path) -> Path:
    """Make kernels of this process load from, and compile into, the folder for this machine; return it.

    Call it before the first kernel is imported: numba asks for the folder then.
    """
    folder = cache_folder(caches)
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.reload_config()
    return folder


def compile_in_child(
    caches: Path,
    progress: Callable[[Compiled], None] = lambda _: None,
    *,
    timeout_s: float = COMPILE_TIMEOUT_S,
) -> Path:
    """Compile all kernels in a child process, unless a whole cache is there; return its folder.

    Blocks: call it in a worker thread. Damaged caches are thrown away and made anew.

    Raises:
        KernelsUnavailable: the folder cannot be written, the compiler failed, or it took longer than `timeout_s`.
    """
    folder = cache_folder(caches)
    if is_whole(folder):
        return folder
    try:
        caches.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=caches))
    except OSError as error:
        raise KernelsUnavailable(
            f"compiled kernels cannot be kept in {caches}",
            why=str(error),
            hint="Make that folder writable, or choose another.",
        ) from error
    try:
        _compile_into(making, progress, timeout_s)
        _write_listing(making)
        _move(making, folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def _compile_into(folder: Path, progress: Callable[[Compiled], None], timeout_s: float) -> None:
    command = [sys.executable, "-m", "crossbar.kernels.compiling"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": _import_path()}
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
        ) as child,
    ):
        timer = Timer(timeout_s, child.kill)
        timer.start()
        try:
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
            "the kernels of simulated crossbars were not compiled",
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


def compile_all() -> Iterator[Compiled]:
    """Compile every kernel in this process, one after the other."""
    for done, (module, name, signature) in enumerate(SIGNATURES, start=1):
        kernel: Any = getattr(importlib.import_module(f"crossbar.kernels.{module}"), name)
        kernel.compile(_types(signature))
        yield Compiled(f"{module}.{name}", done, len(SIGNATURES))


def _types(signature: tuple[str, ...]) -> tuple[Any, ...]:
    """Return numba's types for argument types as they are written in `SIGNATURES`."""
    from numba import types

    found = []
    for each in signature:
        if each == _FIXED:
            found.append(types.Array(types.float32, 2, "C", readonly=True))
            continue
        scalar, _, dimensions = each.partition("[")
        dtype = getattr(types, scalar)
        found.append(types.Array(dtype, dimensions.count(",") + 1, "C") if dimensions else dtype)
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


def _import_path() -> str:
    """Return where the child finds this very package."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def main() -> None:
    """Compile everything and report each kernel as one line of JSON."""
    for compiled in compile_all():
        document = {"name": compiled.name, "done": compiled.done, "total": compiled.total}
        print(json.dumps(document), flush=True)


if __name__ == "__main__":
    main()

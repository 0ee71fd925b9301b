"""The kernels that simulate crossbars: compiled by a child process when they are first needed, then loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import structlog
import trio

from crossbar.errors import KernelsUnavailable
from sedmad.node.long_thread import in_long_thread

log = structlog.get_logger("sedmad.devices")


class Kernels:
    """Compiled kernels. Nothing of the compiler is imported before `prepare`.

    Args:
        cache_directory: where compiled code is kept from one start to the next.
    """

    def __init__(self, cache_directory: Path | None) -> None:
        self._cache_directory = cache_directory
        self._turn = trio.Lock()
        self.ready = False

    async def prepare(self) -> None:
        """Have the kernels compiled and this process load them; nothing where that is done.

        Raises:
            KernelsUnavailable: they cannot be compiled, or kept.
        """
        async with self._turn:
            if self.ready:
                return
            if self._cache_directory is None:
                raise KernelsUnavailable("kernels cannot be compiled", why="this node has no folder for them")
            log.info("kernels_compiling", cache=str(self._cache_directory))
            await in_long_thread(partial(_prepare, self._cache_directory))
            self.ready = True
            log.info("kernels_ready")


def _prepare(cache_directory: Path) -> None:
    from crossbar.kernels import compiling
    from crossbar.kernels.groups import SIMULATION

    compiling.compile_in_child(
        cache_directory,
        SIMULATION,
        lambda compiled: log.info(
            "kernel_compiled", name=compiled.name, done=compiled.done, total=compiled.total
        ),
    )
    compiling.load(cache_directory, SIMULATION)
    import crossbar.programmed  # noqa: F401 - loads the kernels here, not while the first partition waits

"""Long computations in a worker thread, which a node that stops does not wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import trio

Result = TypeVar("Result")


async def in_long_thread(
    function: Callable[[], Result], limiter: trio.CapacityLimiter | None = None
) -> Result:
    """Return what a function returns. Cancelled, it goes on unheard: its thread ends with the process."""
    # The stubs that libp2p brings are older than this argument.
    return await trio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)  # type: ignore[call-arg]

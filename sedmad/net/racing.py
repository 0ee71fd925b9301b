"""Several ways to the same end, one begun after another, until the first gets there (RFC 8305)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from sedmad.errors import SedmadError

# The next way is tried when the one before has not got there by then.
NEXT_ATTEMPT_S = 0.25


@dataclass(frozen=True, slots=True)
class Attempt:
    """A way: what it is called in the list of failures, and what to do."""

    name: str
    make: Callable[[], Awaitable[object]]


async def race(attempts: Sequence[Attempt], failures: list[str]) -> None:
    """Return when the first attempt has succeeded, the others cancelled, or all have failed.

    Args:
        attempts: in the order in which to begin; each raises a typed error where it fails.
        failures: why they did is added here as it happens.
    """

    async def run(attempt: Attempt, failed: trio.Event) -> None:
        try:
            await attempt.make()
            nursery.cancel_scope.cancel()
        except SedmadError as error:
            failures.append(f"{attempt.name}: {error.why or error.what}")
            failed.set()

    async with trio.open_nursery() as nursery:
        for attempt in attempts:
            failed = trio.Event()
            nursery.start_soon(run, attempt, failed)
            with trio.move_on_after(NEXT_ATTEMPT_S):
                await failed.wait()


class Turns:
    """Lets one task at a time do each thing."""

    def __init__(self) -> None:
        self._locks: dict[str, trio.Lock] = {}

    @asynccontextmanager
    async def alone(self, what: str) -> AsyncIterator[None]:
        """Wait until nobody else does it, and let nobody else while the body runs."""
        lock = self._locks.setdefault(what, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._locks.pop(what, None)

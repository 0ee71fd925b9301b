"""What the daemon of a home says, asked by blocking code of whoever speaks with daemons; and such code in threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio

from sedmad.errors import SedmadError
from sedmad.wire.messages import GetStatusResponse

T = TypeVar("T")
# Asks the daemon, blocking; raises SedmadError where none answers.
AskStatus = Callable[[], GetStatusResponse]
# The daemon answers in milliseconds; one that is stuck must not take the time of everything else.
STATUS_WITHIN_S = 2.0


async def ask_daemon(ask_status: AskStatus) -> GetStatusResponse | str:
    """Return what the daemon says, or in words why it says nothing."""
    answer: GetStatusResponse | str = "the daemon does not answer"
    with trio.move_on_after(STATUS_WITHIN_S):
        try:
            answer = await in_thread(ask_status)
        except SedmadError as error:
            answer = error.what
    return answer


async def in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Return what blocking work returns; where the time is over it is left alone."""
    return await trio.to_thread.run_sync(partial(work, *arguments), abandon_on_cancel=True)  # type: ignore[call-arg]

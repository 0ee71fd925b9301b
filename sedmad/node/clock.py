"""The two clocks of the daemon; everything else is told the time."""

from __future__ import annotations

import time

import trio

# Certificates tolerate two hours; people should know long before.
CLOCK_SKEW_WARNING_S = 30.0


def wall_time_s() -> float:
    """Return Unix seconds: for certificates, invitations and what people read. It may jump."""
    return time.time()  # noqa: TID251


def monotonic_s() -> float:
    """Return seconds of the event loop's clock: for timers and everything measured."""
    return trio.current_time()

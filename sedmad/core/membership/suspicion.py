"""How long a suspect has to refute (Lifeguard's suspicion time-out, arXiv 1707.00788 section IV-B)."""

from __future__ import annotations

import math


class SuspicionTimer:
    """A time-out that independent accusers shorten.

        timeout = max(minimum, maximum - (maximum - minimum) * log(C + 1) / log(K + 1))

    with C confirmations so far and K needed to reach the minimum. One node that sees failures because its own
    network is bad gives its suspects the maximum, in which they hear of it and refute.
    """

    def __init__(self, accuser: str, *, needed: int, minimum_s: float, maximum_s: float, now: float) -> None:
        self.accusers = {accuser}
        self._needed = needed
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s
        self._started_at = now
        self.deadline = self._deadline()  # when the suspect is dead unless it refutes

    def confirm(self, accuser: str) -> bool:
        """Count another accuser; False if it is known or no more are needed: then it need not be told on."""
        if accuser in self.accusers or len(self.accusers) > self._needed:
            return False
        self.accusers.add(accuser)
        self.deadline = self._deadline()
        return True

    def extend(self, seconds: float) -> None:
        """Give back the time in which this node itself was not running."""
        self._started_at += seconds
        self.deadline += seconds

    def _deadline(self) -> float:
        if self._needed == 0:
            return self._started_at + self._minimum_s
        share = math.log(len(self.accusers)) / math.log(self._needed + 1)
        timeout_s = self._maximum_s - (self._maximum_s - self._minimum_s) * share
        return self._started_at + max(self._minimum_s, timeout_s)

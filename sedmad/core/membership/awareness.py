"""How well this node itself is doing (Lifeguard's local health multiplier, arXiv 1707.00788 section IV-A).

A node that is slow or cut off sees failures everywhere. The more signs of that it has, the more time it gives
others.
"""

from __future__ import annotations


class Awareness:
    """A score from 0 (healthy) to maximum - 1, and the time-outs it stretches."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.score = 0

    def improve(self) -> None:
        """A probe of ours was answered."""
        self.score = max(0, self.score - 1)

    def worsen(self, signs: int = 1) -> None:
        """A probe got no answer and no word from helpers, we had to refute a suspicion, or we woke late."""
        self.score = min(self._maximum - 1, self.score + signs)

    def stretch(self, timeout_s: float) -> float:
        """Return timeout_s * (score + 1)."""
        return timeout_s * (self.score + 1)

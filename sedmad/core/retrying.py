"""Owns when what failed is tried again: later each time, and at once when things have changed."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_S = 5.0
"""A node that restarts is back within seconds."""

LONGEST_S = 300.0
"""What failed for long costs next to nothing to try every five minutes."""


@dataclass(slots=True)
class _Wait:
    until_s: float
    next_s: float
    why: str


class Retries(Generic[Key]):
    """When to try again, by key; as many as the caller has keys, of which `keep` forgets those that are gone."""

    def __init__(self) -> None:
        self._waits: dict[Key, _Wait] = {}

    def put_off(self, key: Key, now: float, why: str) -> float:
        """Note a failure and return in how many seconds to try again: twice as many as last time."""
        wait_s = self._waits[key].next_s if key in self._waits else FIRST_S
        self._waits[key] = _Wait(now + wait_s, min(LONGEST_S, 2 * wait_s), why)
        return wait_s

    def succeed(self, key: Key) -> None:
        """Forget the failures of a key."""
        self._waits.pop(key, None)

    def hurry(self) -> None:
        """Things have changed: try all again now."""
        for wait in self._waits.values():
            wait.until_s, wait.next_s = 0.0, FIRST_S

    def keep(self, keys: Collection[Key]) -> None:
        """Forget all other keys."""
        self._waits = {key: wait for key, wait in self._waits.items() if key in keys}

    def is_due(self, key: Key, now: float) -> bool:
        """Whether a key may be tried."""
        return key not in self._waits or self._waits[key].until_s <= now

    def next_s(self, now: float) -> float | None:
        """Return when the next key that waits is due."""
        return min((wait.until_s for wait in self._waits.values() if wait.until_s > now), default=None)

    def reasons(self) -> dict[Key, str]:
        """Return why each key was put off."""
        return {key: wait.why for key, wait in self._waits.items()}

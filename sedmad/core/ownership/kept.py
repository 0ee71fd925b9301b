"""What a node keeps of all its matrices, found by matrix and by owner."""

from __future__ import annotations

from collections.abc import Hashable

from sedmad.core.ownership.standing import Standing


class Kept:
    """The newest standing of each matrix."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Standing] = {}
        # Dictionaries as sets that keep their order, which a seed needs to replay.
        self._by_owner: dict[str, dict[Hashable, None]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, key: Hashable) -> Standing | None:
        return self._by_key.get(key)

    def of_owner(self, owner: str) -> tuple[Hashable, ...]:
        return tuple(self._by_owner.get(owner, ()))

    def put(self, standing: Standing) -> Standing | None:
        """Keep a standing; return the one before it."""
        before = self.drop(standing.key)
        self._by_key[standing.key] = standing
        self._by_owner.setdefault(standing.owner, {})[standing.key] = None
        return before

    def drop(self, key: Hashable) -> Standing | None:
        standing = self._by_key.pop(key, None)
        if standing is not None:
            owned = self._by_owner[standing.owner]
            del owned[key]
            if not owned:
                del self._by_owner[standing.owner]
        return standing

"""This node's own advert: what it says now, and when it says it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sedmad.core.membership.advert import MAX_SEQUENCE, Advert, differs_materially
from sedmad.core.membership.record import Record, SignedRecord
from sedmad.core.membership.settings import MembershipSettings
from sedmad.errors import LocalError

# Rumours are not signed by whom they speak of: one that names the last of all sequences must not use them up. A billion
# starts of a node stay below this.
MAX_TOLD_SEQUENCE = MAX_SEQUENCE // 2

FIXED_FIELDS = frozenset({"peer_id", "sequence", "wall_time_s"})


class Publication:
    """Keeps the advert, its sequence and its next publication.

    Args:
        advert: what to say first; its `sequence` is `first_sequence(boot_counter)`.
        wall_offset_s: Unix time minus the `now` of this core.
    """

    def __init__(
        self,
        advert: Advert,
        settings: MembershipSettings,
        sign: Callable[[Record], bytes],
        wall_offset_s: float,
        now: float,
    ) -> None:
        self._settings = settings
        self._sign = sign
        self.wall_offset_s = wall_offset_s
        self._draft = advert
        self._sequence_floor = advert.sequence
        self._published_at = now
        self._surpassed_at = float("-inf")
        self.refuting = False  # the next advert answers a suspicion, which is urgent
        self.signed = self.publish(now)
        self.due_at = now + settings.advert_interval_s

    @property
    def advert(self) -> Advert:
        assert isinstance(self.signed.record, Advert)
        return self.signed.record

    def update(self, changes: Mapping[str, Any], now: float) -> None:
        """Change what the next advert says; a material change brings it forward, at most once a second."""
        fixed = FIXED_FIELDS.intersection(changes)
        if fixed:
            raise LocalError(
                "an advert was changed in a wrong place", why=f"{', '.join(sorted(fixed))} cannot be set"
            )
        self._draft = replace(self._draft, **changes)
        if differs_materially(self.advert, self._draft):
            self._hasten(self._settings.advert_spacing_s, now)

    def refute(self, sequence: int, now: float) -> bool:
        """Somebody holds our advert `sequence` for that of a suspect or dead node: make a newer one soon.

        True if this node did not make that advert, and it is worth reporting: see `surpassed`.
        """
        own = self.advert.sequence
        if sequence < own or sequence > MAX_TOLD_SEQUENCE:
            return False
        surpassed = sequence > own and self.surpassed(sequence, now)
        if sequence == own or surpassed:
            self.refuting = True
            self._hasten(self._settings.refutation_spacing_s, now)
        return surpassed

    def surpassed(self, sequence: int, now: float) -> bool:
        """The mesh knows an own advert that this node did not make; True if that is worth reporting.

        This happens when the boot counter was restored from an old backup: jump past it. Or a second node has
        the same key: so jump no more than once per advert interval, or the two would chase each other.
        """
        if now - self._surpassed_at < self._settings.advert_interval_s:
            return False
        self._surpassed_at = now
        self._sequence_floor = max(self._sequence_floor, sequence)
        self._hasten(self._settings.refutation_spacing_s, now)
        return True

    def publish(self, now: float) -> SignedRecord:
        """Make, sign and return the next advert."""
        self._sequence_floor += 1
        wall_time_s = now + self.wall_offset_s
        advert = replace(self._draft, sequence=self._sequence_floor, wall_time_s=wall_time_s)
        self.signed = SignedRecord(advert, self._sign(advert))
        self._draft = advert
        self.refuting = False
        self._published_at = now
        self.due_at = now + self._settings.advert_interval_s
        return self.signed

    def _hasten(self, spacing_s: float, now: float) -> None:
        self.due_at = min(self.due_at, max(now, self._published_at + spacing_s))

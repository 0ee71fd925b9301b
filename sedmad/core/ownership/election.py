"""One attempt of this node to become the owner of one matrix: what it asked, heard, and knows by now."""

from __future__ import annotations

from collections.abc import Hashable

from sedmad.core.ownership.rules import Refusal, has_majorities
from sedmad.core.ownership.standing import Standing, Vote


class Election:
    """Gathers votes for one epoch.

    The candidate gives its own vote last, with the win: an attempt that fails leaves no promise behind, so
    that a node that is cut off and mistaken disturbs nobody when it returns.

    Args:
        newest: the newest standing that the candidate knows; answers may show it newer ones.
    """

    def __init__(self, candidate: str, epoch: int, newest: Standing, ends_at: float) -> None:
        self.candidate = candidate
        self.epoch = epoch
        self.newest = newest
        self.ends_at = ends_at
        self.known_epoch = 0
        self.asked: set[str] = set()
        self._votes: dict[str, Vote] = {}
        self._refusals: dict[str, Refusal] = {}

    @property
    def key(self) -> Hashable:
        return self.newest.key

    def votes(self) -> tuple[Vote, ...]:
        return tuple(self._votes.values())

    def learn(self, standing: Standing) -> bool:
        """Take in a standing that somebody keeps; return whether it is newer than all known so far."""
        newer = standing.order > self.newest.order
        if newer or (standing.order == self.newest.order and standing.established):
            self.newest = standing
        return newer

    def grant(self, guardian: str, vote: Vote) -> None:
        self._refusals.pop(guardian, None)
        self._votes[guardian] = vote

    def refuse(self, guardian: str, refusal: Refusal, known_epoch: int) -> None:
        if guardian not in self._votes:
            self._refusals[guardian] = refusal
            self.known_epoch = max(self.known_epoch, known_epoch)

    def to_ask(self) -> list[str]:
        """Return the electors that were not asked yet, in order; each is returned once."""
        missing = sorted(self.newest.electors - self.asked - {self.candidate})
        self.asked.update(missing)
        return missing

    @property
    def surpassed(self) -> bool:
        """Say whether this epoch is over already, or the newest manifest has no use for this candidate."""
        return self.newest.epoch >= self.epoch or self.candidate not in self.newest.guardians

    @property
    def carried(self) -> bool:
        """Say whether the votes given and the candidate's own are enough."""
        return has_majorities({*self._votes, self.candidate}, self.newest)

    @property
    def hopeless(self) -> bool:
        """Say whether they cannot become enough, as too many have refused."""
        return not has_majorities(self.newest.electors - self._refusals.keys(), self.newest)

    @property
    def outbid(self) -> bool:
        """Say whether somebody refused for a later promise."""
        return Refusal.PROMISED in self._refusals.values()

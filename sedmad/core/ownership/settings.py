"""Every number that ownership can be tuned by."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OwnershipSettings:
    """How patient guardians are.

    Attributes:
        takeover_after_s: from the verdict that an owner is dead until its guardians act. Verdicts that are
            wrong are mostly taken back within seconds.
        unheard_after_s: the same for an owner that was never heard since this node started: after a power cut
            some machines take minutes, and nothing hurries.
        rank_s: what each guardian waits longer than the one before it, so that one is done before the next
            begins.
        jitter_s: chance on top, so that guardians whose verdicts differ do not keep meeting.
        vote_timeout_s: after which an election without a majority ends; a vote costs a round trip and a disk
            write, among at most `elections` at once.
        retry_s, retry_maximum_s: wait after the first failed election, doubled up to the maximum: in a split,
            this is how slowly the smaller side keeps looking.
        elections: how many at once. With one owner tens of thousands of matrices may be lost; 64 keep the
            disks of three guardians busy, and no queue long.
    """

    takeover_after_s: float = 10.0
    unheard_after_s: float = 120.0
    rank_s: float = 2.0
    jitter_s: float = 0.5
    vote_timeout_s: float = 5.0
    retry_s: float = 2.0
    retry_maximum_s: float = 60.0
    elections: int = 64

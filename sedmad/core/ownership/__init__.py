"""Ownership: who plans a matrix, and how a majority of its guardians passes it on when the owner is dead.

Read `rules.py` first: it says what is safe, and why. `standing.py` has the values, `ownership.py` ties the
rest together: `election.py` is one attempt to win a matrix, `peers.py` says whose matrices are without an
owner, `turns.py` when to try. `settings.py` has every number.
"""

from __future__ import annotations

from sedmad.core.ownership.events import (
    Behind,
    Deposed,
    Ending,
    Event,
    Lost,
    Outgoing,
    Surpassed,
    Won,
)
from sedmad.core.ownership.messages import Message, VoteAnswer, VoteRequest
from sedmad.core.ownership.ownership import Ownership
from sedmad.core.ownership.rules import Refusal, accepts, has_majorities, is_majority, may_promise
from sedmad.core.ownership.settings import OwnershipSettings
from sedmad.core.ownership.standing import Promise, Standing, Vote

__all__ = [
    "Behind",
    "Deposed",
    "Ending",
    "Event",
    "Lost",
    "Message",
    "Outgoing",
    "Ownership",
    "OwnershipSettings",
    "Promise",
    "Refusal",
    "Standing",
    "Surpassed",
    "Vote",
    "VoteAnswer",
    "VoteRequest",
    "Won",
    "accepts",
    "has_majorities",
    "is_majority",
    "may_promise",
]

"""The ownership core: a matrix whose owner died is passed on by a majority of its guardians.

Ties the parts of this package together and owns the order of things. It reads no clock, no disk, and no
manifest. It is driven like every core:

    ownership.receive(sender, message, now)       # or keep, forget, peer_up, peer_down, reclaim
    ownership.handle_timeout(now)                 # when next_timeout() has come
    outgoing = ownership.collect()                # after each of these: see `Outgoing` for the order of things

What is kept and promised is the disk's to say: `keep` tells of what *is* stored, and every promise that a
batch names has to be on disk before its messages leave.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from sedmad.core.ownership.election import Election
from sedmad.core.ownership.events import Behind, Deposed, Ending, Event, Lost, Outgoing, Surpassed, Won
from sedmad.core.ownership.kept import Kept
from sedmad.core.ownership.messages import Message, VoteAnswer, VoteRequest
from sedmad.core.ownership.peers import Peers
from sedmad.core.ownership.rules import Refusal, has_majorities, refuses_vote
from sedmad.core.ownership.settings import OwnershipSettings
from sedmad.core.ownership.standing import Promise, Standing, Vote
from sedmad.core.ownership.turns import Turns, digest_of

# With fewer, the death of the owner leaves no majority.
GUARDIANS_MINIMUM = 3
# Matrices looked at in one call, about 2 ms: an owner of tens of thousands may die, and the loop has other work.
SLICE = 256


@dataclass(slots=True)
class _Setback:
    """What failed elections of a matrix taught: epochs that are taken, and how long to wait."""

    known_epoch: int = 0
    wait_s: float = 0.0


class Ownership:
    """One node's part in passing matrices on.

    Args:
        sign: makes the signature that proves a promise of this node.
        promised: this node's promises of earlier lives, as they are on disk.
    """

    def __init__(
        self,
        peer_id: str,
        *,
        sign: Callable[[Promise], bytes],
        rng: random.Random,
        settings: OwnershipSettings | None = None,
        promised: Iterable[Promise] = (),
    ) -> None:
        self.peer_id = peer_id
        self._settings = settings or OwnershipSettings()
        self._sign = sign
        self._rng = rng
        self._kept = Kept()
        self._promised: dict[Hashable, Promise] = {promise.key: promise for promise in promised}
        self._peers = Peers(self._settings)
        self._bereft: deque[Hashable] = deque()  # their owner has left; not given a turn yet
        self._turns = Turns()
        self._elections: dict[Hashable, Election] = {}
        self._setbacks: dict[Hashable, _Setback] = {}
        self._reclaimed: set[Hashable] = set()
        self._votes: list[Vote] = []
        self._messages: list[tuple[str, Message]] = []
        self._events: list[Event] = []

    def keep(self, standing: Standing, now: float) -> None:
        """Tell what is on disk of a matrix now, as it was stored or at the start; older standings are ignored."""
        key, known = standing.key, self._kept.get(standing.key)
        if known is not None and (standing.order, standing.established) < (known.order, known.established):
            return
        self._kept.put(standing)
        if known is not None and known.owner == self.peer_id != standing.owner:
            self._events.append(Deposed(key, standing))
        if known is None or standing.epoch > known.epoch:
            self._setbacks.pop(key, None)
            self._reclaimed.discard(key)
            self._turns.drop(key)
        election = self._elections.get(key)
        if standing.owner != self.peer_id:
            self._peers.expect(standing.owner, now)
        if election is not None:
            election.learn(standing)
            if self._seeks(standing):
                self._judge(election, now)
            else:
                self._end(election, Ending.SURPASSED, now)
        if key not in self._elections and key not in self._turns and self._seeks(standing):
            self._turns.set(key, now + self._settings.takeover_after_s + self._stagger_s(standing))

    def forget(self, key: Hashable, now: float) -> None:
        """The matrix is gone, and its tombstone too: its promise may go from the disk as well."""
        if key in self._elections:
            self._end(self._elections[key], Ending.FORGOTTEN, now)
        self._kept.drop(key)
        self._turns.drop(key)
        self._promised.pop(key, None)
        self._setbacks.pop(key, None)
        self._reclaimed.discard(key)

    def peer_down(self, peer_id: str, now: float) -> None:
        """Membership holds a peer for dead."""
        self._peers.down(peer_id, now)

    def peer_up(self, peer_id: str, now: float) -> None:
        """A peer was heard: to be told of every one that lives, from the start on."""
        self._peers.up(peer_id)
        for election in list(self._elections.values()):
            if election.newest.owner == peer_id:
                self._end(election, Ending.OWNER_RETURNED, now)

    def reclaim(self, key: Hashable, known_epoch: int, now: float) -> None:
        """A guardian refused a manifest of this node's, as it promised `known_epoch` or keeps it.

        Where the candidate of that epoch never wins, or died with its win, nobody could write any more. So
        the owner asks for a later epoch itself, unless a manifest of another owner comes first.
        """
        standing = self._kept.get(key)
        if standing is None or standing.owner != self.peer_id or known_epoch <= standing.epoch:
            return
        setback = self._setbacks.setdefault(key, _Setback())
        setback.known_epoch = max(setback.known_epoch, known_epoch)
        self._reclaimed.add(key)
        if key not in self._elections and key not in self._turns:
            self._wait(key, now)

    def receive(self, sender: str, message: Message, now: float) -> None:
        """Take in a message; `sender` is who the session says it is, and signatures in it were checked."""
        match message:
            case VoteRequest():
                self._answer(sender, message, now)
            case VoteAnswer():
                self._hear(sender, message, now)

    def next_timeout(self) -> float | None:
        """Return when `handle_timeout` is to be called next."""
        if self._bereft:
            return float("-inf")
        deadlines = [election.ends_at for election in self._elections.values()]
        if (leaving_at := self._peers.next_timeout()) is not None:
            deadlines.append(leaving_at)
        if len(self._elections) < self._settings.elections and (turn_at := self._turns.next_at()) is not None:
            deadlines.append(turn_at)
        return min(deadlines, default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due, in slices: `next_timeout` says if there is more."""
        for election in [due for due in self._elections.values() if due.ends_at <= now]:
            self._end(election, Ending.TIMED_OUT, now)
        for owner in self._peers.leaving(now):
            self._bereft.extend(self._kept.of_owner(owner))
        for _ in range(min(SLICE, len(self._bereft))):
            key = self._bereft.popleft()
            standing = self._kept.get(key)
            if standing is not None and key not in self._elections and self._seeks(standing):
                self._turns.set(key, now + self._stagger_s(standing))
        for _ in range(SLICE):
            if len(self._elections) >= self._settings.elections or (key := self._turns.pop(now)) is None:
                break
            self._stand(key, now)

    def collect(self) -> Outgoing:
        """Hand over what is to be stored, what to be sent, and what happened since the last call."""
        outgoing = Outgoing(tuple(self._votes), tuple(self._messages), tuple(self._events))
        self._votes.clear()
        self._messages.clear()
        self._events.clear()
        return outgoing

    def _seeks(self, standing: Standing) -> bool:
        """Say whether this node wants the matrix."""
        if standing.owner == self.peer_id:
            return standing.key in self._reclaimed
        guards = self.peer_id in standing.guardians and len(standing.guardians) >= GUARDIANS_MINIMUM
        return guards and self._peers.has_left(standing.owner)

    def _stand(self, key: Hashable, now: float) -> None:
        """Ask for votes, if that can lead anywhere."""
        standing = self._kept.get(key)
        if standing is None or not self._seeks(standing):
            self._setbacks.pop(key, None)
        elif not has_majorities(self._peers.living(standing.electors), standing):
            self._wait(key, now)
        else:
            setback = self._setbacks.get(key, _Setback())
            epoch = max(self._known_epoch(key), setback.known_epoch) + 1
            election = Election(self.peer_id, epoch, standing, now + self._settings.vote_timeout_s)
            self._elections[key] = election
            self._judge(election, now)

    def _answer(self, sender: str, request: VoteRequest, now: float) -> None:
        """Vote, or say why not."""
        key, epoch = request.key, request.epoch
        kept = self._kept.get(key)
        refusal = refuses_vote(
            sender,
            epoch,
            guardian=self.peer_id,
            promised=self._promised.get(key),
            kept=kept,
            owner_answers=kept is not None and (kept.owner == self.peer_id or self._peers.is_up(kept.owner)),
        )
        vote = None
        if refusal is None and kept is not None:
            vote = self._promise(sender, epoch, kept)
            self._make_way(key, epoch, now)
        answer = VoteAnswer(key, epoch, vote, refusal, self._known_epoch(key), kept)
        self._messages.append((sender, answer))

    def _promise(self, candidate: str, epoch: int, standing: Standing) -> Vote:
        """Give a vote. One that was given before is stored again: that the first was, nobody knows here."""
        promise = Promise(standing.key, epoch, candidate, self.peer_id)
        vote = Vote(promise, self._sign(promise), standing)
        self._promised[standing.key] = promise
        self._votes.append(vote)
        return vote

    def _make_way(self, key: Hashable, epoch: int, now: float) -> None:
        """Another candidate has this node's vote: let it win."""
        election = self._elections.get(key)
        if election is not None and election.epoch <= epoch:
            self._end(election, Ending.VOTED, now)
        elif key in self._turns:
            self._wait(key, now)

    def _hear(self, sender: str, answer: VoteAnswer, now: float) -> None:
        """Count an answer to an election under way; others come late, twice or unasked."""
        election = self._elections.get(answer.key)
        if election is None or answer.epoch != election.epoch or sender not in election.asked:
            return
        if answer.standing is not None and election.learn(answer.standing):
            self._events.append(Surpassed(answer.key, answer.standing))
        if answer.vote is not None:
            if answer.vote.promise == Promise(answer.key, election.epoch, self.peer_id, sender):
                election.grant(sender, answer.vote)
        elif answer.refusal is not None:
            election.refuse(sender, answer.refusal, answer.known_epoch)
            shown = answer.standing.order if answer.standing is not None else (-1, -1)
            if answer.refusal is Refusal.NOT_GUARDIAN and shown < election.newest.order:
                self._events.append(Behind(answer.key, sender, election.newest))
        self._judge(election, now)

    def _judge(self, election: Election, now: float) -> None:
        """See what has become of an election: won, lost, or more to ask."""
        owner = election.newest.owner
        if election.surpassed or (owner != self.peer_id and self._peers.is_up(owner)):
            self._end(election, Ending.SURPASSED, now)
        elif election.carried:
            self._win(election, now)
        elif election.outbid:
            self._end(election, Ending.PROMISED, now)
        elif election.hopeless:
            self._end(election, Ending.REFUSED, now)
        else:
            request = VoteRequest(election.key, election.epoch)
            self._messages += [(guardian, request) for guardian in election.to_ask()]

    def _win(self, election: Election, now: float) -> None:
        del self._elections[election.key]
        own_vote = self._promise(self.peer_id, election.epoch, election.newest)
        votes = (*election.votes(), own_vote)
        self._events.append(Won(election.key, election.epoch, election.newest, votes))
        # Should the node fail to write it down. Long: another election would make the manifest under way void.
        self._turns.set(election.key, now + self._settings.retry_maximum_s)

    def _end(self, election: Election, ending: Ending, now: float) -> None:
        del self._elections[election.key]
        self._events.append(Lost(election.key, election.epoch, ending))
        setback = self._setbacks.setdefault(election.key, _Setback())
        setback.known_epoch = max(setback.known_epoch, election.known_epoch, election.newest.epoch)
        self._wait(election.key, now)

    def _wait(self, key: Hashable, now: float) -> None:
        """Give a matrix its next turn, later each time."""
        settings = self._settings
        setback = self._setbacks.setdefault(key, _Setback())
        setback.wait_s = min(max(settings.retry_s, 2.0 * setback.wait_s), settings.retry_maximum_s)
        self._turns.set(key, now + setback.wait_s * self._rng.uniform(0.5, 1.5))

    def _known_epoch(self, key: Hashable) -> int:
        """Return the greatest epoch that this node promised or keeps."""
        promised, kept = self._promised.get(key), self._kept.get(key)
        return max(promised.epoch if promised else 0, kept.epoch if kept else 0)

    def _stagger_s(self, standing: Standing) -> float:
        """Return how long to let guardians before this one go first; the order differs from matrix to matrix."""
        living = [
            guardian for guardian in self._peers.living(standing.guardians) if guardian != standing.owner
        ]
        ranked = sorted({*living, self.peer_id}, key=lambda guardian: digest_of((standing.key, guardian)))
        chance_s = self._settings.jitter_s * self._rng.random()
        return ranked.index(self.peer_id) * self._settings.rank_s + chance_s

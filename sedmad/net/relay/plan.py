"""Which relays to ask when: pure. Keeps reservations at the best candidates, renews them, and turns to others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sedmad.net.relay.reservation import Reservation

# One relay may die and another be restarted; more cost others connections and a place in every advert.
RELAYS_MAX = 3
# A relay that failed is asked again after this, doubled each time: a restart takes seconds, a refusal lasts.
RETRY_S_MIN = 5.0
RETRY_S_MAX = 600.0
# A mesh of hundreds offers more relays than anybody needs to know.
CANDIDATES_MAX = 32


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that may serve as a relay.

    Attributes:
        peer_id: the relay's.
        addresses: where it is dialled.
    """

    peer_id: str
    addresses: tuple[str, ...]


@dataclass(slots=True)
class _Failing:
    times: int
    retry_at: float


class ReservationPlan:
    """Decides for one node. Times are seconds of one monotonic clock.

    Args:
        rng: jitter, so that those who lost the same relay do not come back together.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._candidates: dict[str, Candidate] = {}
        self._held: dict[str, Reservation] = {}
        self._failing: dict[str, _Failing] = {}

    @property
    def held(self) -> list[Reservation]:
        """The reservations that this node has."""
        return list(self._held.values())

    def consider(self, candidates: Sequence[Candidate]) -> None:
        """Take these from now on, the best first."""
        self._candidates = {candidate.peer_id: candidate for candidate in candidates[:CANDIDATES_MAX]}
        for peer_id in [peer_id for peer_id in self._failing if peer_id not in self._candidates]:
            del self._failing[peer_id]

    def due(self, now: float) -> list[Candidate]:
        """Return whom to ask now: those to renew at, and the best of the others where there are too few."""
        asked = [
            self._candidates.get(relay_id, Candidate(relay_id, ()))
            for relay_id, reservation in self._held.items()
            if reservation.renew_at <= now and self._may_ask(relay_id, now)
        ]
        missing = RELAYS_MAX - sum(self._is_wanted(relay_id) for relay_id in self._held)
        others = [
            candidate
            for candidate in self._candidates.values()
            if candidate.peer_id not in self._held and self._may_ask(candidate.peer_id, now)
        ]
        return asked + others[:missing]

    def next_timeout(self, now: float) -> float:
        """Return when to look at `due` again, unless something happens before."""
        times = [failing.retry_at for failing in self._failing.values()]
        times += [reservation.renew_at for reservation in self._held.values()]
        return min((time for time in times if time > now), default=now + RETRY_S_MAX)

    def reserved(self, reservation: Reservation) -> list[str]:
        """Take note of a reservation; return the relays that are not needed any more."""
        self._held[reservation.relay_id] = reservation
        self._failing.pop(reservation.relay_id, None)
        return self._superfluous()

    def failed(self, relay_id: str, now: float) -> bool:
        """Take note that a relay did not answer or refused; return whether its reservation is lost with that."""
        failing = self._failing.setdefault(relay_id, _Failing(0, now))
        failing.times += 1
        wait_s = min(RETRY_S_MIN * 2 ** min(failing.times - 1, 10), RETRY_S_MAX)
        failing.retry_at = now + wait_s * self._rng.uniform(0.8, 1.2)
        reservation = self._held.get(relay_id)
        # Where renewing fails there is half a life left to try again.
        return reservation is not None and reservation.expires_at <= failing.retry_at and self.lost(relay_id)

    def lost(self, relay_id: str) -> bool:
        """Take note that a relay holds no reservation any more; return whether it did."""
        return self._held.pop(relay_id, None) is not None

    def _may_ask(self, relay_id: str, now: float) -> bool:
        failing = self._failing.get(relay_id)
        return failing is None or failing.retry_at <= now

    def _is_wanted(self, relay_id: str) -> bool:
        return relay_id in self._candidates

    def _superfluous(self) -> list[str]:
        """Give up those that are no candidates any more when there are enough without them."""
        wanted = [relay_id for relay_id in self._held if self._is_wanted(relay_id)]
        if len(wanted) < min(RELAYS_MAX, len(self._candidates)):
            return []
        given_up = [relay_id for relay_id in self._held if relay_id not in wanted[:RELAYS_MAX]]
        for relay_id in given_up:
            del self._held[relay_id]
        return given_up

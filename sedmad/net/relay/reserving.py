"""Keeps this node reachable through relays: asks, renews, notices which is lost, and turns to the next."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog
import trio

from sedmad.errors import NodeUnreachable, SedmadError
from sedmad.net.rate_limit import RateLimit
from sedmad.net.relay.messages import HOP_PROTOCOL
from sedmad.net.relay.plan import Candidate, ReservationPlan
from sedmad.net.relay.reservation import Reservation

if TYPE_CHECKING:
    # libp2p brings stubs that hide trio's own types, this one among them.
    from trio_typing import TaskStatus

    from sedmad.net.host import PeerHost

log = structlog.get_logger("sedmad.net")

# How soon a relay that hung up is noticed.
CHECK_S = 1.0
ASK_TIMEOUT_S = 10.0
# A relay that goes silent hangs up on nobody, and while it counts as one others are sent to it in vain.
PROBE_S = 20.0
PROBE_TIMEOUT_S = 5.0


class ReservationKeeper:
    """Reserves at the best of the candidates.

    Args:
        host: dials relays and takes circuits.
        rng: jitter.
        wall_time: Unix seconds.
        on_change: called when the circuit addresses among the host's `listen_addresses` have changed.
    """

    def __init__(
        self,
        host: PeerHost,
        *,
        rng: random.Random,
        wall_time: Callable[[], float],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._host = host
        self._wall_time = wall_time
        self._on_change = on_change
        self._plan = ReservationPlan(rng)
        self._asking: set[str] = set()
        self._told: list[str] = []
        self._woken = trio.Event()
        self._refusals = RateLimit(rate_per_s=1 / 60, burst=5)

    @property
    def reservations(self) -> list[Reservation]:
        """What relays have promised."""
        return self._plan.held

    def consider(self, candidates: Sequence[Candidate]) -> None:
        """Reserve at the first three of these that do, from now on. None: reserve nowhere new."""
        own_id = self._host.peer_id
        self._plan.consider([candidate for candidate in candidates if candidate.peer_id != own_id])
        self._woken.set()

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Reserve and renew until cancelled; the reservations are given up then."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._probe_relays)
                task_status.started()
                while True:
                    now = trio.current_time()
                    self._notice_lost()
                    for candidate in self._plan.due(now):
                        if candidate.peer_id not in self._asking:
                            self._asking.add(candidate.peer_id)
                            nursery.start_soon(self._ask, candidate)
                    self._tell_changes()
                    self._woken = trio.Event()
                    with trio.move_on_at(min(self._plan.next_timeout(now), now + CHECK_S)):
                        await self._woken.wait()
        finally:
            for reservation in self._plan.held:
                self._give_up(reservation.relay_id)

    async def _ask(self, candidate: Candidate) -> None:
        relay_id = candidate.peer_id
        try:
            reservation = await self._host.reserve(
                relay_id, candidate.addresses, now_s=self._wall_time(), timeout_s=ASK_TIMEOUT_S
            )
            for superfluous in self._plan.reserved(reservation):
                self._give_up(superfluous)
        except SedmadError as error:
            if self._plan.failed(relay_id, trio.current_time()):
                self._give_up(relay_id)
            if self._refusals.allow(trio.current_time()):
                log.info("not_reserved", relay=relay_id, why=error.why or error.what)
        finally:
            self._asking.discard(relay_id)
            self._woken.set()

    async def _probe_relays(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(PROBE_S)
                for reservation in self._plan.held:
                    nursery.start_soon(self._probe, reservation.relay_id)

    async def _probe(self, relay_id: str) -> None:
        """Give a relay up where it does not even agree to be asked something."""
        connection = self._host.direct_connection(relay_id)
        if connection is None:
            return
        try:
            stream = await connection.open_stream(HOP_PROTOCOL, PROBE_TIMEOUT_S)
            stream.abort()
        except NodeUnreachable as error:
            log.info("relay_lost", relay=relay_id, why=error.why)
            self._plan.failed(relay_id, trio.current_time())
            self._give_up(relay_id)
            self._woken.set()

    def _notice_lost(self) -> None:
        """A relay keeps a reservation as long as its connection."""
        for reservation in self._plan.held:
            if self._host.direct_connection(reservation.relay_id) is None:
                self._give_up(reservation.relay_id)

    def _give_up(self, relay_id: str) -> None:
        self._plan.lost(relay_id)
        self._host.relaying.release(relay_id)

    def _tell_changes(self) -> None:
        addresses = self._host.relaying.circuit_addresses
        if addresses != self._told:
            self._told = addresses
            self._on_change()

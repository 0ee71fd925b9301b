"""Keeps one port of this machine mapped at the gateway: gets the mapping, renews it, makes it anew, removes it.

Owns the order of events and their bounds; the protocols are in `nat_pmp_gateway` and `upnp`.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import structlog
import trio

from sedmad.errors import PortMappingFailed, PortTaken
from sedmad.net.mapping.gateway import Gateway, MappedPort, Transport, WantedPort, why_useless
from sedmad.net.mapping.nat_pmp_gateway import find_nat_pmp
from sedmad.net.mapping.upnp import find_upnp

log = structlog.get_logger("sedmad.net")

Finder = Callable[[], Awaitable[Gateway]]

# Other daemons of the same house have taken the ports before; nine of them are not expected.
PORTS_TRIED_MAX = 8
# Leaving must not take long, and what stays behind expires.
REMOVE_WITHIN_S = 1.0
# Not below what needs privileges, where a port above is asked for.
_FIRST_PORT = 1024
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class KeeperSettings:
    """How patient a keeper is.

    Attributes:
        lifetime_s: asked of the gateway; RFC 6886 recommends two hours, so that what a dead node leaves behind goes.
        check_every_s: between looks whether the gateway still has it; a restarted one is noticed so soon.
        shortest_pause_s: whatever a gateway says, it is not asked again sooner.
        retry_after_s: after a failure; doubled by each further one.
        retry_after_s_max: where doubling ends. Most networks without a gateway that maps ports never get one.
    """

    lifetime_s: int = 7200
    check_every_s: float = 60.0
    shortest_pause_s: float = 5.0
    retry_after_s: float = 15.0
    retry_after_s_max: float = 1800.0


@dataclass(frozen=True, slots=True)
class MappingState:
    """What a keeper has, for status reports.

    Attributes:
        mapped: the mapping, None where there is none.
        expires_at: when it ends unless it is renewed, on trio's clock.
        problem: why there is none, or it could not be renewed, or it is of no use; empty where all is well.
    """

    mapped: MappedPort | None = None
    expires_at: float = 0.0
    problem: str = ""

    @property
    def address(self) -> tuple[str, int] | None:
        """Where others outside reach the port, None where they do not."""
        if self.mapped is None or why_useless(self.mapped.external_address):
            return None
        return str(self.mapped.external_address), self.mapped.external_port


def ports_to_try(preferred: int) -> list[int]:
    """Return external ports in the order in which they are asked for."""
    span = _LAST_PORT + 1 - _FIRST_PORT
    following = (_FIRST_PORT + (preferred - _FIRST_PORT + step) % span for step in range(1, PORTS_TRIED_MAX))
    return [preferred, *following]


class PortMappingKeeper:
    """Keeps a mapping as long as `run` runs.

    Args:
        internal_port: where this machine listens, on all its addresses.
        rng: jitter of retries.
        transport: of the packets to forward.
        finders: ways to find a gateway, tried side by side; the first that maps the port stays.
        settings: patience.
        on_change: called with each new state.

    Attributes:
        state: what there is now.
    """

    def __init__(
        self,
        internal_port: int,
        rng: random.Random,
        *,
        transport: Transport = "tcp",
        finders: Sequence[Finder] = (find_nat_pmp, find_upnp),
        settings: KeeperSettings | None = None,
        on_change: Callable[[MappingState], object] = lambda state: None,
    ) -> None:
        self.state = MappingState()
        self._internal_port = internal_port
        self._rng = rng
        self._transport: Transport = transport
        self._finders = tuple(finders)
        self._settings = settings or KeeperSettings()
        self._on_change = on_change
        self._gateway: Gateway | None = None
        # What was asked for last, and where: it is removed at the end even if its answer never came.
        self._asked: tuple[Gateway, WantedPort] | None = None
        self._renew_at = 0.0

    async def run(self) -> None:
        """Keep the port mapped until cancelled, then remove the mapping within REMOVE_WITHIN_S."""
        failures = 0
        try:
            while True:
                try:
                    await self._look_after()
                    failures = 0
                except PortMappingFailed as error:
                    failures += 1
                    self._gateway = None
                    self._take_note_of(error)
                await trio.sleep(self._pause_s(failures))
                self._expire()
        finally:
            await self._remove()

    async def _look_after(self) -> None:
        """Find a gateway, or renew what the known one granted, or look whether it still has it.

        Raises:
            PortMappingFailed: there is no mapping now, or it is not known whether there is.
        """
        mapped = self.state.mapped
        if self._gateway is None or mapped is None:
            await self._find()
        elif trio.current_time() >= self._renew_at:
            await self._map(self._gateway)
        elif (checked := await self._gateway.check(mapped)) is None:
            log.info("port_mapping_forgotten", protocol=mapped.protocol, port=mapped.external_port)
            await self._map_anew(self._gateway)
        else:
            self._change(replace(self.state, mapped=checked, problem=_problem(checked)))

    async def _map_anew(self, gateway: Gateway) -> None:
        """Get back what a gateway has forgotten; until it fails nobody is told that the port was not mapped."""
        try:
            await self._map(gateway)
        except PortMappingFailed:
            self._change(MappingState())
            raise

    async def _find(self) -> None:
        """Have all protocols look for a gateway side by side; the first one that maps the port ends the others."""
        problems: list[str] = []
        turn = trio.Lock()

        async def try_one(find: Finder) -> None:
            try:
                gateway = await find()
                # One at a time: whoever comes second must not leave a mapping behind.
                async with turn:
                    await self._map(gateway)
                    self._gateway = gateway
                    nursery.cancel_scope.cancel()
            except PortMappingFailed as error:
                problems.append(f"{error.what}: {error.why}")

        async with trio.open_nursery() as nursery:
            for find in self._finders:
                nursery.start_soon(partial(try_one, find))
        if self._gateway is None:
            raise PortMappingFailed("the port is not mapped at a gateway", why="; ".join(sorted(problems)))

    async def _map(self, gateway: Gateway) -> None:
        """Get or renew the mapping at a gateway, at the next port where another host has the preferred one."""
        held = self.state.mapped
        before = self._asked
        for port in ports_to_try(held.external_port if held else self._internal_port):
            wanted = WantedPort(self._transport, self._internal_port, port, self._settings.lifetime_s)
            self._asked = (gateway, wanted)
            try:
                mapped = await gateway.map_port(wanted)
            except PortTaken:
                self._asked = before
                continue
            self._asked = (gateway, replace(wanted, external_port=mapped.external_port))
            now = trio.current_time()
            self._renew_at = now + mapped.lifetime_s / 2
            self._change(MappingState(mapped, now + mapped.lifetime_s, _problem(mapped)))
            return
        raise PortMappingFailed(
            "no port could be mapped", why=f"other hosts have all {PORTS_TRIED_MAX} that were tried"
        )

    def _pause_s(self, failures: int) -> float:
        """Return how long to do nothing: until a look or a renewal is due, or the next try after failures."""
        settings, now = self._settings, trio.current_time()
        if failures:
            # Doubled a bounded number of times, as two to the power of weeks of failures is no float.
            doubled_s = settings.retry_after_s * 2 ** min(failures - 1, 16)
            pause_s = min(doubled_s, settings.retry_after_s_max) * self._rng.uniform(0.75, 1.0)
            if self.state.mapped is not None:
                pause_s = min(pause_s, (self.state.expires_at - now) / 2)
        else:
            pause_s = min(settings.check_every_s, self._renew_at - now)
        return max(pause_s, settings.shortest_pause_s)

    def _expire(self) -> None:
        if self.state.mapped is not None and trio.current_time() >= self.state.expires_at:
            self._change(MappingState(problem=self.state.problem or "it was not renewed in time"))

    def _take_note_of(self, error: PortMappingFailed) -> None:
        problem = f"{error.what}: {error.why}"
        self._change(replace(self.state, problem=problem))

    def _change(self, state: MappingState) -> None:
        before, self.state = self.state, state
        if state.address != before.address or state.problem != before.problem:
            log.info("port_mapping", address=state.address, problem=state.problem, port=self._internal_port)
        if state != before:
            self._on_change(state)

    async def _remove(self) -> None:
        if self._asked is None:
            return
        gateway, wanted = self._asked
        with trio.CancelScope(deadline=trio.current_time() + REMOVE_WITHIN_S, shield=True):
            try:
                await gateway.remove(wanted)
            except PortMappingFailed as error:
                log.info("port_mapping_left_behind", port=wanted.external_port, why=error.why)


def _problem(mapped: MappedPort) -> str:
    useless = why_useless(mapped.external_address)
    return f"the gateway's address {mapped.external_address} is {useless}" if useless else ""

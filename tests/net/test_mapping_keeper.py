from __future__ import annotations

import ipaddress
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from sedmad.errors import PortMappingFailed, PortTaken
from sedmad.net.mapping.gateway import MappedPort, WantedPort, why_useless
from sedmad.net.mapping.keeper import (
    PORTS_TRIED_MAX,
    REMOVE_WITHIN_S,
    KeeperSettings,
    MappingState,
    PortMappingKeeper,
    ports_to_try,
)

HOME = ipaddress.IPv4Address("203.0.113.7")
SETTINGS = KeeperSettings(
    lifetime_s=1000, check_every_s=60, shortest_pause_s=5, retry_after_s=10, retry_after_s_max=300
)


@dataclass
class FakeGateway:
    """A gateway in memory, on trio's clock."""

    protocol: str = "fake"
    address: ipaddress.IPv4Address = HOME
    taken: set[int] = field(default_factory=set)
    grants_s: float = 1000.0
    silent: bool = False
    refuses: bool = False
    answer_after_s: float = 0.0
    found_after_s: float = 0.0
    mappings: dict[int, float] = field(default_factory=dict)
    calls: list[tuple[str, float]] = field(default_factory=list)

    async def find(self) -> FakeGateway:
        await trio.sleep(self.found_after_s)
        await self._answer("find")
        return self

    async def map_port(self, wanted: WantedPort) -> MappedPort:
        if wanted.external_port not in self.taken and not self.silent:
            self.mappings[wanted.external_port] = trio.current_time() + self.grants_s
        await self._answer("map")
        if self.refuses:
            raise PortMappingFailed("refused", why="it is full")
        if wanted.external_port in self.taken:
            raise PortTaken("taken")
        return MappedPort(
            self.protocol,
            wanted.transport,
            wanted.internal_port,
            self.address,
            wanted.external_port,
            self.grants_s,
        )

    async def check(self, mapped: MappedPort) -> MappedPort | None:
        await self._answer("check")
        if mapped.external_port not in self.mappings:
            return None
        return replace(mapped, external_address=self.address)

    async def remove(self, wanted: WantedPort) -> None:
        await self._answer("remove")
        self.mappings.pop(wanted.external_port, None)

    async def _answer(self, call: str) -> None:
        self.calls.append((call, trio.current_time()))
        if self.silent:
            await trio.sleep(8)
            raise PortMappingFailed(f"{self.protocol} failed", why="it gave no answer")
        await trio.sleep(self.answer_after_s)

    def times_of(self, call: str) -> list[float]:
        return [at for name, at in self.calls if name == call]


@asynccontextmanager
async def keeping(
    *gateways: FakeGateway, settings: KeeperSettings = SETTINGS, on_change: Callable[[MappingState], Any] = id
) -> AsyncIterator[PortMappingKeeper]:
    keeper = PortMappingKeeper(
        4001,
        random.Random(1),
        finders=[gateway.find for gateway in gateways],
        settings=settings,
        on_change=on_change,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        yield keeper
        nursery.cancel_scope.cancel()


async def test_a_port_is_mapped_renewed_at_half_its_life_and_removed(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    states: list[MappingState] = []
    async with keeping(gateway, on_change=states.append) as keeper:
        await trio.sleep(1)
        assert keeper.state.address == (str(HOME), 4001)
        assert keeper.state.problem == ""
        await trio.sleep(2000)
        assert [round(at / 100) for at in gateway.times_of("map")] == [0, 5, 10, 15, 20]
        assert gateway.mappings[4001] > trio.current_time()
        assert keeper.state is states[-1]
    assert gateway.mappings == {}
    assert gateway.times_of("remove")


async def test_the_first_answer_wins_and_leaves_nothing_at_the_others(autojump_clock: MockClock) -> None:
    slow, quick, silent = (
        FakeGateway("slow", answer_after_s=0.4),
        FakeGateway("quick", found_after_s=0.1, answer_after_s=0.2),
        FakeGateway("silent", silent=True),
    )
    async with keeping(silent, slow, quick) as keeper:
        await trio.sleep(20)
        assert keeper.state.mapped is not None
        assert keeper.state.mapped.protocol == "quick"
        assert slow.mappings == {}
        assert trio.current_time() < 21
    assert quick.mappings == {}


async def test_a_gateway_that_forgot_is_asked_again_at_once(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    async with keeping(gateway) as keeper:
        await trio.sleep(100)
        gateway.mappings.clear()
        await trio.sleep(SETTINGS.check_every_s + 1)
        assert 4001 in gateway.mappings
        assert keeper.state.address == (str(HOME), 4001)


async def test_what_a_gateway_forgot_and_refuses_is_no_longer_said_to_be_mapped(
    autojump_clock: MockClock,
) -> None:
    gateway = FakeGateway()
    async with keeping(gateway) as keeper:
        await trio.sleep(100)
        gateway.mappings.clear()
        gateway.refuses = True
        await trio.sleep(SETTINGS.check_every_s + 1)
        assert keeper.state.mapped is None
        assert "it is full" in keeper.state.problem


async def test_a_new_external_address_is_noticed(autojump_clock: MockClock) -> None:
    gateway = FakeGateway()
    async with keeping(gateway) as keeper:
        await trio.sleep(100)
        gateway.address = ipaddress.IPv4Address("198.51.100.1")
        await trio.sleep(SETTINGS.check_every_s)
        assert keeper.state.address == ("198.51.100.1", 4001)


async def test_a_gateway_that_dies_is_asked_ever_more_rarely_and_the_mapping_ends_in_time(
    autojump_clock: MockClock,
) -> None:
    gateway = FakeGateway()
    async with keeping(gateway) as keeper:
        await trio.sleep(1)
        gateway.silent = True
        await trio.sleep(200)
        # It still holds, as far as anybody knows.
        assert keeper.state.address == (str(HOME), 4001)
        assert "no answer" in keeper.state.problem
        await trio.sleep(1000)
        assert keeper.state.mapped is None
        assert "no answer" in keeper.state.problem
        gateway.calls.clear()
        await trio.sleep(6000)
        assert len(gateway.calls) <= 6000 / (0.75 * SETTINGS.retry_after_s_max) + 1
        gateway.silent = False
        await trio.sleep(SETTINGS.retry_after_s_max)
        assert keeper.state.address == (str(HOME), 4001)
        assert keeper.state.problem == ""


async def test_without_any_gateway_the_state_says_what_each_protocol_met(autojump_clock: MockClock) -> None:
    async with keeping(FakeGateway("one", silent=True), FakeGateway("two", silent=True)) as keeper:
        await trio.sleep(10)
        assert keeper.state.address is None
        assert "one failed" in keeper.state.problem
        assert "two failed" in keeper.state.problem


async def test_ports_of_other_hosts_are_passed_over_and_never_removed(autojump_clock: MockClock) -> None:
    gateway = FakeGateway(taken={4001, 4002, 4003})
    gateway.mappings = dict.fromkeys(gateway.taken, 1e9)
    async with keeping(gateway) as keeper:
        await trio.sleep(1)
        assert keeper.state.address == (str(HOME), 4004)
    assert set(gateway.mappings) == gateway.taken


async def test_after_eight_ports_of_other_hosts_it_is_a_problem(autojump_clock: MockClock) -> None:
    gateway = FakeGateway(taken=set(range(4001, 4100)))
    async with keeping(gateway) as keeper:
        await trio.sleep(1)
        assert len(gateway.times_of("map")) == PORTS_TRIED_MAX
        assert keeper.state.mapped is None
        assert "other hosts" in keeper.state.problem
    assert gateway.times_of("remove") == []


async def test_an_address_that_nobody_can_dial_is_said_to_be_useless(autojump_clock: MockClock) -> None:
    gateway = FakeGateway(address=ipaddress.IPv4Address("100.64.3.4"))
    async with keeping(gateway) as keeper:
        await trio.sleep(1)
        assert keeper.state.mapped is not None
        assert keeper.state.address is None
        assert "carrier" in keeper.state.problem


async def test_however_short_a_lifetime_the_gateway_is_asked_at_a_bounded_rate(
    autojump_clock: MockClock,
) -> None:
    gateway = FakeGateway(grants_s=0.001)
    async with keeping(gateway):
        await trio.sleep(1000)
        assert len(gateway.calls) <= 2 * 1000 / SETTINGS.shortest_pause_s + 2


async def test_leaving_takes_no_longer_than_a_second_and_forgets_no_unanswered_request(
    autojump_clock: MockClock,
) -> None:
    gateway = FakeGateway(answer_after_s=0.5)
    async with keeping(gateway):
        await trio.sleep(0.75)
        assert 4001 in gateway.mappings
    assert gateway.mappings == {}

    async with keeping(gateway):
        await trio.sleep(10)
        gateway.answer_after_s = 1e6
        left_at = trio.current_time()
    assert trio.current_time() <= left_at + REMOVE_WITHIN_S + 1e-6


@given(st.integers(1, 65535))
def test_ports_that_are_tried_are_ports_and_the_preferred_one_comes_first(preferred: int) -> None:
    ports = ports_to_try(preferred)
    assert ports[0] == preferred
    assert len(set(ports)) == len(ports) == PORTS_TRIED_MAX
    assert all(1 <= port <= 65535 for port in ports)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.1.1",
        "172.31.0.1",
        "192.168.1.1",
        "224.0.0.1",
    ],
)
def test_addresses_behind_another_nat_are_useless(address: str) -> None:
    assert why_useless(ipaddress.IPv4Address(address))


@pytest.mark.parametrize("address", ["45.80.1.1", "203.0.113.7", "100.128.0.1", "172.32.0.1", "192.169.0.1"])
def test_other_addresses_are_of_use(address: str) -> None:
    assert why_useless(ipaddress.IPv4Address(address)) == ""

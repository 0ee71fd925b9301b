"""Puts and steps of repairs as their holders see them: room set aside, copies made, given up where nothing comes of it.

As node/releasing.py has it, and what node/putting.py and repair_step.py have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sedmad.core.placement import Need
from sedmad.errors import SedmadError

if TYPE_CHECKING:
    from sedmad.testing.store.node import StoreNode

RESERVE_TIMEOUT_S = 3.0
RELEASE_TIMEOUT_S = 3.0
HOLD_TIMEOUT_S = 60.0
CLEAR_UP_S = 2.0


class Undertakings:
    """What a node undertakes as an owner, by an id that no other has."""

    def __init__(self, node: StoreNode) -> None:
        self._node = node
        self._count = 0

    def new_id(self) -> str:
        """Return an id for a put that no other has."""
        self._count += 1
        return f"put {self._node.peer_id}.{self._node.life}.{self._count}"

    async def reserve_everywhere(self, put_id: str, needs: Mapping[str, Need]) -> set[str]:
        """Have room set aside; return the nodes that refuse."""
        failed: set[str] = set()

        async def reserve(peer: str, need: Need) -> None:
            arguments = (put_id, need.memory_bytes, need.disk_bytes)
            try:
                await self._node.calls.call(peer, "reserve", *arguments, timeout_s=RESERVE_TIMEOUT_S)
            except SedmadError:
                failed.add(peer)

        await self._node.tasks.gather(reserve(peer, need) for peer, need in needs.items())
        return failed

    async def hold(
        self, put_id: str, index: int, digest: str, peer: str, resident: bool, sources: tuple[str, ...]
    ) -> None:
        """Have a node make a copy."""
        if (peer,) == sources == (self._node.peer_id,):  # spooled here, and needed until it is held
            await self._node.holding.hold(put_id, index, digest, resident)
        else:
            arguments = (put_id, index, digest, resident, sources)
            await self._node.calls.call(peer, "hold", *arguments, timeout_s=HOLD_TIMEOUT_S)

    async def intend(self, put_id: str, holders: frozenset[str]) -> None:
        others = holders - {self._node.peer_id}
        await self._node.write(lambda: self._node.disk.begin(put_id, others))

    async def release(self, put_id: str, holders: frozenset[str]) -> None:
        await self._node.holding.release(put_id)
        untold = await self._tell_release(put_id, holders - {self._node.peer_id})
        if untold:
            self._node.tasks.spawn(self._clear_up(put_id, untold))
        else:
            await self._end(put_id)

    async def clear_up_all(self) -> None:
        """Have the puts given up that the end of an earlier life cut short."""
        for put_id, holders in self._node.disk.puts.items():
            self._node.tasks.spawn(self._clear_up(put_id, holders))

    async def _clear_up(self, put_id: str, holders: frozenset[str]) -> None:
        while holders := await self._tell_release(put_id, holders):
            await self._node.tasks.sleep(CLEAR_UP_S)
        await self._end(put_id)

    async def _end(self, put_id: str) -> None:
        await self._node.write(lambda: self._node.disk.end(put_id))

    async def _tell_release(self, put_id: str, holders: frozenset[str]) -> frozenset[str]:
        untold: set[str] = set()

        async def tell_one(peer: str) -> None:
            try:
                await self._node.calls.call(peer, "release", put_id, timeout_s=RELEASE_TIMEOUT_S)
            except SedmadError:
                untold.add(peer)

        await self._node.tasks.gather(map(tell_one, sorted(holders)))
        return frozenset(untold)

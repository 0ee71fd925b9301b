"""Mallory: a member with a good certificate that asks, tells and answers anything; a client and a stranger, too.

A new method is attacked as soon as the node serves it. Time jumps ahead whenever everybody waits.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import structlog
import trio
from besieged_node import Besieged, Bugs, Host, advert_of, open_node
from drawing import Drawer, mutated
from google.protobuf.message_factory import GetMessageClass
from hostile_words import ANN, CHAINS, EXAMPLES, MALLORY, MESH, STORED, STORED_BYTES, drawer
from parsers import framed
from trio.testing import MockClock

from sedmad.errors import LocalError, SedmadError
from sedmad.net.channel import Channel
from sedmad.net.join import JOIN_PROTOCOL
from sedmad.net.sessions import SESSION_PROTOCOL, Sessions
from sedmad.node import membership_wire
from sedmad.node.clock import wall_time_s
from sedmad.node.records import sign_record
from sedmad.wire import messages as wire
from sedmad.wire.frame import FrameDecoder, encode
from sedmad.wire.methods import MethodTable, services, snake_case

ROUNDS_MAX = 24
# On the node's clock, which costs nothing to wait for.
CALL_S = 5.0
# What comes before an attack has to succeed, on a machine however busy.
PREPARING_S = 3000.0
# The clock jumps when nobody has done anything for so long: the disk takes less.
QUIET_S = 0.005
# On the same clock, for one attack: nothing may hang.
PATIENCE_S = 3600.0


class BugFound(AssertionError):
    """The node met with an exception that it did not expect."""


@dataclass
class Said:
    """Bytes where a message is expected."""

    encoded: bytes

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        return self.encoded


@dataclass
class Attack:
    """One attack on one node, as `drawn` decides it."""

    drawn: Drawer
    node: Besieged
    bugs: Bugs
    sessions: Sessions = field(init=False)

    def __post_init__(self) -> None:
        answers = MethodTable()
        for name, service in services().items():
            handlers = {snake_case(found.name): partial(self._answer, found) for found in service.methods}
            answers.add(name, SimpleNamespace(**handlers))
        self.sessions = Sessions(
            Host(self.node.network, MALLORY.peer_id),  # type: ignore[arg-type]
            chain=CHAINS[MALLORY.peer_id],
            verify=lambda chain, peer_id: MESH.verify(peer_id, chain, wall_time_s()),
            methods=answers,
            rng=random.Random(1),
            wall_time=wall_time_s,
            software_version="0",
            on_link=lambda peer, up: None,
            on_message=lambda peer, method, message: None,
            on_clock=lambda peer, skew_s: None,
        )

    async def _answer(self, method: Any, request: Any, call: Any) -> Any:
        """Answer what the node asks: with anything."""
        response = self.drawn.message(method.output_type)
        chance = self.drawn.chance
        if chance.one_in(8):
            raise SedmadError(f"mallory does not like {chance.raw(4)!r}", node="\x1b[31m")
        return Said(self._encoded(response)), chance.raw(chance.pick((0, 0, 8, 64)))

    def _encoded(self, message: Any) -> bytes:
        encoded = message.SerializeToString()
        return mutated(encoded, self.drawn.chance) if self.drawn.chance.one_in(4) else encoded

    async def meet(self) -> None:
        """Become a member that the node knows."""
        await self.node.network.nursery.start(self.sessions.run)
        self.sessions.keep(ANN.peer_id, ("/memory",))
        await self.sessions.reach(ANN.peer_id, deadline=trio.current_time() + CALL_S)
        record = wire.SignedRecord.FromString(
            sign_record(advert_of("mallory", MALLORY, CHAINS[MALLORY.peer_id]), MALLORY)
        )
        self.tell(wire.MembershipMessage(records=[record], gossip=wire.Gossip()).SerializeToString())
        async with self._client() as channel:
            await _call(channel, "sedma.v1.MatrixService/PutMatrix", STORED, bytes(STORED_BYTES), PREPARING_S)
        channel = await self._member()
        told = next(example for example in EXAMPLES if isinstance(example, wire.StoreManifestRequest))
        await _call(channel, "sedma.v1.ManifestService/StoreManifest", told, seconds=PREPARING_S)

    def tell(self, encoded: bytes) -> None:
        self.sessions.send_message(ANN.peer_id, membership_wire.METHOD, encoded)

    async def _member(self) -> Channel:
        return await self.sessions.reach(ANN.peer_id, deadline=trio.current_time() + CALL_S)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Channel]:
        async with trio.open_nursery() as nursery:
            client, served = Channel(MethodTable()), Channel(self.node.clients_may_ask)
            nursery.start_soon(served.serve)
            nursery.start_soon(_pump, client, served)
            nursery.start_soon(_pump, served, client)
            yield client
            nursery.cancel_scope.cancel()

    async def ask_as_member(self) -> None:
        """Ask for any method that members may ask for, or tell anything of membership."""
        chance = self.drawn.chance
        names = sorted(self.node.peers_may_ask._methods)
        index = chance.below(len(names) + 2)
        if index >= len(names):
            self.tell(self._encoded(self.drawn.message(wire.MembershipMessage.DESCRIPTOR)))
            return
        with suppress(SedmadError):
            await self._ask(await self._member(), self.node.peers_may_ask, names[index])

    async def ask_as_client(self) -> None:
        """Ask for any method that clients may ask for."""
        name = self.drawn.chance.pick(sorted(self.node.clients_may_ask._methods))
        async with self._client() as channel:
            with suppress(SedmadError):
                await self._ask(channel, self.node.clients_may_ask, name)

    async def _ask(self, channel: Channel, table: MethodTable, name: str) -> None:
        method = table.get(name)
        assert method is not None
        message = Said(self._encoded(self.drawn.message(method.request_class.DESCRIPTOR)))
        chance = self.drawn.chance
        payload = bytes(chance.pick((STORED_BYTES, 0, 64, 256, 1))) + chance.raw(chance.pick((0, 0, 8)))
        try:
            response = await _call(channel, name, message, payload)
        except LocalError as error:
            raise BugFound(f"{name} failed: {error}", *self.bugs.found) from error
        GetMessageClass(method.response_class.DESCRIPTOR).FromString(response)

    async def speak_as_stranger(self) -> None:
        """Say anything on a new stream: frames that are good, frames that nearly are, or noise."""
        chance = self.drawn.chance
        kinds = (wire.SessionHello, wire.FrameHeader, wire.JoinRequest, wire.FrameHeader)
        drawn = [self.drawn.message(chance.pick(kinds).DESCRIPTOR) for _ in range(1 + chance.below(3))]
        data = b"".join(map(framed, drawn))
        handler = self.node.host.handlers[chance.pick((SESSION_PROTOCOL, JOIN_PROTOCOL))]
        theirs, mine = self.node.network.connect(ANN.peer_id, MALLORY.peer_id).ends
        with suppress(SedmadError):
            await mine.send_all(mutated(data, chance) if chance.one_in(2) else data)
        theirs.ended = True
        try:
            await handler(theirs, MALLORY.peer_id, "/memory")
        except* SedmadError:
            pass
        finally:
            await theirs.reset()

    async def run(self) -> None:
        """Do one thing after another until the bytes that decide it are used up."""
        await self.meet()
        things = (self.ask_as_member, self.ask_as_client, self.speak_as_stranger, self.ask_as_member)
        for _ in range(ROUNDS_MAX):
            if self.drawn.chance.is_used_up:
                break
            await self.drawn.chance.pick(things)()
            self.check()
        await trio.sleep(CALL_S)
        self.check()

    def check(self) -> None:
        if self.bugs.found:
            raise BugFound(self.bugs.found[0])


async def _call(
    channel: Channel, name: str, message: Any, payload: bytes = b"", seconds: float = CALL_S
) -> bytes:
    """Ask, and take what comes before the response as well."""
    deadline = trio.current_time() + seconds
    async with channel.open_call(name, message, deadline=deadline, payload=payload) as call:
        async for _ in call:
            pass
    assert call.response is not None
    return call.response


async def _pump(source: Channel, target: Channel) -> None:
    decoder = FrameDecoder()
    while True:
        frame = source.take()
        if frame is None:
            await source.wait_for_frames()
            continue
        for copy in decoder.receive_data(b"".join(map(bytes, encode(frame)))):
            target.deliver(copy)
        await trio.lowlevel.checkpoint()


async def _attack(data: bytes, bugs: Bugs) -> None:
    async with open_node() as node:
        with trio.fail_after(PATIENCE_S):
            await Attack(drawer(data), node, bugs).run()


def attack(data: bytes) -> None:
    """Attack a new node as these bytes decide.

    Raises:
        BugFound: something other than a typed error came of it.
    """
    bugs = Bugs()
    before = structlog.get_config()["processors"]
    structlog.configure(processors=[bugs])
    try:
        trio.run(_attack, data, bugs, clock=MockClock(autojump_threshold=QUIET_S))
    except BaseExceptionGroup as group:
        # Out of the nurseries: what the fuzzer has to see is the one error in them.
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group
    finally:
        structlog.configure(processors=before)

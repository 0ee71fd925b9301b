"""With a relay, and a dialler, that others wrote: js-libp2p.

Runs where $JS_LIBP2P names a folder in which this was done:
    npm install libp2p@3 @libp2p/tcp@11 @libp2p/identify@4 @libp2p/circuit-relay-v2@4 \
        @chainsafe/libp2p-noise@17 @chainsafe/libp2p-yamux@8
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from hidden_hosts import ECHO, LOOPBACK, UNIX_S, echo, is_echoed, make_relay, reserve

from sedmad.errors import NodeUnreachable
from sedmad.net.host import open_host
from sedmad.net.identity import Identity

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and os.environ.get("JS_LIBP2P")), reason="needs node and $JS_LIBP2P"
)


class Lines:
    """What a process prints, line by line."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._received = b""

    async def next(self) -> str:
        assert self._process.stdout is not None
        with trio.fail_after(30):
            while b"\n" not in self._received:
                data = await self._process.stdout.receive_some()
                assert data, "the process ended"
                self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line.decode()

    async def say(self, line: str) -> None:
        assert self._process.stdin is not None
        await self._process.stdin.send_all(f"{line}\n".encode())


@asynccontextmanager
async def js_libp2p() -> AsyncIterator[Lines]:
    script = Path(__file__).with_name("js_relay.mjs").read_text()
    run = partial(
        trio.run_process,
        ["node", "--input-type=module", "--eval", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        check=False,
        cwd=os.environ["JS_LIBP2P"],
    )
    async with trio.open_nursery() as nursery:
        yield Lines(await nursery.start(run))
        nursery.cancel_scope.cancel()


async def test_two_that_only_dial_out_reach_each_other_through_a_foreign_relay() -> None:
    async with (
        js_libp2p() as js,
        open_host(Identity.make(), []) as one,
        open_host(Identity.make(), []) as other,
    ):
        address = await js.next()
        other.serve(ECHO, echo)
        reservation = await other.reserve(address.rpartition("/p2p/")[2], [address], now_s=UNIX_S)
        assert reservation.limit is not None
        assert reservation.limit.bytes == 128 << 10
        await one.connect(other.peer_id, list(reservation.addresses), timeout_s=10)
        connection = one.connection(other.peer_id)
        assert connection is not None
        assert (connection.path, connection.is_limited) == ("relayed", True)
        assert await is_echoed(one, other.peer_id, bytes(50_000))
        with pytest.raises(NodeUnreachable):
            await is_echoed(one, other.peer_id, bytes(400_000))


async def test_a_foreign_node_dials_through_a_relay_of_ours() -> None:
    async with (
        js_libp2p() as js,
        open_host(Identity.make(), LOOPBACK) as hop,
        open_host(Identity.make(), []) as hidden,
    ):
        await js.next()
        make_relay(hop, is_member=lambda peer_id: peer_id == hidden.peer_id)
        hidden.serve(ECHO, echo)
        await js.say(await reserve(hidden, hop))
        assert await js.next() == "hello"

"""A peer in a process of its own, for tests that kill or stop it: prints its address, echoes, swallows."""

from __future__ import annotations

import logging

import structlog
import trio

from sedmad.net.host import open_host
from sedmad.net.identity import Identity
from sedmad.net.stream import ByteStream

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


async def echo(stream: ByteStream, peer_id: str, remote_address: str) -> None:
    while data := await stream.receive_some():
        await stream.send_all(data)


async def main() -> None:
    async with open_host(Identity.make(), ["/ip4/127.0.0.1/tcp/0"]) as host:
        host.serve("/test/echo/1", echo)
        print(host.listen_addresses[0], flush=True)
        await trio.sleep_forever()


trio.run(main)

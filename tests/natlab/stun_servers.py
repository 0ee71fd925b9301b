"""STUN over UDP and TCP on a host with two addresses, until it is killed: run by tests on the lab's relay."""

from __future__ import annotations

import ipaddress
import sys

import trio

from sedmad.net.stun.responder import ServerLimits, ServerPlaces
from sedmad.net.stun.server import serve_stun
from sedmad.net.stun.tcp_server import serve_stun_over_tcp

# All that tests ask comes from a few addresses.
LIMITS = ServerLimits(per_source_rate_per_s=1000.0, per_source_burst=1000, burst=5000)


async def serve(hosts: list[str], ports: list[int]) -> None:
    places = ServerPlaces(tuple(ipaddress.ip_address(host) for host in hosts), tuple(ports))
    sockets, listeners = {}, {}
    for place in places.all():
        host, port = places.endpoint(place).to_socket()
        sockets[place] = trio.socket.socket(type=trio.socket.SOCK_DGRAM)
        await sockets[place].bind((host, port))
        (listeners[place],) = await trio.open_tcp_listeners(port, host=host)
    print("ready", flush=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_stun, places, sockets, LIMITS)
        nursery.start_soon(serve_stun_over_tcp, places, listeners, LIMITS)


if __name__ == "__main__":
    trio.run(serve, sys.argv[1].split(","), [int(port) for port in sys.argv[2].split(",")])

"""Measures what the way from one host to another is like: a process that has a socket on both, and prints JSON.

Both ends read one clock, so that the two directions are told apart.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import time
from dataclasses import asdict

from nat_lab import topology
from nat_lab.measurements import Sounding
from nat_lab.namespaces import entered
from nat_lab.topology import Host

LISTENING_PORT = 7000
# A burst is over when nothing has come for so long; longer than a queue of a cable holds frames.
SILENCE_S = 1.0
# What the headers of Ethernet, IP and UDP add to a datagram.
HEADER_BYTES = 42
DATAGRAM_BYTES = 1200
RECEIVE_BUFFER_BYTES = 16 * 2**20
# From asm-generic/socket.h: the buffer may be larger than the system's limit.
SO_RCVBUFFORCE = 33
# Sent at a time, so that no queue but the cable's own fills.
AT_ONCE = 16


def sound(
    near: socket.socket, far: socket.socket, target: tuple[str, int], pings: int, burst: int
) -> Sounding:
    """Measure the way from `near` to `far`, which has the address `target`."""
    there_ms, back_ms = _ping(near, far, target, pings)
    sent, received, burst_s = _burst(near, far, target, burst)
    bits = received * (DATAGRAM_BYTES + HEADER_BYTES) * 8
    return Sounding(there_ms, back_ms, sent, received, burst_s, bits / burst_s / 1e6 if burst_s else 0.0)


def _ping(
    near: socket.socket, far: socket.socket, target: tuple[str, int], pings: int
) -> tuple[list[float], list[float]]:
    there_ms, back_ms = [], []
    for number in range(pings):
        ping = struct.pack("!I", number)
        sent_at = time.monotonic()
        near.sendto(ping, target)
        if (asked := _receive(far, ping)) is None:
            continue
        there_at = time.monotonic()
        far.sendto(ping, asked)
        there_ms.append((there_at - sent_at) * 1e3)
        if _receive(near, ping) is not None:
            back_ms.append((time.monotonic() - there_at) * 1e3)
    return there_ms, back_ms


def _receive(end: socket.socket, expected: bytes) -> tuple[str, int] | None:
    while select.select([end], [], [], SILENCE_S)[0]:
        data, sender = end.recvfrom(DATAGRAM_BYTES)
        if data == expected:
            known: tuple[str, int] = sender
            return known
    return None


def _burst(
    near: socket.socket, far: socket.socket, target: tuple[str, int], burst: int
) -> tuple[int, int, float]:
    """Send as fast as the way takes; return packets sent and received, and how long it took in seconds."""
    payload = bytes(DATAGRAM_BYTES)
    sent = received = 0
    began = last = time.monotonic()
    while sent < burst or (burst and select.select([far], [], [], SILENCE_S)[0]):
        for _ in range(min(AT_ONCE, burst - sent)):
            near.sendto(payload, target)
            sent += 1
        while select.select([far], [], [], 0)[0]:
            far.recv(DATAGRAM_BYTES)
            received, last = received + 1, time.monotonic()
    return sent, received, last - began


def _socket(host: Host, port: int) -> socket.socket:
    with entered(host.name):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
    made.bind((str(host.addresses[0].ip), port))
    return made


def main() -> None:
    """Print what the way between two hosts is like."""
    parser = argparse.ArgumentParser(
        prog="nat_lab.sounding", description="Measure the way from one host to another."
    )
    parser.add_argument("near", choices=topology.HOSTS)
    parser.add_argument("far", choices=topology.HOSTS, help="that the first can reach by its address")
    parser.add_argument("--pings", type=int, default=20)
    parser.add_argument("--burst", type=int, default=1000, help=f"packets of {DATAGRAM_BYTES} bytes")
    options = parser.parse_args()
    far_host = topology.HOSTS[options.far]
    with _socket(topology.HOSTS[options.near], 0) as near, _socket(far_host, LISTENING_PORT) as far:
        target = (str(far_host.addresses[0].ip), LISTENING_PORT)
        print(json.dumps(asdict(sound(near, far, target, options.pings, options.burst))))


if __name__ == "__main__":
    main()

"""The process of a cable: copies Ethernet frames between TAPs on two machines until its stdin ends.

Started by `cable.Cable`. It answers on a Unix socket what it did with frames, after it became what it was told.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

from nat_lab.cable import ANSWER_TIMEOUT_S, QUESTION_BYTES_MAX, End, socket_path
from nat_lab.link import Direction, LinkQuality
from nat_lab.namespaces import entered

# From linux/if_tun.h.
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
FRAME_BYTES_MAX = 65_600
# Read at a time, so that neither direction keeps the other waiting.
FRAMES_AT_ONCE = 64


def _open_tap(end: End) -> int:
    """Make a TAP on a machine, and return its descriptor."""
    with entered(end.machine):
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", end.device.encode(), IFF_TAP | IFF_NO_PI))
    return descriptor


def _listen(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = socket_path(name)
    path.unlink(missing_ok=True)
    listener.bind(str(path))
    listener.listen(8)
    return listener


def _answer(listener: socket.socket, directions: Sequence[Direction]) -> None:
    connection, _ = listener.accept()
    # An asker that went away, or says nothing, has no answer; frames go on.
    with connection, suppress(OSError):
        connection.settimeout(ANSWER_TIMEOUT_S)
        question = json.loads(connection.recv(QUESTION_BYTES_MAX))
        if question:
            for direction in directions:
                direction.quality = LinkQuality(**question)
        connection.send(json.dumps([asdict(direction.counts) for direction in directions]).encode())


def _read_frames(tap: int, direction: Direction) -> None:
    with suppress(BlockingIOError):
        for _ in range(FRAMES_AT_ONCE):
            direction.send(os.read(tap, FRAME_BYTES_MAX), time.monotonic())


def _write_frames(tap: int, direction: Direction) -> None:
    for frame in direction.arrivals(time.monotonic()):
        # A device that is down, or full, loses frames as any device does.
        with suppress(OSError):
            os.write(tap, frame)


def _carry(taps: Sequence[int], directions: Sequence[Direction], listener: socket.socket) -> None:
    """Copy frames until stdin ends."""
    sources = {taps[0]: directions[0], taps[1]: directions[1]}
    targets = {taps[1]: directions[0], taps[0]: directions[1]}
    while True:
        due = [at for direction in directions if (at := direction.next_arrival()) is not None]
        wait_s = max(0.0, min(due) - time.monotonic()) if due else None
        # select() waits for microseconds where epoll rounds up to milliseconds.
        ready, _, _ = select.select([*taps, listener, sys.stdin], [], [], wait_s)
        if sys.stdin in ready:
            return
        for tap in taps:
            if tap in ready:
                _read_frames(tap, sources[tap])
        for tap in taps:
            _write_frames(tap, targets[tap])
        if listener in ready:
            _answer(listener, directions)


def main() -> None:
    """Be a cable."""
    parser = argparse.ArgumentParser(
        prog="nat_lab.copying", description="Be a cable between two machines of the lab."
    )
    parser.add_argument("name")
    parser.add_argument("ends", nargs=2, type=End.parse, metavar="MACHINE/DEVICE")
    parser.add_argument("--quality", type=json.loads, default={})
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    taps = [_open_tap(end) for end in options.ends]
    rng = random.Random(options.seed)
    directions = [Direction(LinkQuality(**options.quality), rng) for _ in taps]
    with _listen(options.name) as listener:
        print("ready", flush=True)
        _carry(taps, directions, listener)


if __name__ == "__main__":
    main()

"""Measures how the NATs of a site behave: a process that has sockets on both sides of them, and prints JSON.

Nothing waits for what is filtered. What might get in is sent first and then a *fence*, which does get in: what has not
come when the fence has, and a moment later, was filtered. A busy machine makes that slower, not wrong.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict

from nat_lab import topology
from nat_lab.errors import LabError
from nat_lab.measurements import Behaviour, filtering_of, mapping_of
from nat_lab.namespaces import entered
from nat_lab.topology import PUBLIC, RELAY, Host, Site

Address = tuple[str, int]

# The socket that is probed has this port, and what it speaks to has these; none is one that the kernel gives away.
LOCAL_PORT, PORT, OTHER_PORT, STRANGERS_PORT = 25_000, 3478, 3479, 5000
# What passes is there in milliseconds, over a bad link in a second or two.
PASSES_WITHIN_S = 10.0
# What never comes has no fence: so long a UDP socket asks in vain before UDP is held for blocked.
BLOCKED_AFTER_S, ASK_AGAIN_S = 1.0, 0.2
# Frames of one link are in order; those of two are not by a hair.
AFTER_FENCE_S = 0.1
BYTES_MAX = 64


class Probe:
    """Sockets on both sides of a site's NATs, closed when it ends.

    Args:
        site: whose first host has the socket that is probed.
        gateway: address of it that the internet sees.
        kind: SOCK_DGRAM or SOCK_STREAM.
    """

    def __init__(self, site: Site, gateway: str, kind: socket.SocketKind) -> None:
        self._kind = kind
        self._stack = ExitStack()
        self.host = site.hosts[0]
        self.neighbour = site.hosts[1] if len(site.hosts) > 1 else None
        self.gateway = gateway
        relay, relay_second = (str(address.ip) for address in RELAY.addresses)
        self.targets = ((relay, PORT), (relay, OTHER_PORT), (relay_second, PORT))

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def open(self, host: Host, address: Address) -> socket.socket:
        """Return a socket of a host, bound to one of its addresses."""
        with entered(host.name):
            made = self.keep(socket.socket(socket.AF_INET, self._kind))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(address)
        return made

    def local(self) -> socket.socket:
        """Return one more socket of the probed host, with the probed port."""
        return self.open(self.host, (_address(self.host), LOCAL_PORT))

    def keep(self, made: socket.socket) -> socket.socket:
        """Close a socket when the probe ends; a connection at once, so that its ports are free for the next."""
        if self._kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.settimeout(PASSES_WITHIN_S)
        return self._stack.enter_context(made)


def probe_udp(site: Site, gateway: str) -> Behaviour:
    """Measure UDP."""
    with Probe(site, gateway, socket.SOCK_DGRAM) as probe:
        local = probe.local()
        servers = [probe.open(RELAY, address) for address in probe.targets]
        stranger = probe.open(PUBLIC, (_address(PUBLIC), STRANGERS_PORT))

        stranger.sendto(b"unsolicited", (probe.gateway, LOCAL_PORT))
        external = _ask(local, servers[0], probe.targets[0])
        if external is None:
            return Behaviour()
        servers[1].sendto(b"other port", external)
        servers[2].sendto(b"other address", external)
        stranger.sendto(b"stranger", external)
        if probe.neighbour:
            neighbour = probe.open(probe.neighbour, (_address(probe.neighbour), 0))
            neighbour.sendto(b"hairpin", external)
        servers[0].sendto(b"fence", external)
        came = _until_fence(local)

        external_ports = [external[1]]
        for server, target in zip(servers[1:], probe.targets[1:], strict=True):
            local.sendto(b"question", target)
            external_ports.append(server.recvfrom(BYTES_MAX)[1][1])
        return Behaviour(
            mapping=mapping_of(external_ports),
            filtering=filtering_of(
                from_other_port=b"other port" in came,
                from_other_address=bool({b"other address", b"stranger"} & came),
            ),
            external_ports=tuple(external_ports),
            preserves_port=external[1] == LOCAL_PORT,
            hairpin=b"hairpin" in came if probe.neighbour else None,
            admits_unsolicited=b"unsolicited" in came,
        )


def probe_tcp(site: Site, gateway: str) -> Behaviour:
    """Measure TCP: the host listens on the port from which it dials."""
    with Probe(site, gateway, socket.SOCK_STREAM) as probe:
        listener = probe.local()
        listener.listen(8)
        servers = [probe.open(RELAY, address) for address in probe.targets]
        for server in servers:
            server.listen(8)

        unsolicited = _dial(probe, PUBLIC, _address(PUBLIC), (probe.gateway, LOCAL_PORT))
        local = probe.local()
        local.connect(probe.targets[0])
        accepted, external = servers[0].accept()
        probe.keep(accepted)
        other_port = _dial(probe, RELAY, probe.targets[0][0], external)
        other_address = _dial(probe, RELAY, probe.targets[2][0], external)
        stranger = _dial(probe, PUBLIC, _address(PUBLIC), external)
        neighbour = probe.neighbour and _dial(probe, probe.neighbour, _address(probe.neighbour), external)
        accepted.sendall(b"fence")
        local.recv(BYTES_MAX)
        time.sleep(AFTER_FENCE_S)

        external_ports = [external[1]]
        for server, target in zip(servers[1:], probe.targets[1:], strict=True):
            probe_socket = probe.local()
            probe_socket.connect(target)
            answering, seen = server.accept()
            probe.keep(answering)
            external_ports.append(seen[1])
        return Behaviour(
            mapping=mapping_of(external_ports),
            filtering=filtering_of(
                from_other_port=_is_connected(other_port),
                from_other_address=_is_connected(other_address) or _is_connected(stranger),
            ),
            external_ports=tuple(external_ports),
            preserves_port=external[1] == LOCAL_PORT,
            hairpin=_is_connected(neighbour) if neighbour else None,
            admits_unsolicited=_is_connected(unsolicited),
        )


def _address(host: Host) -> str:
    return str(host.addresses[0].ip)


def _ask(local: socket.socket, server: socket.socket, target: Address) -> Address | None:
    """Send to a server until it sees that; return whom it sees, or None where nothing gets out."""
    until = time.monotonic() + BLOCKED_AFTER_S
    while time.monotonic() < until:
        local.sendto(b"question", target)
        if select.select([server], [], [], ASK_AGAIN_S)[0]:
            seen: Address = server.recvfrom(BYTES_MAX)[1]
            return seen
    return None


def _until_fence(local: socket.socket) -> set[bytes]:
    """Return what comes before the fence, and for a moment after it."""
    came: set[bytes] = set()
    while b"fence" not in came:
        came.add(local.recv(BYTES_MAX))
    while select.select([local], [], [], AFTER_FENCE_S)[0]:
        came.add(local.recv(BYTES_MAX))
    return came


def _dial(probe: Probe, host: Host, address: str, target: Address) -> socket.socket:
    """Begin to connect from a host, without waiting for what comes of it."""
    dialler = probe.open(host, (address, 0))
    dialler.setblocking(False)
    dialler.connect_ex(target)
    return dialler


def _is_connected(dialler: socket.socket) -> bool:
    settled: Sequence[socket.socket] = select.select([], [dialler], [], 0)[1]
    return bool(settled) and dialler.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0


def main() -> None:
    """Print a site's behaviour by protocol."""
    parser = argparse.ArgumentParser(
        prog="nat_lab.probing", description="Measure how the NATs of a site behave."
    )
    parser.add_argument("site", choices=topology.SITES)
    parser.add_argument("gateway", help="its address that the internet sees")
    options = parser.parse_args()
    site = topology.SITES[options.site]
    try:
        behaviours = {
            "udp": asdict(probe_udp(site, options.gateway)),
            "tcp": asdict(probe_tcp(site, options.gateway)),
        }
    except OSError as error:
        raise LabError(f"nothing passes where something must: {error}") from error
    print(json.dumps(behaviours))


if __name__ == "__main__":
    main()
